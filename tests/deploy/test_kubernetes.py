"""What stands in deploy/kubernetes is valid, safe, and agrees with the service, wherever both say the same thing."""

import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import yaml

from polymodal.app.api.server import LAST_REQUESTS_S
from polymodal.app.cpus import default_plan
from polymodal.app.main import create_app
from polymodal.app.probes import LIVEZ, READYZ, STARTUPZ
from polymodal.app.settings import MIB, Settings, load_settings, variable

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
COMBINATIONS = [
    [],
    *([name] for name in COMPONENTS if name != "scrape-with-key"),
    ["service-monitor", "scrape-with-key"],
]
FILES = sorted(
    path for path in FOLDER.rglob("*.yaml") if path.parent.name != "prometheus-rule"
)  # which a script writes
OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes: preStop's sleep came with the first."""
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that a cluster knows from an operator, and Kubernetes' own schemas don't."""

SERVER_MIB, WORKER_MIB = 62, 142  # PSS when ready, docs/benchmarks.md: 346 MiB in all, 142 for each of two workers
CONNECTIONS_MIB = 24  # a thousand, open and silent: docs/operations.md
PICTURE_MIB = 572 + 25  # the largest accepted picture in WebP, docs/api.md: one in each worker
JSON_MIB = 2 * 100  # bodies that are parsed at one time, docs/api.md
CLOSING_S = 1 + LAST_REQUESTS_S  # answers on their way, and last words, after draining (app/main.py)
RESERVE_S = 5
KUBELETS_LOG_MIB = 50  # a container's log at most: 5 files of 10 MiB, if the kubelet isn't told otherwise

kustomize = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders, is not installed")


def render(folder):
    """The objects that `kubectl apply -k` would send."""
    run = subprocess.run(["kubectl", "kustomize", folder], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return parse(run.stdout)


def parse(text):
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture
def rendered(tmp_path):
    """Renders the base with components."""

    def make(components):
        inside = os.path.relpath(FOLDER, tmp_path)
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{inside}/base"],
            "components": [f"{inside}/components/{name}" for name in components],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return render(tmp_path)

    return make


def of_kind(objects, kind):
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def base(kind):
    """An object of the base as it is written, without kubectl."""
    return of_kind(
        [each for path in sorted((FOLDER / "base").glob("*.yaml")) for each in parse(path.read_text())], kind
    )


def pod():
    return base("Deployment")["spec"]["template"]["spec"]


def container():
    (only,) = pod()["containers"]
    return only


def settings_of(kustomization):
    document = yaml.safe_load(kustomization.read_text())
    literals = [each for generator in document.get("configMapGenerator", []) for each in generator["literals"]]
    return dict(each.split("=", 1) for each in literals)


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def routes():
    return create_app(Settings(workers=0)).openapi()["paths"].keys()


def is_restricted(spec):
    """What the Pod Security Standard `restricted` asks of a pod, as far as it is said here: for the pod, then for each container.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    whole = spec["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] == 10001
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"} <= allowed
    for each in [*spec["containers"], *spec.get("initContainers", [])]:
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context.get("privileged", False) is False
        assert not any("hostPort" in port for port in each.get("ports", []))
        assert {"cpu", "memory", "ephemeral-storage"} == each["resources"]["limits"].keys()
        assert {"cpu", "memory", "ephemeral-storage"} == each["resources"]["requests"].keys()


def test_yaml_is_tidy():
    """By yamllint's command, as its licence (GPL) is another one than ours."""
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", FOLDER / ".yamllint", *FILES]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", sorted((FOLDER / "base").glob("[!k]*.yaml")), ids=lambda path: path.stem)
def test_the_base_is_what_kubernetes_understands(path, version):
    for document in parse(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, version, strict=True)


@kustomize
@pytest.mark.parametrize("components", COMBINATIONS, ids=lambda components: "+".join(components) or "base")
def test_every_component_renders_to_what_kubernetes_understands(rendered, components):
    for document in rendered(components):
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, OLDEST, strict=True)


@kustomize
@pytest.mark.parametrize("components", COMBINATIONS, ids=lambda components: "+".join(components) or "base")
def test_every_component_leaves_pods_restricted(rendered, components):
    is_restricted(of_kind(rendered(components), "Deployment")["spec"]["template"]["spec"])


