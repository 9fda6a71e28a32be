"""The queue, with integers as items, and a clock that tests move forward."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from polymodal.app.serving.batching import (
    Batcher,
    BatchLimits,
    Computed,
    DeadlineExceeded,
    Overloaded,
    Stopped,
)
from polymodal.app.workers.failures import NotStarted, WorkerLost
from polymodal.app.workers.pool import Pool
from tests.clock import Clock

LIMITS = BatchLimits(items=4, seconds=100.0, waiting=8)


@dataclass(frozen=True)
class Constant:
    """A forecast of `number_s` for every item, or for every unit of its number; by default nothing takes time."""

    batch_s: float = 0.0
    number_s: float = 0.0
    by_number: bool = False

    def item_s(self, number: int) -> float:
        return self.number_s * (number if self.by_number else 1)


class Doubler:
    """A worker that doubles integers, records its batches, fails on 13, and is lost on deadly numbers."""

    busy_s = 0.0

    def __init__(self, batches: list[list[int]], may_compute: asyncio.Event, depth: int) -> None:
        self.alive = True
        self.depth = depth
        self._turn = asyncio.Lock()
        self.batches = batches
        self.may_compute = may_compute
        self.deadly: list[int] = []
        self.predicted_s: list[float] = []
        self.stopped: list[int] = []

    def stop(self, number):
        self.stopped.append(number)

    async def compute(self, numbers, predicted_s):
        self.predicted_s.append(predicted_s)
        async with self._turn:
            if not self.alive:
                raise NotStarted("it was lost before")
            return await self._double(numbers)

    async def _double(self, numbers):
        await self.may_compute.wait()
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13 brings bad luck")
        for number in numbers:
            if number in self.deadly:
                self.deadly.remove(number)
                self.alive = self.depth == 1  # one of depth 1 is replaced at once
                raise WorkerLost("a worker died")
        return [2 * number for number in numbers]


class Bench:
    """A pool of workers, the batches that they computed, and a switch that holds them all."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_compute = asyncio.Event()
        self.may_compute.set()
        self.pool = Pool()
        self.add_worker()

    def add_worker(self, depth: int = 1) -> Doubler:
        doubler = Doubler(self.batches, self.may_compute, depth)
        self.pool.add(doubler)
        return doubler

    def hold(self) -> None:
        self.may_compute.clear()

    def release(self) -> None:
        self.may_compute.set()


@pytest.fixture(autouse=True)
async def clock(monkeypatch):
    """The clock of the event loop and of durations; only a test moves it."""
    clock = Clock(1000.0)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


