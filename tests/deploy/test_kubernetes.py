"""deploy/kubernetes is valid and safe, and agrees with the service and the image."""

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
)  # a script writes those
OLDEST, NEWEST = "1.30", "1.37"
"""Versions of Kubernetes; preStop's sleep needs the first."""
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of operators, which Kubernetes' own schemas don't have."""

SERVER_MIB, WORKER_MIB = 62, 142  # PSS when ready, docs/benchmarks.md: 346 MiB in all, 142 for each of two workers
CONNECTIONS_MIB = 24  # a thousand, open and silent: docs/operations.md
IMAGE_MIB = 572 + 25  # the largest accepted image in WebP, docs/api.md: one in each worker
JSON_MIB = 2 * 100  # bodies that are parsed at the same time, docs/api.md
CLOSING_S = 1 + LAST_REQUESTS_S  # pending responses and last log lines after draining (app/main.py)
RESERVE_S = 5
KUBELETS_LOG_MIB = 50  # largest log of a container: 5 files of 10 MiB by the kubelet's default
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that `restricted` allows."""
RESOURCES = {"cpu", "memory", "ephemeral-storage"}

kustomize = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def render(folder):
    """Return the objects that `kubectl apply -k` would send."""
    run = subprocess.run(["kubectl", "kustomize", folder], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return parse(run.stdout)


def parse(text):
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture
def rendered(tmp_path):
    """Returns a function that renders the base with components."""

    def make(components):
        folder = os.path.relpath(FOLDER, tmp_path)
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{folder}/base"],
            "components": [f"{folder}/components/{name}" for name in components],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return render(tmp_path)

    return make


def of_kind(objects, kind):
    (match,) = [document for document in objects if document["kind"] == kind]
    return match


def base(kind):
    """Return an object of the base, without kubectl."""
    files = sorted((FOLDER / "base").glob("*.yaml"))
    return of_kind([document for path in files for document in parse(path.read_text())], kind)


def pod():
    return base("Deployment")["spec"]["template"]["spec"]


def container_of(spec):
    (container,) = spec["containers"]
    return container


def settings_of(kustomization):
    document = yaml.safe_load(kustomization.read_text())
    literals = [line for generator in document.get("configMapGenerator", []) for line in generator["literals"]]
    return dict(line.split("=", 1) for line in literals)


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def routes():
    return create_app(Settings(workers=0)).openapi()["paths"].keys()


def assert_restricted(spec):
    """Check a pod against the Pod Security Standard `restricted`, and beyond it for a read-only file system and resources.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    of_pod = spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == 10001
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"} <= VOLUMES
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context.get("privileged", False) is False
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert container["resources"]["limits"].keys() == RESOURCES
        assert container["resources"]["requests"].keys() == RESOURCES


def assert_valid_and_restricted(objects):
    for document in objects:
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, OLDEST, strict=True)
    assert_restricted(of_kind(objects, "Deployment")["spec"]["template"]["spec"])


def test_yaml_passes_yamllint():
    """Run yamllint as a program, because of its licence (GPL)."""
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", FOLDER / ".yamllint", *FILES]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", sorted((FOLDER / "base").glob("[!k]*.yaml")), ids=lambda path: path.stem)
def test_the_base_matches_the_schemas_of_kubernetes(path, version):
    for document in parse(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, version, strict=True)


@kustomize
@pytest.mark.parametrize("components", COMBINATIONS, ids=lambda components: "+".join(components) or "base")
def test_every_component_is_valid_and_leaves_pods_restricted(rendered, components):
    assert_valid_and_restricted(rendered(components))


@kustomize
@pytest.mark.parametrize("components", COMBINATIONS, ids=lambda components: "+".join(components) or "base")
def test_every_component_sets_valid_settings(rendered, components):
    """The service does not start with a wrong or unknown setting. Settings of files in volumes are left out."""
    objects = rendered(components)
    values = of_kind(objects, "ConfigMap")["data"]
    serving = container_of(of_kind(objects, "Deployment")["spec"]["template"]["spec"])
    mounted = [mount["mountPath"] for mount in serving.get("volumeMounts", [])]
    files = {name: value for name, value in values.items() if value.startswith("/")}
    for value in files.values():
        assert any(Path(value).is_relative_to(folder) for folder in mounted)
    left_out = files.keys() | {"POLYMODAL_REQUIRE_API_KEYS"}  # which needs its file
    load_settings({name: value for name, value in values.items() if name not in left_out})
    assert values.keys() <= {variable(field) for field in Settings.model_fields}


@kustomize
def test_the_example_overlay_is_restricted_in_a_namespace_of_its_own():
    objects = render(FOLDER / "overlays" / "example")
    assert_valid_and_restricted(objects)
    namespaces = {document["metadata"].get("namespace") for document in objects if document["kind"] != "Namespace"}
    assert namespaces == {"polymodal"}
    labels = of_kind(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@kustomize
def test_a_changed_setting_restarts_the_pods(rendered):
    """The name of the ConfigMap has a digest of the settings, and the pods refer to that name."""
    names = set()
    for components in ([], ["api-keys"]):
        objects = rendered(components)
        name = of_kind(objects, "ConfigMap")["metadata"]["name"]
        serving = container_of(of_kind(objects, "Deployment")["spec"]["template"]["spec"])
        assert serving["envFrom"] == [{"configMapRef": {"name": name}}]
        names.add(name)
    assert len(names) == 2


def test_pods_of_the_base_are_restricted():
    assert_restricted(pod())


def test_image_and_pods_have_the_same_user():
    users = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    context = pod()["securityContext"]
    assert set(users) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


def test_the_image_has_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container_of(pod())["image"] == f"polymodal:{version}"


def test_a_pod_gets_no_token_and_no_environment_of_other_services():
    """Kubernetes would set POLYMODAL_PORT=tcp://… for a Service with the name polymodal, and the service would not start."""
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert base("Service")["metadata"]["name"] == "polymodal"


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", STARTUPZ), ("livenessProbe", LIVEZ), ("readinessProbe", READYZ)],
)
def test_probes_use_existing_routes_at_the_open_port(probe, path):
    assert container_of(pod())[probe]["httpGet"] == {"path": path, "port": "http"}
    assert path in routes()


