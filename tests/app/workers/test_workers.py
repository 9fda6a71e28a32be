"""Worker processes: they compute, they die, they hang, and no client notices more than a wait."""

import asyncio
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from polymodal.app.cpus import Plan, default_plan
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item
from polymodal.app.workers.failures import BatchFailed, NotStarted, WorkerLost
from polymodal.app.workers.pool import Pool, Turn
from polymodal.app.workers.process import ProcessWorker
from polymodal.app.workers.supervisor import ProcessSupervisor
from polymodal.model import BundleError, UnsupportedFormat, load_bundle
from tests.hostile.uploads import IMAGES

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os
from polymodal.app.main import serve
from polymodal.app.settings import load_settings
serve(load_settings(os.environ))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Service:
    """The whole service on a bundle, in a process of its own."""

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


# --- one supervisor, without a service around ---

REF = "shapes#1"
LONG = [Item({"text": "a ripe fruit beside deep water " * 20})] * 2_000
RED = [Item({"text": "red"})]


@asynccontextmanager
async def one_worker(bundle: Path, **changed):
    """A supervisor with one process that has a bundle, and its worker, which is taken."""
    source = BundleSource("shapes", bundle)
    supervisor = ProcessSupervisor(Settings(bundles=(source,), workers=1, inference_threads=1, **changed))
    async with supervisor.working():
        loaded = await supervisor.load(REF, source)
        assert loaded.description.labels
        yield supervisor, await supervisor.pool.take()


def scores_of(predictor, text):
    sample = predictor.prepare({"text": text})
    (row,) = predictor.scores(predictor.embed([sample]), [sample.present])
    return row


