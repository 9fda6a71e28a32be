"""Several processes behind one port look like one service, and one that dies is replaced."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.cpus import Plan, default_plan
from app.siblings import merged
from app.workers import reserve

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import os; from app.main import serve; from app.settings import load_settings; serve(load_settings(os.environ))"
)


class Service:
    """The whole service on a bundle, in as many workers as it is told."""

    def __init__(self, bundle: Path, workers: int, port: int) -> None:
        settings = {"BUNDLES": f"shapes={bundle}", "WORKERS": workers, "PORT": port, "DRAIN_TIMEOUT_S": 10}
        variables = {f"POLYMODAL_{name}": str(value) for name, value in settings.items()}
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def ready(self) -> bool:
        """Every worker listens: the kernel spreads connections over all of them."""
        try:
            return all(httpx.get(f"{self.url}/readyz").status_code == 200 for _ in range(8))
        except httpx.TransportError:
            return False

    def measured(self, name: str) -> float:
        return float(re.search(rf"^{name} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)[1])

    def stop(self) -> tuple[int, str]:
        """The exit code, and all that it said."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=30)
        return self.process.returncode, said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two_workers(tiny_bundle, eventually):
    service = Service(tiny_bundle, 2, free_port())
    eventually(service.ready, 30)
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.communicate()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def ask(service: Service, times: int) -> set[str]:
    return {httpx.post(f"{service.url}/v1/classify", json={"text": "red"}).text for _ in range(times)}


def test_whoever_is_asked_tells_what_all_have_measured_and_sigterm_ends_all_with_0(two_workers, eventually):
    eventually(lambda: len(two_workers.workers()) == 2, 30)
    assert len(ask(two_workers, 12)) == 1  # the same answer from both
    answered = r'polymodal_requests_total\{code="ok",method="POST",route="/v1/classify",status="200"\}'
    assert [two_workers.measured(answered) for _ in range(6)] == [12.0] * 6
    assert two_workers.measured("polymodal_worker_restarts_total") == 0
    workers = two_workers.workers()
    code, said = two_workers.stop()
    assert code == 0, said
    assert said.count('"event": "draining"') == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_dies_is_started_again_while_the_other_answers(two_workers, eventually):
    (first, second) = eventually(lambda: two_workers.workers() if len(two_workers.workers()) == 2 else None, 30)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: first not in two_workers.workers(), 30)
    assert ask(two_workers, 4)
    eventually(lambda: len(two_workers.workers()) == 2, 30)
    assert second in two_workers.workers()
    eventually(lambda: two_workers.measured("polymodal_worker_restarts_total") == 1, 30)
    code, said = two_workers.stop()
    assert code == 0, said
    assert '"event": "worker_died"' in said


def test_workers_end_when_their_parent_is_killed(two_workers, eventually):
    workers = eventually(lambda: two_workers.workers() if len(two_workers.workers()) == 2 else None, 30)
    two_workers.process.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in workers), 20)
    two_workers.process.communicate()


def test_a_bundle_that_must_not_be_served_is_refused_once(tmp_path):
    service = Service(tmp_path, 2, free_port())
    said, _ = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert said.count(f"polymodal: {tmp_path}") == 1
    assert "worker_died" not in said


def test_a_port_where_somebody_listens_is_not_shared(two_workers, tiny_bundle):
    port = int(two_workers.url.rsplit(":", 1)[1])
    second = Service(tiny_bundle, 2, port)
    said, _ = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"polymodal: 127.0.0.1:{port}: Address already in use" in said


def test_a_free_port_is_taken_where_none_is_named():
    with reserve("127.0.0.1", 0) as reserved:
        assert reserved.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("cores", "workers", "plan"),
    [
        pytest.param(1, None, Plan(1, 1, 1, 1), id="one-core"),
        pytest.param(2, None, Plan(2, 1, 1, 1), id="two-cores"),
        pytest.param(16, None, Plan(4, 4, 1, 4), id="many-cores"),
        pytest.param(6, None, Plan(4, 2, 1, 2), id="not-divisible"),
        pytest.param(4, 1, Plan(1, 4, 1, 4), id="one-worker"),
    ],
)
def test_every_core_has_a_stream(cores, workers, plan):
    assert default_plan(cores, workers) == plan


# --- merging ---


def exposed(requests, seconds, inside):
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ("route",), registry=registry)
    for route, count in requests.items():
        counter.labels(route).inc(count)
    histogram = Histogram("seconds", "Durations.", buckets=(1, 10), registry=registry)
    for each in seconds:
        histogram.observe(each)
    Gauge("inside", "Inside.", registry=registry).set(inside)
    Info("bundle", "What is served.", registry=registry).info({"digest": "abc"})
    return generate_latest(registry).decode()


def samples(text):
    return {
        (each.name, *each.labels.values()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if not each.name.endswith("_created")
    }


def test_measurements_of_workers_are_added_up():
    together = merged([exposed({"/a": 1, "/b": 2}, [0.5, 5], 3), exposed({"/a": 10}, [50], 4)]).decode()
    found = samples(together)
    assert found["requests_total", "/a"] == 11
    assert found["requests_total", "/b"] == 2
    assert found["seconds_count",] == 3
    assert found["seconds_sum",] == 55.5
    assert [found["seconds_bucket", edge] for edge in ("1.0", "10.0", "+Inf")] == [1, 2, 3]
    assert found["inside",] == 7
    assert found["bundle_info", "abc"] == 1


def test_one_worker_alone_is_not_changed():
    text = exposed({"/a": 1}, [0.5], 0)
    assert samples(merged([text]).decode()) == samples(text)
    assert "# TYPE requests_total counter" in merged([text]).decode()
