"""Worker processes: when one dies or hangs, its batches are computed by others, and it is replaced."""

import asyncio
import math
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from polymodal.app.cpus import Plan, default_plan
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item
from polymodal.app.workers.failures import BatchFailed, NotStarted, WorkerLost
from polymodal.app.workers.pool import Pool, Turn
from polymodal.app.workers.process import HEARTBEATS, Heartbeats, ProcessWorker
from polymodal.app.workers.supervisor import ProcessSupervisor
from polymodal.model import BundleError, UnsupportedFormat, load_bundle
from tests.hostile.uploads import IMAGES
from tests.serving import Service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers end with the service on Linux only")
PATIENT = {"request_timeout_ms": 600_000, "queue_limit": 200}
"""So that a busy machine refuses nothing, and no deadline passes."""


@pytest.fixture
def start(start_service, tiny_bundle):
    """`start(**settings)`: a service with two workers on a bundle."""

    def start(**settings) -> Service:
        return start_service(**{"bundles": f"shapes={tiny_bundle}", "workers": 2, "drain_timeout_s": 10, **settings})

    return start


def test_several_workers_are_one_service_and_sigterm_ends_all_with_0(start, tiny_bundle):
    service = start(**PATIENT)
    workers = service.workers()
    assert len(workers) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(service.classify, ["red"] * 24))
    predictor = load_bundle(tiny_bundle, threads=1)
    (expected,) = predictor.predict([predictor.prepare({"text": "red"})])
    for answer in answers:
        scores = {entry["label"]: entry["score"] for entry in answer.json()["labels"]}
        assert scores == pytest.approx(dict(expected.scores), abs=1e-6)
    answered = r'http_server_request_duration_seconds_count\{error_type="",.*http_route="/v1/classify"\}'
    assert service.metric(answered) == 24
    assert (service.metric("polymodal_workers"), service.metric("polymodal_worker_restarts_total")) == (2, 0)
    assert service.metric('polymodal_stage_duration_seconds_count{model="shapes",stage="encode_text"}') == 24
    assert service.metric("polymodal_worker_busy_seconds_total") > 0
    for process in ("server", "workers"):
        assert service.metric(f'polymodal_processor_seconds_total{{process="{process}"}}') > 0
        assert service.metric(f'polymodal_resident_memory_bytes{{process="{process}"}}') > 2**20
    service.stop()
    assert not any(worker.is_running() for worker in workers)


def test_accepted_requests_are_answered_when_all_workers_are_killed_and_the_workers_are_restarted(start, eventually):
    service = start(**PATIENT)
    with ThreadPoolExecutor(16) as pool:
        requests = [pool.submit(service.classify, "a ripe fruit") for _ in range(100)]
        for worker in service.workers():
            worker.kill()
        statuses = {request.result().status_code for request in requests}
    assert statuses <= {200, 503}  # 503: sent while there was no worker
    eventually(lambda: service.metric("polymodal_workers") == 2)
    assert service.metric("polymodal_worker_restarts_total") == 2
    assert service.classify().status_code == 200
    service.stop()
    assert len(service.events("worker_died")) == 2


def test_nothing_is_refused_while_one_worker_is_left(start):
    service = start(**PATIENT)
    with ThreadPoolExecutor(16) as pool:
        requests = [pool.submit(service.classify) for _ in range(100)]
        service.workers()[0].kill()
        assert {request.result().status_code for request in requests} == {200}


def test_a_worker_that_hangs_is_replaced_and_its_batch_computed_by_another(start, eventually):
    service = start(stall_timeout_ms=1000, **PATIENT)
    worker = service.workers()[0]
    worker.suspend()
    assert {service.classify().status_code for _ in range(3)} == {200}  # each worker gets one of them
    assert service.get("/livez").status_code == 200
    eventually(lambda: service.metric("polymodal_worker_restarts_total") >= 1)
    assert not worker.is_running()


def test_without_a_worker_the_service_is_not_ready_until_it_has_one_again(start, eventually):
    service = start(workers=1)
    service.workers()[0].kill()
    not_ready = eventually(lambda: (probe := service.get("/readyz")).status_code == 503 and probe)
    assert "without a worker that answers" in not_ready.json()["detail"]
    assert "Retry-After" in not_ready.headers
    assert service.get("/livez").status_code == 200
    eventually(lambda: service.get("/readyz").status_code == 200)


def test_workers_end_when_the_service_is_killed_even_a_stopped_one(start):
    service = start()
    workers = service.workers()
    workers[0].suspend()  # so that it can't see that its socket was closed
    service.process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_ctrl_c_in_a_terminal_drains_and_ends_all_workers(start):
    service = start()
    workers = service.workers()
    service.process.send_signal(signal.SIGINT)
    assert service.wait() == 0, service.log
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in service.log


# --- one supervisor, without a service around it ---

REF = "shapes#1"
LONG = [Item({"text": "a ripe fruit next to deep water " * 20})] * 2_000
RED = [Item({"text": "red"})]