async def until(condition, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_worker_that_is_lost_fails_its_batch_and_the_one_behind_was_not_started(tiny_bundle):
    async with one_worker(tiny_bundle) as (supervisor, worker):
        batches = [asyncio.create_task(worker.compute(REF, "classify", items, 60)) for items in (LONG, RED)]
        await until(lambda: worker._sent and worker._sent[0].started)
        worker.process.kill()
        failures = await asyncio.gather(*batches, return_exceptions=True)
        assert [type(failure) for failure in failures] == [WorkerLost, NotStarted]
        supervisor.pool.give_back(worker)
        assert supervisor.pool.idle == 0
        (result,) = await (await supervisor.pool.take()).compute(REF, "classify", RED, 0.1)
        assert result.arrays


async def test_a_batch_that_is_sent_to_a_lost_worker_was_not_started(tiny_bundle):
    async with one_worker(tiny_bundle) as (_, worker):
        worker.process.kill()
        with pytest.raises(NotStarted):
            await worker.compute(REF, "classify", RED, 0.1)


async def test_batches_that_are_prefetched_are_answered_in_their_order(tiny_bundle):
    texts = ["red", "blue, deep water", "a ripe fruit"]
    large = b"x" * 2**20  # more than a socket holds; refused, but read
    async with one_worker(tiny_bundle) as (_, worker):
        items = [[Item({"text": text}), Item({"image": large})] for text in texts]
        answers = await asyncio.gather(*(worker.compute(REF, "classify", batch, 0.1) for batch in items))
    predictor = load_bundle(tiny_bundle, threads=1)
    for (result, refused), text in zip(answers, texts, strict=True):
        assert result.arrays["scores"] == pytest.approx(scores_of(predictor, text), abs=1e-6)
        assert isinstance(refused.error, UnsupportedFormat)


async def test_a_process_computes_every_task_of_its_model(tiny_bundle):
    async with one_worker(tiny_bundle) as (_, worker):
        (classified,), (embedded,) = await asyncio.gather(
            worker.compute(REF, "classify", RED, 0.1), worker.compute(REF, "embed", RED, 0.1)
        )
    assert classified.arrays.keys() == {"scores"}
    assert embedded.arrays.keys() == {"text"}


async def test_a_worker_lives_on_after_a_batch_that_failed(tiny_bundle):
    async with one_worker(tiny_bundle) as (_, worker):
        for ref, task in (("nothing#1", "classify"), (REF, "abacus")):
            with pytest.raises(BatchFailed, match="KeyError"):
                await worker.compute(ref, task, RED, 0.1)
        assert (await worker.compute(REF, "classify", RED, 0.1))[0].arrays


LIES = {
    "no-message": b"\xff" * 40,
    "no-json": b"".join(wire.encode(b"{"))[wire.LENGTH.size :],
    "objects": b"".join(
        wire.encode(
            b'[{"arrays": {"scores": ["|O", [1], 0]}, "used": [], "stages": {}, "embeddings": {}}]', [b"12345678"]
        )
    )[wire.LENGTH.size :],
    "blob-out-of-range": b"".join(
        wire.encode(b'[{"arrays": {"scores": ["<f8", [1], 7]}, "used": [], "stages": {}, "embeddings": {}}]')
    )[wire.LENGTH.size :],
}


@pytest.mark.parametrize("reply", LIES.values(), ids=LIES)
@pytest.mark.parametrize("message", ["load", "unload", "compute"])
async def test_a_worker_whose_reply_cannot_be_decoded_is_lost(reply, message):
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    worker = ProcessWorker(process, ours, 10.0, lambda: None)
    await worker.init(Settings(), 0)
    requests = {
        "load": lambda: worker.load(REF, BundleSource("shapes", Path())),
        "unload": lambda: worker.unload(REF),
        "compute": lambda: worker.compute(REF, "classify", RED, 0.1),
    }
    with theirs:
        waiting = asyncio.create_task(requests[message]())
        await until(lambda: worker._sent)
        theirs.sendall(wire.encode_signal(wire.STARTS) + wire.LENGTH.pack(len(reply)) + reply)
        with pytest.raises(WorkerLost, match="a worker sent an invalid message"):
            await waiting
        assert not worker.alive
        assert await process.wait() == -signal.SIGKILL
        await worker.end()


async def test_a_worker_that_answers_without_being_sent_anything_is_lost():
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    worker = ProcessWorker(process, ours, 10.0, lambda: None)
    await worker.init(Settings(), 0)
    with theirs:
        theirs.sendall(b"".join(wire.results([])))
        await until(lambda: not worker.alive)
        assert await process.wait() == -signal.SIGKILL
        await worker.end()


async def test_a_worker_may_miss_heartbeats_for_as_long_as_its_batch_is_predicted_to_take(tiny_bundle, monkeypatch):
    monkeypatch.setattr("polymodal.app.workers.process.FROZEN_HEARTBEATS", 10_000)
    expected_s = 1.0
    async with one_worker(tiny_bundle) as (_, worker):
        os.kill(worker.process.pid, signal.SIGSTOP)  # as a decoder that keeps Python's lock
        monkeypatch.setattr("polymodal.app.workers.process.TICK_S", 0.02)
        computing = asyncio.create_task(worker.compute(REF, "classify", RED, expected_s))
        await asyncio.sleep(0)
        await until(lambda: not worker.alive)
        assert worker.busy_s >= expected_s
        os.kill(worker.process.pid, signal.SIGCONT)
        (result,) = await computing
        assert result.arrays
        assert worker.alive


@pytest.mark.parametrize(
    ("expected_s", "survives"), [(0.0, False), (60.0, True)], ids=["predicted-short", "predicted-long"]
)
async def test_a_batch_is_killed_at_the_stall_limit_unless_it_was_predicted_to_take_long(
    tiny_bundle, expected_s, survives
):
    async with one_worker(tiny_bundle, stall_timeout_ms=100) as (_, worker):
        os.kill(worker.process.pid, signal.SIGSTOP)
        computing = asyncio.create_task(worker.compute(REF, "classify", RED, expected_s))
        await asyncio.wait([computing], timeout=2.0)
        assert computing.done() is not survives
        if survives:
            assert worker.alive
            assert not worker.stalled
            os.kill(worker.process.pid, signal.SIGCONT)
            assert (await computing)[0].arrays
        else:
            with pytest.raises(NotStarted, match="hung"):
                await computing


async def test_a_bundle_that_was_exchanged_is_not_mixed_in(bundle_copy, logs, eventually):
    async with one_worker(bundle_copy) as (supervisor, worker):
        (bundle_copy / "weights.safetensors").unlink()
        worker.lose("for this test")
        events = lambda: {entry["event"] for entry in logs}  # noqa: E731
        await asyncio.to_thread(eventually, lambda: "worker_not_started" in events(), 20)
        assert supervisor.pool.alive == 0


async def test_a_bundle_that_cannot_be_loaded_is_refused_and_no_process_is_left(tmp_path):
    source = BundleSource("shapes", tmp_path)
    supervisor = ProcessSupervisor(Settings(bundles=(source,), workers=2))
    async with supervisor.working():
        pids = list(supervisor.pids)
        with pytest.raises(BundleError, match=str(tmp_path)):
            await supervisor.load(REF, source)
    assert all(map(is_gone, pids))


# --- turns ---


def turn(expected_s: float, lasts_s: float) -> Turn:
    return Turn(expected_s, stall_timeout_s=10.0, since=time.perf_counter() - lasts_s)


@pytest.mark.parametrize(
    ("expected_s", "lasts_s", "overdue", "stalled"),
    [
        pytest.param(0.0, 0.5, False, False, id="just-begun"),
        pytest.param(0.0, 2.0, True, False, id="far-longer-than-predicted"),
        pytest.param(0.0, 11.0, True, True, id="beyond-the-limit"),
        pytest.param(0.5, 13.0, True, False, id="limit-follows-the-prediction"),
        pytest.param(0.5, 15.0, True, True, id="beyond-that-limit"),
        pytest.param(60.0, 400.0, False, False, id="predicted-to-take-a-minute"),
        pytest.param(60.0, 485.0, True, False, id="minute-overdue"),
        pytest.param(60.0, 495.0, True, True, id="minute-stalled"),
        pytest.param(math.inf, 1e6, False, False, id="without-limit"),
    ],
)
def test_limits_of_a_turn_follow_from_its_prediction(expected_s, lasts_s, overdue, stalled):
    now = turn(expected_s, lasts_s)
    assert (now.overdue, now.stalled) == (overdue, stalled)


# --- the pool ---


class Hand:
    alive, busy_s, depth = True, 0.0, 2


async def test_a_paused_worker_counts_and_gets_no_batch():
    pool: Pool[Hand] = Pool()
    pool.add(paused := Hand())
    pool.add(other := Hand())
    pool.pause(paused)
    assert (pool.alive, pool.idle) == (2, 1)
    assert await pool.take() is other
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    pool.resume(paused)
    assert await waiting is paused


async def test_a_worker_that_is_lost_while_it_is_paused_is_forgotten():
    pool: Pool[Hand] = Pool()
    pool.add(hand := Hand())
    pool.pause(hand)
    pool.remove(hand)
    pool.resume(hand)
    assert (pool.workers, pool.idle) == ([], 0)


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
        for upload in (each for group in IMAGES for each in group()):
            answer = client.post("/v1/classify", content=upload.content, headers={"Content-Type": upload.content_type})
            found = f"{answer.status_code} {answer.json().get('code', 'ok')}"
            if found != upload.answer:
                wrong[upload.name] = f"{found} instead of {upload.answer}"
        assert wrong == {}
        assert client.post("/v1/classify", json={"text": "red"}).status_code == 200
    assert service.workers() == workers
    assert service.measured("polymodal_worker_restarts_total") == 0