async def settle():
    """Run all callbacks that are due."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def batching(bench):
    def make(compute=Doubler.compute, limits=LIMITS, forecast=Constant(), **options):
        return Batcher(compute, forecast=forecast, limits=limits, workers=bench.pool, **options)

    return make


def later(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


async def submit_all(batcher, numbers, seconds=5.0):
    """Start a submission for each number, one after the other, so that the first occupies the worker."""
    tasks = []
    for number in numbers:
        tasks.append(asyncio.create_task(batcher.submit(number, deadline=later(seconds))))
        await settle()
    return tasks


async def test_a_single_item_is_computed_at_once_and_alone(batching, bench):
    async with batching() as batcher:
        computed = await batcher.submit(21, deadline=later())
    assert computed.result == 42
    assert computed.batch_size == 1
    assert bench.batches == [[21]]


async def test_a_worker_gets_the_predicted_time_of_its_batch(batching, bench):
    (worker,) = bench.pool.workers
    bench.hold()
    async with batching(forecast=Constant(batch_s=2.0, number_s=3.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3], seconds=100)
        assert worker.predicted_s == pytest.approx([5.0])
        bench.release()
        await asyncio.gather(*tasks)
    assert len(worker.predicted_s) == 2
    assert worker.predicted_s[1] > 5.0  # of two items, corrected by how fast the first one was


async def test_items_that_wait_while_the_worker_is_busy_become_one_batch(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert batcher.waiting == 3
        bench.release()
        results = [(await task).result for task in tasks]
    assert results == [2, 4, 6, 8]
    assert bench.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        pytest.param(BatchLimits(items=2, seconds=100, waiting=8), [[1], [2, 3], [4, 5]], id="items"),
        pytest.param(BatchLimits(items=8, seconds=9, waiting=8), [[1], [2, 3, 4], [5]], id="seconds"),
        pytest.param(
            BatchLimits(items=8, seconds=0.5, waiting=8), [[1], [2], [3], [4], [5]], id="items-longer-than-the-limit"
        ),
    ],
)
async def test_a_batch_stays_within_its_limits(batching, bench, limits, batches):
    bench.hold()
    async with batching(limits=limits, forecast=Constant(10.0, number_s=1.0, by_number=True)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5], seconds=100)
        bench.release()
        await asyncio.gather(*tasks)
    assert bench.batches == batches


async def test_a_batch_grows_until_its_overhead_is_small(batching, bench):
    bench.hold()
    async with batching(forecast=Constant(batch_s=0.079, number_s=1.0)) as batcher:  # 4 % of two items
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5, 6], seconds=100)
        bench.release()
        await asyncio.gather(*tasks)
    assert bench.batches == [[1], [2, 3], [4, 5], [6]]


async def test_a_worker_prefetches_one_batch_while_the_queue_is_long(batching, bench):
    bench.pool.remove(bench.pool.workers[0])
    bench.add_worker(depth=2)
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert batcher.waiting == 3  # not enough for a batch of four
        tasks += await submit_all(batcher, [5, 6])
        assert batcher.waiting == 1  # the worker has 1 to 5
        tasks += await submit_all(batcher, [7, 8, 9, 10])
        assert batcher.waiting == 5  # it takes no third batch
        bench.release()
        assert [(await task).result for task in tasks] == [2 * number for number in range(1, 11)]
    assert bench.batches == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10]]


async def test_an_idle_worker_gets_a_batch_before_one_that_could_prefetch_it(batching, bench):
    bench.add_worker(depth=2)
    bench.hold()
    async with batching(limits=BatchLimits(items=1, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert sorted(bench.pool._batches.values()) == [1, 1]
        tasks += await submit_all(batcher, [3, 4, 5])
        assert sorted(bench.pool._batches.values()) == [1, 2]
        bench.release()
        await asyncio.gather(*tasks)


async def test_a_prefetched_batch_whose_worker_is_lost_is_computed_again_as_a_whole(batching, bench):
    first = bench.pool.workers[0]
    first.depth, first.deadly = 2, [1]
    bench.hold()
    async with batching(limits=BatchLimits(items=2, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert first.alive
        assert batcher.waiting == 1
        bench.add_worker()
        bench.release()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8]
    assert [2, 3] in bench.batches  # together, as before
    assert [1] in bench.batches[1:]


async def test_the_time_of_a_batch_does_not_include_its_wait_behind_another(batching, bench, clock):
    worker = bench.pool.workers[0]
    worker.depth = 2
    bench.hold()
    async with batching(limits=BatchLimits(items=1, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3])
        clock.now += 0.1
        bench.release()
        second = [await task for task in tasks][1]
    assert (second.queue_s, second.compute_s) == (pytest.approx(0.1), 0)


async def test_a_full_queue_refuses_at_once_and_names_a_time_to_retry(batching, bench):
    async with batching(limits=BatchLimits(items=1, seconds=1, waiting=2)) as batcher:
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3])
        with pytest.raises(Overloaded, match="2 requests are waiting already; allowed: 2") as refusal:
            await batcher.submit(4, deadline=later())
        assert refusal.value.retry_after_s >= 1
        bench.release()
        await asyncio.gather(*tasks)
        assert (await batcher.submit(4, deadline=later())).result == 8


async def test_idle_workers_count_when_a_burst_is_admitted(batching, bench):
    async with batching(limits=BatchLimits(items=2, seconds=9, waiting=1)) as batcher:
        submissions = (batcher.submit(number, deadline=later()) for number in (1, 2, 3, 4))
        results = await asyncio.gather(*submissions, return_exceptions=True)
    assert [type(result) for result in results] == [Computed] * 3 + [Overloaded]


async def test_the_time_to_retry_is_the_predicted_time_of_the_backlog(batching, bench):
    slow = Constant(batch_s=1.0, number_s=2.0)
    async with batching(limits=BatchLimits(items=2, seconds=100, waiting=3), forecast=slow) as batcher:
        assert batcher.backlog_s == 0
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3, 4], seconds=60)  # computed as 1 | 2, 3 | 4
        assert batcher.backlog_s == pytest.approx(3 + 5 + 3)
        with pytest.raises(Overloaded, match="3 requests are waiting already") as refusal:
            await batcher.submit(5, deadline=later(60))
        assert refusal.value.retry_after_s == 11
        bench.release()
        await asyncio.gather(*tasks)
        assert batcher.backlog_s == 0


async def test_an_item_that_cannot_meet_its_deadline_is_refused_at_once(batching, bench):
    bench.hold()
    async with batching(forecast=Constant(number_s=1.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        with pytest.raises(Overloaded, match=r"about 3000 ms; allowed: 2500 ms until .* deadline") as refusal:
            await batcher.submit(3, deadline=later(2.5))
        assert refusal.value.retry_after_s == 2
        tasks.append(asyncio.create_task(batcher.submit(3, deadline=later(3.5))))
        await settle()
        bench.release()
        assert [(await task).result for task in tasks] == [2, 4, 6]


async def test_without_a_backlog_an_item_is_computed_whatever_its_forecast(batching):
    async with batching(forecast=Constant(number_s=1000.0)) as batcher:
        assert (await batcher.submit(1, deadline=later())).result == 2


async def test_the_backlog_of_other_queues_counts(batching):
    async with batching(backlog_of_others=lambda: 7.0) as batcher:
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit(1, deadline=later(5))
        assert refusal.value.retry_after_s == 7
        assert (await batcher.submit(1, deadline=later(8))).result == 2


async def test_a_wrong_forecast_is_corrected_by_measurements(batching, bench):
    async with batching(forecast=Constant(number_s=0.5)) as batcher:
        for _ in range(60):  # each takes no time
            await batcher.submit(1, deadline=later())
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5])
        assert 0 < batcher.backlog_s < 0.5  # instead of 2.5
        bench.release()
        await asyncio.gather(*tasks)


async def test_an_item_whose_deadline_passes_in_the_queue_is_not_computed(batching, bench, clock):
    bench.hold()
    async with batching() as batcher:
        (first,) = await submit_all(batcher, [1], seconds=10)
        (late,) = await submit_all(batcher, [2], seconds=5)
        clock.now += 5
        with pytest.raises(DeadlineExceeded, match=r"in the queue for 5\.00 s and with a worker for 0\.00 s") as error:
            await late
        assert error.value.queue_s == 5
        assert batcher.waiting == 0
        bench.release()
        await first
    assert bench.batches == [[1]]


async def test_a_deadline_also_ends_the_wait_for_a_computation_that_hangs(batching, bench, clock):
    bench.hold()
    async with batching() as batcher:
        (task,) = await submit_all(batcher, [1])
        clock.now += 5
        with pytest.raises(DeadlineExceeded, match=r"in the queue for 0\.00 s and with a worker for 5\.00 s") as late:
            await task
        assert late.value.queue_s == 0
        bench.release()


async def test_a_prefetched_item_that_exceeds_its_deadline_was_only_in_the_queue(batching, bench, clock):
    bench.pool.remove(bench.pool.workers[0])
    bench.add_worker(depth=2)
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1], seconds=10)
        (late,) = await submit_all(batcher, [2], seconds=5)
        tasks += await submit_all(batcher, [3, 4, 5, 6], seconds=10)
        assert batcher.waiting == 1  # the worker has 1 to 5
        clock.now += 5
        with pytest.raises(DeadlineExceeded, match=r"in the queue for 5\.00 s and with a worker for 0\.00 s$"):
            await late
        bench.release()
        await asyncio.gather(*tasks)


async def test_workers_compute_at_the_same_time_and_share_the_queue(batching, bench):
    bench.add_worker()
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert batcher.waiting == 0  # each has one
        tasks += await submit_all(batcher, [3, 4, 5, 6, 7, 8])
        bench.release()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8, 10, 12, 14, 16]
    # Half of the queue is left for the other worker, although it is still busy.
    assert bench.batches == [[1], [2], [3, 4, 5], [6, 7], [8]]


async def test_two_workers_halve_the_predicted_wait(batching, bench):
    bench.add_worker()
    bench.hold()
    async with batching(forecast=Constant(0.0, 1.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5], seconds=10)
        assert batcher.backlog_s == pytest.approx(5 / 2)
        bench.release()
        await asyncio.gather(*tasks)


async def test_without_a_worker_items_wait_for_the_next_one(batching, bench):
    lost = bench.pool.workers[0]
    bench.pool.remove(lost)
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert batcher.waiting == 2
        bench.add_worker()
        assert [(await task).result for task in tasks] == [2, 4]


async def test_a_cancelled_caller_leaves_the_queue(batching, bench):
    bench.hold()
    async with batching() as batcher:
        first, second, third = await submit_all(batcher, [1, 2, 3])
        second.cancel()
        await settle()
        assert batcher.waiting == 1
        bench.release()
        await asyncio.gather(first, third)
    assert bench.batches == [[1], [3]]


async def test_an_item_that_fails_its_batch_fails_alone(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 13, 4])
        bench.release()
        one, two, failing, four = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.result, two.result, four.result] == [2, 4, 8]
    assert isinstance(failing, ValueError)
    assert bench.batches == [[1], [2, 13, 4], [2], [13], [4]]


async def test_items_whose_worker_was_lost_are_computed_again_alone(batching, bench):
    bench.pool.workers[0].deadly = [3]
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        bench.release()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8]
    assert bench.batches == [[1], [2, 3, 4], [2], [3], [4]]


async def test_an_item_that_alone_loses_two_workers_fails(batching, bench):
    bench.pool.workers[0].deadly = [3, 3, 3]
    async with batching() as batcher:
        with pytest.raises(WorkerLost):
            await batcher.submit(3, deadline=later())
        assert (await batcher.submit(4, deadline=later())).result == 8
    assert bench.batches == [[3], [3], [4]]


async def no_results(worker, numbers, predicted_s):
    return []


async def test_a_missing_result_fails_the_batch(batching):
    async with batching(compute=no_results) as batcher:
        with pytest.raises(RuntimeError, match="1 items were computed to 0 results"):
            await batcher.submit(1, deadline=later())


async def test_closing_fails_all_items_that_still_wait(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [Stopped, Stopped]


async def test_every_batch_is_reported_with_its_time(batching):
    reports = []
    async with batching(on_batch=reports.append) as batcher:
        computed = await batcher.submit(1, deadline=later())
    (report,) = reports
    assert report.items == [1]
    assert report.error is None
    assert report.predicted_s >= 0
    assert (report.began, report.compute_s) == (computed.began, computed.compute_s)


async def test_failed_batches_and_lost_workers_are_reported_too(batching, bench):
    reports = []
    bench.pool.workers[0].deadly = [3]
    async with batching(on_batch=reports.append) as batcher:
        await batcher.submit(3, deadline=later())
        with pytest.raises(ValueError, match="bad luck"):
            await batcher.submit(13, deadline=later())
    assert [(report.items, type(report.error)) for report in reports] == [
        ([3], WorkerLost),
        ([3], type(None)),
        ([13], ValueError),
    ]
    assert all(report.compute_s >= 0 for report in reports)


async def test_a_batch_is_stopped_when_nobody_waits_for_any_of_its_items(batching, bench):
    (worker,) = bench.pool.workers
    bench.hold()
    async with batching(forecast=Constant()) as batcher:
        first, second, third = await submit_all(batcher, [1, 2, 3], seconds=100)
        first.cancel()
        await settle()
        assert worker.stopped == [1]
        bench.release()
        await settle()
        assert [(await second).result, (await third).result] == [4, 6]
    assert worker.stopped == [1]


async def test_a_batch_in_which_somebody_waits_is_not_stopped(batching, bench):
    (worker,) = bench.pool.workers
    bench.hold()
    async with batching(forecast=Constant()) as batcher:
        first, second = (asyncio.create_task(batcher.submit(number, deadline=later(100))) for number in (1, 2))
        await settle()
        first.cancel()
        await settle()
        assert worker.stopped == []
        bench.release()
        assert (await second).result == 4
    assert bench.batches == [[1, 2]]


async def test_a_stopped_batch_does_not_change_the_forecast(batching, bench, clock):
    bench.hold()
    async with batching(forecast=Constant()) as batcher:
        (only,) = await submit_all(batcher, [1], seconds=100)
        before = batcher._correction
        only.cancel()
        await settle()
        bench.release()
        await settle()
        assert batcher._correction == before
