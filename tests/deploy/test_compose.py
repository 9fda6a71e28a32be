"""`docker compose up` from a clean checkout, as a newcomer says it: `make test-compose`, not `make test`."""

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
from tests.deploy.patience import answered, soon

if not os.environ.get("COMPOSE_TESTS"):
    pytest.skip("COMPOSE_TESTS is not set", allow_module_level=True)
if not shutil.which("docker") or subprocess.call(["docker", "compose", "version"], stdout=subprocess.DEVNULL):
    pytest.skip("docker with its plugin compose is not installed", allow_module_level=True)

PROJECT = Path(__file__).parents[2]
BUILD_S, START_S, STOP_S = 1500, 60, 30
TEXT, PICTURE = "a sailing dinghy has capsized", PROJECT / "examples" / "boat.png"

pytestmark = pytest.mark.timeout(2 * BUILD_S)


class Compose:
    """Commands of one project, in a clean checkout and with containers of its own."""

    def __init__(self, checkout):
        self.checkout, self.port = checkout, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {"COMPOSE_PROJECT_NAME": "polymodal-trial", "POLYMODAL_PORT": str(self.port)}

    def do(self, *command, timeout=START_S):
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
        """`docker compose up` in the foreground, until the block has ended it."""
        with (
            log.open("w") as said,
            subprocess.Popen(
                ["docker", "compose", "up"], cwd=self.checkout, env=self.environment, stdout=said, stderr=said
            ) as running,
        ):
            try:
                yield running
            finally:
                running.kill()

    def inspect(self, service, what):
        container = self.do("ps", "--all", "--quiet", service).strip()
        return json.loads(docker("inspect", "--format", f"{{{{json {what}}}}}", container))


def docker(*command):
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    checkout = tmp_path_factory.mktemp("checkout") / "polymodal"
    subprocess.run(["git", "clone", "--quiet", PROJECT, checkout], check=True)
    compose = Compose(checkout)
    yield compose
    compose.do("--profile", "observability", "down", "--volumes", timeout=2 * STOP_S)


@pytest.fixture
def ask(compose):
    """Each time on a connection of its own."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=compose.url, timeout=30, limits=limits, trust_env=False) as client:

        def ask():
            files = {"image": ("boat.png", PICTURE.read_bytes(), "image/png")}
            return client.post("/v1/classify", files=files, data={"text": TEXT})

        yield ask


def test_docker_compose_up_builds_serves_and_ctrl_c_loses_nothing(compose, ask, tmp_path):
    log = tmp_path / "up.log"
    with compose.up(log) as running:

        def ready():
            assert running.poll() is None, log.read_text()
            return answered(f"{compose.url}/readyz")

        soon(ready, BUILD_S)
        predictor = load_bundle(embedded_bundle().path, threads=1)
        (expected,) = predictor.predict([predictor.prepare({"image": PICTURE.read_bytes(), "text": TEXT})])
        answer = ask().raise_for_status().json()
        assert {each["label"]: each["score"] for each in answer["labels"]} == pytest.approx(
            dict(expected.scores), abs=1e-4
        )
        soon(lambda: compose.inspect("polymodal", ".State.Health.Status") == "healthy", START_S)
        assert compose.inspect("polymodal", ".Config.User") == "10001:10001"
        assert compose.inspect("polymodal", ".HostConfig.ReadonlyRootfs") is True
        published = compose.inspect("polymodal", ".NetworkSettings.Ports")
        assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(compose.port)}]}
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(ask) for _ in range(100)]
            soon(lambda: sum(each.done() for each in asked) > 20, START_S)
            begun = [each for each in asked if each.running() or each.done()]
            running.send_signal(signal.SIGINT)
            assert {each.result().status_code for each in begun} <= {200, 503}  # 503: came when it was draining
            for each in asked:
                each.cancel()
        running.wait(timeout=2 * STOP_S)
    assert compose.inspect("polymodal", ".State.ExitCode") == 0


def test_up_waits_until_the_image_that_was_built_is_ready(compose, ask):
    compose.do("up", "--detach", "--wait", "--no-build")
    assert ask().status_code == 200
    compose.do("stop")
    assert compose.inspect("polymodal", ".State.ExitCode") == 0


def test_prometheus_of_the_profile_scrapes_the_service_and_computes_every_rule(compose):
    image = next(
        name for name in compose.do("--profile", "observability", "config", "--images").split() if "prom/" in name
    )
    is_there = subprocess.call(["docker", "image", "inspect", "--format", "{{.Id}}", image]) == 0
    if not is_there and subprocess.call(["docker", "pull", "--quiet", image]) != 0:
        pytest.skip(f"{image} can't be pulled")
    compose.do("--profile", "observability", "up", "--detach", "--wait", "polymodal", "prometheus", timeout=BUILD_S)
    with httpx.Client(base_url="http://127.0.0.1:9090", trust_env=False) as prometheus:

        def targets():
            return {
                each["labels"]["job"]: each["health"]
                for each in prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
            }

        def health_of_rules():
            groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
            return {rule["health"] for group in groups for rule in group["rules"]}

        soon(lambda: set(targets().values()) == {"up"}, START_S)
        soon(lambda: health_of_rules() == {"ok"}, 3 * START_S)
        assert prometheus.get("/user/alerts.md").status_code == 200
