"""Worker processes: they compute, they die, they hang, and no client notices more than a wait."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.batching import Interrupted, Untouched
from app.cpus import Plan, default_plan
from app.engine import Item
from app.settings import BundleSource, Settings
from app.workers import Pool, Processes
from model import BundleError, UnsupportedFormat, load_bundle
from tests.hostile.uploads import PICTURES

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import os; from app.main import serve; from app.settings import load_settings; serve(load_settings(os.environ))"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Service:
    """The whole service on a bundle, with as many workers as it is told."""

    def __init__(self, bundle: Path, **settings: object) -> None:
        settings = {"bundles": f"shapes={bundle}", "workers": 2, "port": 0, "drain_timeout_s": 10, **settings}
        variables = {f"POLYMODAL_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._listening = threading.Thread(target=self._listen)  # a pipe that nobody reads would fill up
        self._listening.start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.said += line

    def begin(self, eventually) -> None:
        listening = re.compile(r"running on (http://127.0.0.1:\d+)")
        self.url = eventually(lambda: self.process.poll() is None and listening.search(self.said), 30)[1]

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def ask(self, text: str = "red") -> httpx.Response:
        return httpx.post(f"{self.url}/v1/classify", json={"text": text}, timeout=30)

    def measured(self, name: str) -> float:
        return float(re.search(rf"^{name} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(timeout=30)
        self._listening.join()
        self.process.stdout.close()
        return code


@pytest.fixture
def start(tiny_bundle, eventually):
    started: list[Service] = []

    def start(**settings) -> Service:
        started.append(Service(tiny_bundle, **settings))
        started[-1].begin(eventually)
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.ended()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_several_workers_are_one_service_and_sigterm_ends_all_with_0(start, tiny_bundle):
    service = start()
    workers = service.workers()
    assert len(workers) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(service.ask, ["red"] * 24))
    predictor = load_bundle(tiny_bundle, threads=1)
    (expected,) = predictor.predict([predictor.prepare({"text": "red"})])
    for answer in answers:
        found = {entry["label"]: entry["score"] for entry in answer.json()["labels"]}
        assert found == pytest.approx(dict(expected.scores), abs=1e-6)
    answered = r'http_server_request_duration_seconds_count\{error_type="",.*http_route="/v1/classify"\}'
    assert service.measured(answered) == 24
    assert (service.measured("polymodal_workers"), service.measured("polymodal_worker_restarts_total")) == (2, 0)
    assert service.measured('polymodal_stage_duration_seconds_count{model="shapes",stage="encode_text"}') == 24
    assert service.measured("polymodal_worker_busy_seconds_total") > 0
    for process in ("server", "workers"):
        assert service.measured(f'polymodal_processor_seconds_total{{process="{process}"}}') > 0
        assert service.measured(f'polymodal_resident_memory_bytes{{process="{process}"}}') > 2**20
    assert service.stop() == 0, service.said
    assert all(map(is_gone, workers))


def test_when_workers_are_killed_all_that_was_accepted_is_answered_and_they_come_back(start, eventually):
    service = start(queue_limit=200)
    first, second = service.workers()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(service.ask, "a ripe fruit") for _ in range(200)]
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        statuses = {each.result().status_code for each in asked}
    assert statuses <= {200, 503}  # 503: asked while there was no worker; what was accepted is answered
    eventually(lambda: service.measured("polymodal_workers") == 2, 30)
    assert service.measured("polymodal_worker_restarts_total") == 2
    assert service.ask().status_code == 200
    assert service.stop() == 0, service.said
    assert service.said.count('"event": "worker_died"') == 2


def test_while_one_worker_is_left_nothing_is_refused(start):
    service = start(queue_limit=200)
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(service.ask) for _ in range(100)]
        os.kill(service.workers()[0], signal.SIGKILL)
        assert {each.result().status_code for each in asked} == {200}


def test_a_worker_that_hangs_is_replaced_and_its_batch_computed_by_another(start, eventually):
    service = start(stall_timeout_ms=500)
    os.kill(service.workers()[0], signal.SIGSTOP)
    assert {service.ask().status_code for _ in range(3)} == {200}  # each worker's turn comes
    assert httpx.get(f"{service.url}/livez").status_code == 200
    eventually(lambda: service.measured("polymodal_worker_restarts_total") >= 1, 10)


def test_an_idle_worker_that_is_stopped_does_not_count_until_it_goes_on(start, eventually):
    service = start(workers=1)
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    not_ready = eventually(lambda: (probe := httpx.get(f"{service.url}/readyz")).status_code == 503 and probe)
    assert "without a worker that answers" in not_ready.json()["detail"]
    assert httpx.get(f"{service.url}/livez").status_code == 200
    os.kill(worker, signal.SIGCONT)
    eventually(lambda: httpx.get(f"{service.url}/readyz").status_code == 200)
    assert service.workers() == [worker]
    assert service.ask().status_code == 200


def test_a_worker_that_stays_stopped_is_replaced_long_before_its_requests_time_out(start, eventually):
    service = start(workers=1, request_timeout_ms=60_000)  # longer than a busy machine needs
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    assert service.ask().status_code == 200
    assert is_gone(worker)


def test_without_a_worker_the_service_is_not_ready_and_says_so(start, eventually):
    service = start(workers=1)
    os.kill(service.workers()[0], signal.SIGKILL)
    not_ready = eventually(lambda: (probe := httpx.get(f"{service.url}/readyz")).status_code == 503 and probe, 2)
    assert "without a worker" in not_ready.json()["detail"]
    assert "Retry-After" in not_ready.headers
    eventually(lambda: httpx.get(f"{service.url}/readyz").status_code == 200, 30)


def test_workers_end_when_the_service_is_killed_even_in_the_middle_of_something(start, eventually):
    service = start()
    workers = service.workers()
    os.kill(workers[0], signal.SIGSTOP)  # it can't see that its socket was closed
    service.process.kill()
    eventually(lambda: all(map(is_gone, workers)), 20)


def test_a_terminals_ctrl_c_drains_and_leaves_no_worker_behind(start):
    service = start()
    workers = service.workers()
    service.process.send_signal(signal.SIGINT)
    assert service.ended() == 0, service.said
    assert all(map(is_gone, workers))
    assert "Traceback" not in service.said


def test_a_bundle_that_must_not_be_served_is_refused_once(tmp_path):
    service = Service(tmp_path)
    assert service.ended() == 1
    assert service.said.count(f"polymodal: {tmp_path}") == 1
    assert "Traceback" not in service.said


# --- one workforce, without a service around ---


def settings_for(bundle: Path, **changed) -> Settings:
    return Settings(bundles=(BundleSource("shapes", bundle),), workers=1, inference_threads=1, **changed)


LONG = [Item({"text": "a ripe fruit beside deep water " * 20})] * 2_000
RED = [Item({"text": "red"})]


async def test_a_worker_that_is_lost_interrupts_its_batch_and_what_waited_behind_it_is_not_suspected(tiny_bundle):
    workforce = Processes(settings_for(tiny_bundle))
    async with workforce.working() as models:
        assert models["shapes"].description.labels
        worker = await workforce.pool.take()
        batches = [asyncio.create_task(worker.compute("shapes", each, 60)) for each in (LONG, RED)]
        while not (worker._asked and worker._asked[0].begun):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        worker.process.kill()
        assert [type(each) for each in await asyncio.gather(*batches, return_exceptions=True)] == [
            Interrupted,
            Untouched,
        ]
        workforce.pool.give_back(worker)
        assert workforce.pool.idle == 0
        (answer,) = await (await workforce.pool.take()).compute("shapes", RED, 0.1)
        assert answer.outcome.scores


async def test_what_a_worker_was_given_but_had_not_begun_when_it_was_lost_is_not_suspected(tiny_bundle):
    workforce = Processes(settings_for(tiny_bundle))
    async with workforce.working():
        worker = await workforce.pool.take()
        worker.process.kill()
        with pytest.raises(Untouched):
            await worker.compute("shapes", RED, 0.1)


async def test_batches_given_ahead_are_answered_in_their_order(tiny_bundle):
    workforce = Processes(settings_for(tiny_bundle))
    async with workforce.working():
        worker = await workforce.pool.take()
        texts = ["red", "blue, deep water", "a ripe fruit"]
        large = b"x" * 2**20  # more than a socket holds; refused, but read
        items = [[Item({"text": text}), Item({"image": large})] for text in texts]
        answers = await asyncio.gather(*(worker.compute("shapes", each, 0.1) for each in items))
    predictor = load_bundle(tiny_bundle, threads=1)
    for (answer, refused), text in zip(answers, texts, strict=True):
        (expected,) = predictor.predict([predictor.prepare({"text": text})])
        assert answer.outcome.scores == pytest.approx(dict(expected.scores), abs=1e-6)
        assert isinstance(refused.outcome, UnsupportedFormat)


async def test_a_worker_may_be_silent_for_as_long_as_its_batch_is_predicted_to_take(tiny_bundle, monkeypatch):
    monkeypatch.setattr("app.workers.FROZEN_TICKS", 10_000)
    expected_s = 1.0
    workforce = Processes(settings_for(tiny_bundle))
    async with workforce.working():
        worker = await workforce.pool.take()
        os.kill(worker.process.pid, signal.SIGSTOP)  # as a decoder that keeps Python's lock
        monkeypatch.setattr("app.workers.TICK_S", 0.02)
        asked = asyncio.create_task(worker.compute("shapes", [Item({"text": "red"})], expected_s))
        await asyncio.sleep(0)
        while worker.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert worker.busy_s >= expected_s
        os.kill(worker.process.pid, signal.SIGCONT)
        (answer,) = await asked
        assert answer.outcome.scores
        assert worker.alive


async def test_a_bundle_that_was_exchanged_is_not_mixed_in(bundle_copy, logs, eventually):
    workforce = Processes(settings_for(bundle_copy))
    async with workforce.working():
        (bundle_copy / "weights.safetensors").unlink()
        worker = await workforce.pool.take()
        worker.lose("for this test")
        events = lambda: {each["event"] for each in logs}  # noqa: E731
        await asyncio.to_thread(eventually, lambda: "worker_not_started" in events(), 20)
        assert workforce.pool.alive == 0


async def test_a_workforce_that_cannot_start_leaves_nothing_behind(tmp_path):
    workforce = Processes(settings_for(tmp_path))
    with pytest.raises(BundleError, match=str(tmp_path)):
        async with workforce.working():
            pytest.fail("must not start")
    assert workforce.pool.alive == 0


class Hand:
    alive, busy_s, depth = True, 0.0, 2


async def test_who_waits_for_a_worker_gets_the_next_one_that_is_given_back():
    pool: Pool[Hand] = Pool()
    pool.add(hand := Hand())
    assert await pool.take() is hand
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    assert (pool.alive, pool.idle, waiting.done()) == (1, 0, False)
    pool.give_back(hand)
    assert await waiting is hand


async def test_a_worker_takes_another_batch_only_ahead_and_no_third():
    pool: Pool[Hand] = Pool()
    pool.add(hand := Hand())
    assert await pool.take() is hand
    waiting = asyncio.create_task(pool.take(lambda: plenty))
    plenty = False
    await asyncio.sleep(0)
    assert not waiting.done()
    plenty = True
    pool.nudge()
    assert await waiting is hand
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.take(lambda: True), 0.02)


async def test_who_is_lost_is_not_given_back():
    pool: Pool[Hand] = Pool()
    pool.add(hand := Hand())
    pool.remove(hand)
    assert (pool.alive, pool.idle) == (0, 0)


@pytest.mark.parametrize(
    ("cores", "workers", "plan"),
    [
        pytest.param(1, None, Plan(1, 1), id="one-core"),
        pytest.param(2, None, Plan(2, 1), id="two-cores"),
        pytest.param(16, None, Plan(8, 2), id="many-cores"),
        pytest.param(4, 1, Plan(1, 4), id="one-worker"),
        pytest.param(4, 0, Plan(0, 4), id="in-a-thread"),
    ],
)
def test_every_core_has_a_thread(cores, workers, plan):
    assert default_plan(cores, workers) == plan


def test_a_worker_answers_every_hostile_picture_and_does_not_die_of_it(start):
    service = start(workers=1)
    workers = service.workers()
    wrong = {}
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for upload in (each for group in PICTURES for each in group()):
            answer = client.post("/v1/classify", content=upload.content, headers={"Content-Type": upload.content_type})
            found = f"{answer.status_code} {answer.json().get('code', 'ok')}"
            if found != upload.answer:
                wrong[upload.name] = f"{found} instead of {upload.answer}"
        assert wrong == {}
        assert client.post("/v1/classify", json={"text": "red"}).status_code == 200
    assert service.workers() == workers
    assert service.measured("polymodal_worker_restarts_total") == 0