@asynccontextmanager
async def one_worker(bundle: Path, *, heartbeats=HEARTBEATS, **settings):
    """A supervisor of one process that has loaded a bundle, and its worker, which is taken from the pool."""
    source = BundleSource("shapes", bundle)
    settings = Settings(bundles=(source,), workers=1, inference_threads=1, **settings)
    supervisor = ProcessSupervisor(settings, heartbeats=heartbeats)
    async with supervisor.working():
        loaded = await supervisor.load(REF, source)
        assert loaded.description.labels
        yield supervisor, await supervisor.pool.take()


def scores_of(predictor, text):
    sample = predictor.prepare({"text": text})
    (row,) = predictor.scores(predictor.embed([sample]), [sample.present])
    return row


async def until(condition, seconds=60.0):
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


async def test_a_batch_that_is_sent_to_a_lost_worker_is_not_started(tiny_bundle):
    async with one_worker(tiny_bundle) as (_, worker):
        worker.process.kill()
        with pytest.raises(NotStarted):
            await worker.compute(REF, "classify", RED, 0.1)


async def test_prefetched_batches_are_answered_in_their_order(tiny_bundle):
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


async def test_a_worker_stays_alive_after_a_failed_batch(tiny_bundle):
    async with one_worker(tiny_bundle) as (_, worker):
        for ref, task in (("nothing#1", "classify"), (REF, "abacus")):
            with pytest.raises(BatchFailed, match="KeyError"):
                await worker.compute(ref, task, RED, 0.1)
        assert (await worker.compute(REF, "classify", RED, 0.1))[0].arrays


FAST = Heartbeats(interval_s=0.02)
SLOW = Heartbeats(interval_s=3600)


@asynccontextmanager
async def silent_worker(heartbeats=SLOW, stall_timeout_s=3600.0):
    """A worker whose process only sleeps, and the process' end of its socket."""
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec("sleep", "600")
    worker = ProcessWorker(process, ours, stall_timeout_s, lambda: None, heartbeats)
    await worker.init(Settings(), 0)
    with theirs:
        yield worker, theirs
        worker.lose("the test is over")
        await worker.end()


INVALID_REPLIES = {
    "not-a-message": b"\xff" * 40,
    "not-json": b"".join(wire.encode(b"{"))[wire.LENGTH.size :],
    "objects": b"".join(
        wire.encode(
            b'[{"arrays": {"scores": ["|O", [1], 0]}, "used": [], "stages": {}, "embeddings": {}}]', [b"12345678"]
        )
    )[wire.LENGTH.size :],
    "blob-out-of-range": b"".join(
        wire.encode(b'[{"arrays": {"scores": ["<f8", [1], 7]}, "used": [], "stages": {}, "embeddings": {}}]')
    )[wire.LENGTH.size :],
}


@pytest.mark.parametrize("reply", INVALID_REPLIES.values(), ids=INVALID_REPLIES)
@pytest.mark.parametrize("message", ["load", "unload", "compute"])
async def test_a_worker_whose_reply_cannot_be_decoded_is_killed(reply, message):
    async with silent_worker() as (worker, theirs):
        requests = {
            "load": lambda: worker.load(REF, BundleSource("shapes", Path())),
            "unload": lambda: worker.unload(REF),
            "compute": lambda: worker.compute(REF, "classify", RED, 0.1),
        }
        waiting = asyncio.create_task(requests[message]())
        await until(lambda: worker._sent)
        theirs.sendall(wire.encode_signal(wire.STARTS) + wire.LENGTH.pack(len(reply)) + reply)
        with pytest.raises(WorkerLost, match="a worker sent an invalid message"):
            await waiting
        assert not worker.alive
        assert await worker.process.wait() == -signal.SIGKILL


async def test_a_worker_that_sends_a_reply_without_a_request_is_killed():
    async with silent_worker() as (worker, theirs):
        theirs.sendall(b"".join(wire.results([])))
        await until(lambda: not worker.alive)
        assert await worker.process.wait() == -signal.SIGKILL


async def send_heartbeats(channel: socket.socket) -> None:
    while True:
        channel.sendall(wire.encode_signal(wire.HEARTBEAT))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("stall_timeout_s", "sends_heartbeats"),
    [pytest.param(0.3, True, id="stall-limit"), pytest.param(3600.0, False, id="missed-heartbeats")],
)
async def test_a_worker_that_hangs_is_killed(stall_timeout_s, sends_heartbeats):
    async with silent_worker(FAST, stall_timeout_s) as (worker, theirs):
        heartbeats = asyncio.create_task(send_heartbeats(theirs)) if sends_heartbeats else None
        with pytest.raises(NotStarted, match="hung"):
            await worker.compute(REF, "classify", RED, 0.0)
        assert await worker.process.wait() == -signal.SIGKILL
        if heartbeats:
            heartbeats.cancel()