def test_ports_match_the_settings_and_the_image():
    values = settings_of(FOLDER / "base" / "kustomization.yaml")
    settings = load_settings(values)
    assert {port["name"]: port["containerPort"] for port in container_of(pod())["ports"]} == {
        "http": settings.port,
        "metrics": settings.admin_port,
    }
    assert f"EXPOSE {settings.port}" in (ROOT / "Dockerfile").read_text()
    assert [port["targetPort"] for port in base("Service")["spec"]["ports"]] == ["http"]


def test_a_pod_drains_before_it_is_killed():
    settings = load_settings(settings_of(FOLDER / "base" / "kustomization.yaml"))
    sleep = container_of(pod())["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= sleep + settings.drain_timeout_s + CLOSING_S + RESERVE_S


def test_compose_drains_before_it_kills_the_service():
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["polymodal"]
    assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().drain_timeout_s + CLOSING_S + RESERVE_S


def test_the_memory_limit_is_enough_for_the_largest_images_and_bodies():
    """Since Kubernetes 1.28 a pod that runs out of memory is killed as a whole, so the limit must hold for all requests."""
    limits, settings = container_of(pod())["resources"]["limits"], Settings()
    plan = default_plan(math.ceil(float(limits["cpu"])))
    bodies = settings.queue_limit + plan.batch_items * plan.workers
    needed = (
        SERVER_MIB
        + CONNECTIONS_MIB
        + plan.workers * (WORKER_MIB + IMAGE_MIB)
        + JSON_MIB
        + bodies * settings.max_body_bytes / MIB
    )
    assert mebibytes(limits["memory"]) >= needed


def test_the_requested_memory_is_enough_for_normal_use_and_one_large_image():
    resources = container_of(pod())["resources"]
    workers = default_plan(math.ceil(float(resources["limits"]["cpu"]))).workers
    assert mebibytes(resources["requests"]["memory"]) >= SERVER_MIB + CONNECTIONS_MIB + workers * WORKER_MIB + IMAGE_MIB


def test_the_log_fits_into_the_ephemeral_storage():
    assert mebibytes(container_of(pod())["resources"]["limits"]["ephemeral-storage"]) > KUBELETS_LOG_MIB


def test_all_objects_select_the_same_pods():
    labels = base("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert base("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert base("Service")["spec"]["selector"].items() <= labels.items()
    assert base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert base("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    scaled = base("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert scaled == {"apiVersion": "apps/v1", "kind": "Deployment", "name": base("Deployment")["metadata"]["name"]}
    assert "replicas" not in base("Deployment")["spec"]


def test_pods_serve_while_one_is_evicted_or_updated():
    scaling = base("HorizontalPodAutoscaler")["spec"]
    assert scaling["minReplicas"] > base("PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert base("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


async def test_the_autoscaler_uses_a_metric_of_the_service():
    folder = FOLDER / "components" / "scale-on-queue"
    (operation,) = yaml.safe_load(yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"][0]["patch"])
    name = operation["value"]["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert name == rule["name"]["as"]
    assert rule["seriesQuery"].startswith(name + "{")
    app = create_app(Settings(workers=0))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        exported = re.findall(r"^# TYPE (\S+) ", (await client.get("/metrics")).text, flags=re.MULTILINE)
    assert {name, "polymodal_queue_length"} <= set(exported)


def test_the_network_policy_allows_requests_to_one_port_and_nothing_else():
    policy = base("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    open_to_all = [port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]]
    assert open_to_all == ["http"]


def test_every_component_is_documented():
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    for name in COMPONENTS:
        assert f"`{name}`" in document


def test_the_documented_manifests_match_the_schemas_of_kubernetes():
    blocks = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "kubernetes.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    objects = [document for block in blocks for document in parse(block) if "kind" in document]
    assert {document["kind"] for document in objects} == {"NetworkPolicy", "PersistentVolumeClaim"}
    for document in objects:
        kubernetes_validate.validate(document, OLDEST, strict=True)