@kustomize
@pytest.mark.parametrize("components", COMBINATIONS, ids=lambda components: "+".join(components) or "base")
def test_every_component_sets_what_the_service_knows(rendered, components):
    """A wrong or unknown setting refuses the start. Files of volumes aren't there, and are the only complaint."""
    objects = rendered(components)
    values = of_kind(objects, "ConfigMap")["data"]
    (serving,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    mounted = [mount["mountPath"] for mount in serving.get("volumeMounts", [])]
    places = {name: value for name, value in values.items() if value.startswith("/")}
    for value in places.values():
        assert any(Path(value).is_relative_to(folder) for folder in mounted)
    refused_without_its_file = {"POLYMODAL_REQUIRE_API_KEYS"}
    load_settings(
        {name: value for name, value in values.items() if name not in places.keys() | refused_without_its_file}
    )
    assert values.keys() <= {variable(field) for field in Settings.model_fields}


@kustomize
def test_the_example_overlay_is_restricted_in_a_namespace_of_its_own():
    objects = render(FOLDER / "overlays" / "example")
    for document in objects:
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, OLDEST, strict=True)
    is_restricted(of_kind(objects, "Deployment")["spec"]["template"]["spec"])
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {"polymodal"}
    labels = of_kind(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@kustomize
def test_a_changed_setting_rolls_the_pods(rendered):
    """The name of the settings has their digest in it, and the pods refer to that name."""
    names = set()
    for components in ([], ["api-keys"]):
        objects = rendered(components)
        name = of_kind(objects, "ConfigMap")["metadata"]["name"]
        reference = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        assert reference == [{"configMapRef": {"name": name}}]
        names.add(name)
    assert len(names) == 2


def test_pods_of_the_base_are_restricted():
    is_restricted(pod())


def test_the_image_runs_as_the_user_that_pods_run_as():
    users = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    context = pod()["securityContext"]
    assert set(users) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


def test_the_image_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container()["image"] == f"polymodal:{version}"


def test_a_pod_gets_no_token_and_no_environment_of_other_services():
    """Kubernetes would set POLYMODAL_PORT=tcp://… for a Service that is called polymodal: a wrong setting, and no start."""
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert base("Service")["metadata"]["name"] == "polymodal"


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", STARTUPZ), ("livenessProbe", LIVEZ), ("readinessProbe", READYZ)],
)
def test_probes_ask_routes_that_there_are_at_the_port_that_is_open(probe, path):
    asked = container()[probe]["httpGet"]
    assert asked == {"path": path, "port": "http"}
    assert path in routes()


def test_ports_are_those_of_the_settings():
    values = settings_of(FOLDER / "base" / "kustomization.yaml")
    settings = load_settings(values)
    assert {port["name"]: port["containerPort"] for port in container()["ports"]} == {
        "http": settings.port,
        "metrics": settings.admin_port,
    }
    assert f"EXPOSE {settings.port}" in (ROOT / "Dockerfile").read_text()
    assert [port["targetPort"] for port in base("Service")["spec"]["ports"]] == ["http"]


def test_accepted_requests_get_their_time_before_a_pod_is_killed():
    settings = load_settings(settings_of(FOLDER / "base" / "kustomization.yaml"))
    sleep = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= sleep + settings.drain_timeout_s + CLOSING_S + RESERVE_S


def test_compose_gives_requests_their_time_too():
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["polymodal"]
    assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().drain_timeout_s + CLOSING_S + RESERVE_S


def test_memory_is_enough_for_the_largest_pictures_in_every_worker_and_the_largest_bodies():
    """A pod that runs out of memory is killed as a whole, since Kubernetes 1.28; so this bound must hold whatever is sent."""
    limits, settings = container()["resources"]["limits"], Settings()
    plan = default_plan(math.ceil(float(limits["cpu"])))
    bodies = settings.queue_limit + plan.batch_items * plan.workers
    needed = (
        SERVER_MIB
        + CONNECTIONS_MIB
        + plan.workers * (WORKER_MIB + PICTURE_MIB)
        + JSON_MIB
        + bodies * settings.max_body_bytes / MIB
    )
    assert mebibytes(limits["memory"]) >= needed


def test_memory_is_requested_for_every_day_and_one_large_picture():
    requests, cores = container()["resources"]["requests"], float(container()["resources"]["limits"]["cpu"])
    assert (
        mebibytes(requests["memory"])
        >= SERVER_MIB + CONNECTIONS_MIB + default_plan(math.ceil(cores)).workers * WORKER_MIB + PICTURE_MIB
    )


def test_the_log_has_room_on_the_node():
    assert mebibytes(container()["resources"]["limits"]["ephemeral-storage"]) > KUBELETS_LOG_MIB


def test_what_scales_what_protects_and_what_closes_mean_the_same_pods():
    labels = base("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert base("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert base("Service")["spec"]["selector"].items() <= labels.items()
    assert base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert base("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    scaled = base("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert scaled == {"apiVersion": "apps/v1", "kind": "Deployment", "name": base("Deployment")["metadata"]["name"]}
    assert "replicas" not in base("Deployment")["spec"]


def test_two_pods_can_serve_while_one_is_evicted():
    scaling = base("HorizontalPodAutoscaler")["spec"]
    assert scaling["minReplicas"] > base("PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert base("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


async def test_the_autoscaler_asks_for_a_metric_of_the_service():
    patch = yaml.safe_load((FOLDER / "components" / "scale-on-queue" / "kustomization.yaml").read_text())["patches"][0][
        "patch"
    ]
    (operation,) = yaml.safe_load(patch)
    name = operation["value"]["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load((FOLDER / "components" / "scale-on-queue" / "prometheus-adapter.yaml").read_text())[
        "rules"
    ]["custom"]
    assert name == rule["name"]["as"]
    assert rule["seriesQuery"].startswith(name + "{")
    app = create_app(Settings(workers=0))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        exported = re.findall(r"^# TYPE (\S+) ", (await client.get("/metrics")).text, flags=re.MULTILINE)
    assert "polymodal_queue_length" in exported
    assert name in exported


def test_serving_opens_no_connection_but_what_the_policy_lets_through():
    policy = base("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    open_to_all = [port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]]
    assert open_to_all == ["http"]


def test_every_component_is_explained():
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    for name in COMPONENTS:
        assert f"`{name}`" in document


def test_the_documents_manifests_are_what_kubernetes_understands():
    blocks = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "kubernetes.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    objects = [document for block in blocks for document in parse(block)]
    kinds = {each["kind"] for each in objects if "kind" in each}
    assert kinds == {"NetworkPolicy", "PersistentVolumeClaim"}
    for each in objects:
        if "kind" in each:
            kubernetes_validate.validate(each, OLDEST, strict=True)
