"""A real Prometheus scrapes a real service, with windows divided by 30: `make test-observability`, not `make test`."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.servers import free_port
from scripts.observe import Prometheus, count_series, load, queries_of, write_shortened
from tests.deploy.waiting import is_ok, wait_for
from tests.serving import running

if not os.environ.get("OBSERVABILITY_TESTS"):
    pytest.skip("OBSERVABILITY_TESTS is not set", allow_module_level=True)
if not (PROGRAM := shutil.which("prometheus")):
    pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)", allow_module_level=True)

PROJECT = Path(__file__).parents[2]
SPEED_UP = 30
RATE_INTERVAL = "8s"  # four minutes ÷ 30
WORKERS = 2
NEVER_FIRING = {
    "PolymodalNotServing",
    "PolymodalAvailabilityBurnsFast",
    "PolymodalWorkersCrashLoop",
    "PolymodalInternalErrors",
    "PolymodalWorkerRestarted",
    "PolymodalLogLinesLost",
    "PolymodalApiKeysStale",
    "PolymodalIndexUnusable",
}
"""Alerts that never fire while the service is healthy, however busy the machine of the test is."""

pytestmark = pytest.mark.timeout(600)


@contextmanager
def started(command, url, log, **environ):
    """Start a program, and wait until this address returns 200."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: process.poll() is not None or is_ok(url))
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
    """Debian's Prometheus, with the shortened rules of deploy/prometheus."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    write_shortened(folder, SPEED_UP, f"127.0.0.1:{service.port}")
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("localhost:9090", f"127.0.0.1:{port}"))
    command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with started(command, f"http://127.0.0.1:{port}/-/ready", folder / "log"):
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(lambda: prometheus.now('up{job="polymodal"} == 1'))
        yield prometheus


SEND = """
import sys
from benchmarks.bodies import BOUNDARY, items
from benchmarks.load import Target, open_loop
bodies = [item.form for item in items(8)]
target = Target("127.0.0.1", int(sys.argv[1]), "/v1/classify", f"multipart/form-data; boundary={BOUNDARY}", bodies)
while True:
    open_loop(target, float(sys.argv[2]), 2)
"""


@contextmanager
def load_on(service, per_s):
    """Send this number of classifications per second, in an open loop, until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", SEND, str(service.port), str(per_s)], cwd=PROJECT)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def wait_for_all_queries(prometheus):
    """Wait until each query of the dashboard has returned data once; a scrape of a busy machine may time out."""
    empty = {query.expr for query in queries_of(load())}

    def have_data():
        empty.difference_update(query.expr for query, series in count_series(prometheus, RATE_INTERVAL) if series)
        return not empty

    wait_for(have_data)


def test_every_query_of_the_dashboard_returns_data_and_no_alert_fires_while_the_service_is_healthy(service, prometheus):
    with load_on(service, 5):
        wait_for(lambda: prometheus.now("job:polymodal_burn:5m"))
        wait_for(lambda: prometheus.now("job_model_label:polymodal_label_share:1d"))
        wait_for_all_queries(prometheus)
        assert not prometheus.firing() & NEVER_FIRING


def test_rules_are_evaluated_without_errors(prometheus):
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] in {"ok", "unknown"}, rule.get("lastError")


def test_an_alert_fires_when_a_worker_is_killed(service, prometheus):
    assert "PolymodalWorkerRestarted" not in prometheus.firing()
    service.workers()[0].kill()
    wait_for(lambda: "PolymodalWorkerRestarted" in prometheus.firing())
    wait_for(lambda: prometheus.now(f"polymodal_workers == {WORKERS}"))
    assert "PolymodalNotServing" not in prometheus.firing()


def test_alerts_fire_under_overload(service, prometheus):
    with load_on(service, 300):
        wait_for(lambda: "PolymodalAvailabilityBurnsFast" in prometheus.firing(), seconds=120)
        wait_for(lambda: prometheus.firing() & {"PolymodalSaturated", "PolymodalQueueTooLong"}, seconds=120)
        ((_, failed),) = prometheus.now('max(job:polymodal_burn:5m{objective="availability"})')
        assert failed > 14.4
        wait_for_all_queries(prometheus)
    # Its second pair of windows covers half an hour.
    wait_for(lambda: "PolymodalAvailabilityBurnsFast" not in prometheus.firing(), seconds=180)


def test_a_page_is_sent_when_the_service_is_killed(service, prometheus):
    service.process.kill()
    service.wait()
    wait_for(lambda: {"PolymodalNotServing", "PolymodalInstanceDown"} <= prometheus.firing())