async def test_a_batch_that_is_predicted_to_take_long_may_miss_heartbeats_and_the_stall_limit():
    async with silent_worker(FAST, stall_timeout_s=0.1) as (worker, theirs):
        computing = asyncio.create_task(worker.compute(REF, "classify", RED, 60.0))
        await asyncio.wait([computing], timeout=0.5)
        assert worker.alive
        assert not worker.stalled
        theirs.sendall(b"".join(wire.results([])))
        assert await computing == []


async def test_a_worker_is_unhealthy_when_it_misses_more_heartbeats_than_its_batch_may(logs):
    expected_s = 0.2
    async with silent_worker(Heartbeats(interval_s=0.01, frozen=10_000)) as (worker, _):
        started = time.perf_counter()
        computing = asyncio.create_task(worker.compute(REF, "classify", RED, expected_s))
        await until(lambda: any(entry["event"] == "worker_silent" for entry in logs))
        assert time.perf_counter() - started >= expected_s
        assert not worker.alive
        computing.cancel()


async def test_a_stopped_idle_worker_is_unhealthy_until_it_continues(tiny_bundle):
    heartbeats = Heartbeats(interval_s=0.02, frozen=1_000_000)
    async with one_worker(tiny_bundle, heartbeats=heartbeats, stall_timeout_ms=3_600_000) as (supervisor, worker):
        process = psutil.Process(worker.process.pid)
        process.suspend()
        await until(lambda: not supervisor.pool.alive)
        process.resume()
        await until(lambda: supervisor.pool.alive)
        assert (await worker.compute(REF, "classify", RED, 0.1))[0].arrays


async def test_a_restarted_worker_does_not_load_a_bundle_that_was_changed(bundle_copy, logs):
    async with one_worker(bundle_copy) as (supervisor, worker):
        (bundle_copy / "weights.safetensors").unlink()
        worker.lose("for this test")
        await until(lambda: any(entry["event"] == "worker_not_started" for entry in logs))
        assert supervisor.pool.alive == 0


async def test_a_bundle_that_cannot_be_loaded_is_refused_and_no_process_is_left(tmp_path):
    source = BundleSource("shapes", tmp_path)
    supervisor = ProcessSupervisor(Settings(bundles=(source,), workers=2))
    async with supervisor.working():
        pids = list(supervisor.pids)
        with pytest.raises(BundleError, match=str(tmp_path)):
            await supervisor.load(REF, source)
    assert not any(map(psutil.pid_exists, pids))


# --- turns ---


def turn(expected_s: float, lasts_s: float) -> Turn:
    return Turn(expected_s, stall_timeout_s=10.0, since=time.perf_counter() - lasts_s)


@pytest.mark.parametrize(
    ("expected_s", "lasts_s", "overdue", "stalled"),
    [
        pytest.param(0.0, 0.5, False, False, id="just-started"),
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


class Idle:
    alive, busy_s, depth = True, 0.0, 2


async def test_a_paused_worker_counts_and_gets_no_batch():
    pool = Pool()
    pool.add(paused := Idle())
    pool.add(other := Idle())
    pool.pause(paused)
    assert (pool.alive, pool.idle) == (2, 1)
    assert await pool.take() is other
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    pool.resume(paused)
    assert await waiting is paused


async def test_a_worker_that_is_lost_while_it_is_paused_leaves_the_pool():
    pool = Pool()
    pool.add(worker := Idle())
    pool.pause(worker)
    pool.remove(worker)
    pool.resume(worker)
    assert (pool.workers, pool.idle) == ([], 0)


async def test_take_waits_for_the_next_worker_that_is_given_back():
    pool = Pool()
    pool.add(worker := Idle())
    assert await pool.take() is worker
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    assert (pool.alive, pool.idle, waiting.done()) == (1, 0, False)
    pool.give_back(worker)
    assert await waiting is worker


async def test_a_worker_prefetches_one_batch_and_no_third():
    pool = Pool()
    pool.add(worker := Idle())
    assert await pool.take() is worker
    waiting = asyncio.create_task(pool.take(lambda: plenty))
    plenty = False
    await asyncio.sleep(0)
    assert not waiting.done()
    plenty = True
    pool.nudge()
    assert await waiting is worker
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.take(lambda: True), 0.02)


async def test_a_lost_worker_is_neither_alive_nor_idle():
    pool = Pool()
    pool.add(worker := Idle())
    pool.remove(worker)
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
def test_the_default_plan_has_one_thread_for_each_core(cores, workers, plan):
    assert default_plan(cores, workers) == plan


@pytest.mark.slow
def test_a_worker_answers_every_hostile_image_and_stays_alive(start):
    service = start(workers=1, **PATIENT)
    workers = service.workers()
    wrong = {}
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for upload in (upload for group in IMAGES for upload in group()):
            response = client.post(
                "/v1/classify", content=upload.content, headers={"Content-Type": upload.content_type}
            )
            answer = f"{response.status_code} {response.json().get('code', 'ok')}"
            if answer != upload.answer:
                wrong[upload.name] = f"{answer} instead of {upload.answer}"
    assert wrong == {}
    assert service.classify().status_code == 200
    assert service.workers() == workers
    assert service.metric("polymodal_worker_restarts_total") == 0
