"""A real Prometheus with the real rules, 30 times as fast, watches a real service: `make test-observability`, not `make test`."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.servers import free_port
from scripts.observe import Prometheus, answers, load, queries, write_shortened
from tests.deploy.patience import answered, soon
from tests.serving import running

if not os.environ.get("OBSERVABILITY_TESTS"):
    pytest.skip("OBSERVABILITY_TESTS is not set", allow_module_level=True)
if not (PROGRAM := shutil.which("prometheus")):
    pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)", allow_module_level=True)

PROJECT = Path(__file__).parents[2]
FASTER = 30
RATE_INTERVAL = "8s"  # of four minutes
WORKERS = 2
BROKEN = {
    "PolymodalNotServing",
    "PolymodalAvailabilityBurnsFast",
    "PolymodalWorkersCrashLoop",
    "PolymodalInternalErrors",
    "PolymodalWorkerRestarted",
    "PolymodalLogLinesLost",
    "PolymodalApiKeysStale",
}
"""What never fires while all is well, however busy the machine is that the test runs on."""

pytestmark = pytest.mark.timeout(600)


@contextmanager
def started(command, url, log, **environ):
    """A program that answers at this address."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=output, stderr=subprocess.STDOUT)
    try:
        soon(lambda: process.poll() is not None or answered(url))
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def service():
    """The embedded model, with two workers."""
    with running(workers=WORKERS) as service:
        yield service


@pytest.fixture(scope="module")
def prometheus(service, tmp_path_factory):
    """Debian's, with deploy/prometheus made quicker."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    write_shortened(folder, FASTER, f"127.0.0.1:{service.port}")
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("localhost:9090", f"127.0.0.1:{port}"))
    command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with started(command, f"http://127.0.0.1:{port}/-/ready", folder / "log"):
        asked = Prometheus(f"http://127.0.0.1:{port}")
        soon(lambda: asked.now('up{job="polymodal"} == 1'))
        yield asked


ASK = """
import sys
from benchmarks.bodies import BOUNDARY, items
from benchmarks.load import Target, open_loop
bodies = [item.form for item in items(8)]
target = Target("127.0.0.1", int(sys.argv[1]), "/v1/classify", f"multipart/form-data; boundary={BOUNDARY}", bodies)
while True:
    open_loop(target, float(sys.argv[2]), 2)
"""


@contextmanager
def asking(service, per_s):
    """So many classifications per second, whatever becomes of them, until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", ASK, str(service.port), str(per_s)], cwd=PROJECT)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def all_answer(prometheus):
    """Each query of the dashboard returns data at some moment; a scrape of a busy machine may miss its half second."""
    silent = {asked.expr for asked in queries(load())}

    def answer():
        silent.difference_update(asked.expr for asked, series in answers(prometheus, load(), RATE_INTERVAL) if series)
        return not silent

    soon(answer)


def test_every_query_of_the_dashboard_returns_data_and_nothing_fires_while_all_is_well(service, prometheus):
    with asking(service, 5):
        soon(lambda: prometheus.now("job:polymodal_burn:5m"))
        soon(lambda: prometheus.now("job_model_label:polymodal_label_share:1d"))
        all_answer(prometheus)
        assert not prometheus.firing() & BROKEN


def test_rules_are_evaluated_without_errors(prometheus):
    for group in prometheus.ask("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] in {"ok", "unknown"}, rule.get("lastError")


def test_an_alert_fires_when_a_worker_is_killed(service, prometheus):
    assert "PolymodalWorkerRestarted" not in prometheus.firing()
    service.workers()[0].kill()
    soon(lambda: "PolymodalWorkerRestarted" in prometheus.firing())
    soon(lambda: prometheus.now(f"polymodal_workers == {WORKERS}"))
    assert "PolymodalNotServing" not in prometheus.firing()


def test_alerts_fire_when_more_is_asked_than_can_be_answered(service, prometheus):
    with asking(service, 300):
        soon(lambda: "PolymodalAvailabilityBurnsFast" in prometheus.firing(), seconds=120)
        soon(lambda: prometheus.firing() & {"PolymodalSaturated", "PolymodalQueueTooLong"}, seconds=120)
        ((_, failed),) = prometheus.now('max(job:polymodal_burn:5m{objective="availability"})')
        assert failed > 14.4
        all_answer(prometheus)
    # Its second pair of windows has half an hour to forget.
    soon(lambda: "PolymodalAvailabilityBurnsFast" not in prometheus.firing(), seconds=180)


def test_somebody_is_woken_when_the_service_is_gone(service, prometheus):
    service.process.kill()
    service.wait()
    soon(lambda: {"PolymodalNotServing", "PolymodalInstanceDown"} <= prometheus.firing())
