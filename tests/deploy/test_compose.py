"""`docker compose up` from a clean checkout: `make test-compose`, not `make test`."""

import json
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.servers import free_port
from polymodal.app.settings import embedded_bundle
from polymodal.model import load_bundle
from tests.deploy.waiting import is_ok, wait_for

if not os.environ.get("COMPOSE_TESTS"):
    pytest.skip("COMPOSE_TESTS is not set", allow_module_level=True)
if not shutil.which("docker") or subprocess.call(["docker", "compose", "version"], stdout=subprocess.DEVNULL):
    pytest.skip("docker with its plugin compose is not installed", allow_module_level=True)

PROJECT = Path(__file__).parents[2]
BUILD_S, START_S, STOP_S = 1500, 60, 30
TEXT, IMAGE = "a sailing dinghy has capsized", PROJECT / "examples" / "boat.png"

pytestmark = pytest.mark.timeout(2 * BUILD_S)


class Compose:
    """Runs `docker compose` in a checkout, with containers of its own."""

    def __init__(self, checkout):
        self.checkout, self.port = checkout, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {"COMPOSE_PROJECT_NAME": "polymodal-trial", "POLYMODAL_PORT": str(self.port)}

    def run(self, *command, timeout=START_S):
        done = subprocess.run(
            ["docker", "compose", *command],
            cwd=self.checkout,
            env=self.environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def up(self, log):
        """Run `docker compose up` in the foreground; it is killed at the end of the block."""
        with (
            log.open("w") as output,
            subprocess.Popen(
                ["docker", "compose", "up"], cwd=self.checkout, env=self.environment, stdout=output, stderr=output
            ) as running,
        ):
            try:
                yield running
            finally:
                running.kill()

    def inspect(self, service, field):
        container = self.run("ps", "--all", "--quiet", service).strip()
        return json.loads(docker("inspect", "--format", f"{{{{json {field}}}}}", container))


def docker(*command):
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    checkout = tmp_path_factory.mktemp("checkout") / "polymodal"
    subprocess.run(["git", "clone", "--quiet", PROJECT, checkout], check=True)
    compose = Compose(checkout)
    yield compose
    compose.run("--profile", "observability", "down", "--volumes", timeout=2 * STOP_S)


@pytest.fixture
def classify(compose):
    """Returns the response to a classification, each on a connection of its own."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=compose.url, timeout=30, limits=limits, trust_env=False) as client:

        def classify():
            files = {"image": ("boat.png", IMAGE.read_bytes(), "image/png")}
            return client.post("/v1/classify", files=files, data={"text": TEXT})

        yield classify


def test_docker_compose_up_builds_and_serves_and_ctrl_c_loses_no_request(compose, classify, tmp_path):
    log = tmp_path / "up.log"
    with compose.up(log) as running:

        def ready():
            assert running.poll() is None, log.read_text()
            return is_ok(f"{compose.url}/readyz")

        wait_for(ready, BUILD_S)
        predictor = load_bundle(embedded_bundle().path, threads=1)
        (expected,) = predictor.predict([predictor.prepare({"image": IMAGE.read_bytes(), "text": TEXT})])
        labels = classify().raise_for_status().json()["labels"]
        scores = {label["label"]: label["score"] for label in labels}
        assert scores == pytest.approx(dict(expected.scores), abs=1e-4)
        wait_for(lambda: compose.inspect("polymodal", ".State.Health.Status") == "healthy", START_S)
        assert compose.inspect("polymodal", ".Config.User") == "10001:10001"
        assert compose.inspect("polymodal", ".HostConfig.ReadonlyRootfs") is True
        published = compose.inspect("polymodal", ".NetworkSettings.Ports")
        assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(compose.port)}]}
        with ThreadPoolExecutor(16) as pool:
            responses = [pool.submit(classify) for _ in range(100)]
            wait_for(lambda: sum(response.done() for response in responses) > 20, START_S)
            sent = [response for response in responses if response.running() or response.done()]
            running.send_signal(signal.SIGINT)
            # 503: the service was draining.
            assert {response.result().status_code for response in sent} <= {200, 503}
            for response in responses:
                response.cancel()
        running.wait(timeout=2 * STOP_S)
    assert compose.inspect("polymodal", ".State.ExitCode") == 0


def test_up_waits_until_the_service_is_ready(compose, classify):
    compose.run("up", "--detach", "--wait", "--no-build")
    assert classify().status_code == 200
    compose.run("stop")
    assert compose.inspect("polymodal", ".State.ExitCode") == 0


def test_prometheus_of_the_profile_scrapes_the_service_and_evaluates_every_rule(compose):
    images = compose.run("--profile", "observability", "config", "--images").split()
    image = next(name for name in images if "prom/" in name)
    exists = subprocess.call(["docker", "image", "inspect", "--format", "{{.Id}}", image]) == 0
    if not exists and subprocess.call(["docker", "pull", "--quiet", image]) != 0:
        pytest.skip(f"{image} can't be pulled")
    compose.run("--profile", "observability", "up", "--detach", "--wait", "polymodal", "prometheus", timeout=BUILD_S)
    with httpx.Client(base_url="http://127.0.0.1:9090", trust_env=False) as prometheus:

        def targets():
            active = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
            return {target["labels"]["job"]: target["health"] for target in active}

        def health_of_rules():
            groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
            return {rule["health"] for group in groups for rule in group["rules"]}

        wait_for(lambda: set(targets().values()) == {"up"}, START_S)
        wait_for(lambda: health_of_rules() == {"ok"}, 3 * START_S)
        assert prometheus.get("/user/alerts.md").status_code == 200
