"""The queue, with integers for examples."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from app.batching import Batcher, BatchLimits, Computed, DeadlineExceeded, Overloaded, Stopped

LIMITS = BatchLimits(items=4, cost=100.0, waiting=8)


@dataclass(frozen=True)
class Constant:
    """A forecast: the same for every batch and every item. By default nothing takes any time."""

    batch_s: float = 0.0
    each_s: float = 0.0

    def item_s(self, number: int) -> float:
        return self.each_s


class Doubler:
    """Doubles integers; can be held up, and notes what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, numbers):
        self.may_go.wait(5)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13 brings bad luck")
        return [2 * number for number in numbers]


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batching(doubler):
    worker = ThreadPoolExecutor(1)

    def make(compute=doubler, limits=LIMITS, forecast=Constant(), **options):
        return Batcher(compute, cost=float, forecast=forecast, limits=limits, worker=worker, **options)

    yield make
    doubler.may_go.set()
    worker.shutdown()


def later(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


async def submit_all(batcher, numbers, seconds=5.0):
    """Start a submission for each number, one after the other, so that the first occupies the worker."""
    tasks = []
    for number in numbers:
        tasks.append(asyncio.create_task(batcher.submit(number, deadline=later(seconds))))
        await asyncio.sleep(0.01)
    return tasks


async def test_a_single_item_is_computed_at_once_and_alone(batching, doubler):
    async with batching() as batcher:
        computed = await batcher.submit(21, deadline=later())
    assert computed.result == 42
    assert computed.batch_size == 1
    assert doubler.batches == [[21]]


async def test_what_waits_while_the_worker_is_busy_becomes_one_batch(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert batcher.waiting == 3
        doubler.may_go.set()
        results = [(await task).result for task in tasks]
    assert results == [2, 4, 6, 8]
    assert doubler.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        pytest.param(BatchLimits(items=2, cost=100, waiting=8), [[1], [2, 3], [4, 5]], id="items"),
        pytest.param(BatchLimits(items=8, cost=9, waiting=8), [[1], [2, 3, 4], [5]], id="cost"),
        pytest.param(
            BatchLimits(items=8, cost=0.5, waiting=8), [[1], [2], [3], [4], [5]], id="each-dearer-than-the-limit"
        ),
    ],
)
async def test_a_batch_keeps_its_limits(batching, doubler, limits, batches):
    doubler.may_go.clear()
    async with batching(limits=limits) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5])
        doubler.may_go.set()
        await asyncio.gather(*tasks)
    assert doubler.batches == batches


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(batching, doubler):
    async with batching(limits=BatchLimits(items=1, cost=1, waiting=2)) as batcher:
        doubler.may_go.clear()
        tasks = await submit_all(batcher, [1, 2, 3])
        with pytest.raises(Overloaded, match="2 requests are waiting already; allowed: 2") as refusal:
            await batcher.submit(4, deadline=later())
        assert refusal.value.retry_after_s >= 1
        doubler.may_go.set()
        await asyncio.gather(*tasks)
        assert (await batcher.submit(4, deadline=later())).result == 8


async def test_an_idle_worker_makes_room_for_a_burst(batching, doubler):
    async with batching(limits=BatchLimits(items=2, cost=9, waiting=1)) as batcher:
        outcomes = await asyncio.gather(
            *(batcher.submit(n, deadline=later()) for n in (1, 2, 3, 4)), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes[:3]] == [Computed] * 3
    assert isinstance(outcomes[3], Overloaded)


async def test_the_time_to_come_back_is_the_predicted_time_of_all_that_is_ahead(batching, doubler):
    slow = Constant(batch_s=1.0, each_s=2.0)
    async with batching(limits=BatchLimits(items=2, cost=100, waiting=3), forecast=slow) as batcher:
        assert batcher.backlog_s == 0
        doubler.may_go.clear()
        tasks = await submit_all(batcher, [1, 2, 3, 4], seconds=60)  # computed as 1 | 2, 3 | 4
        assert batcher.backlog_s == pytest.approx(3 + 5 + 3, abs=0.2)
        with pytest.raises(Overloaded, match="3 requests are waiting already") as refusal:
            await batcher.submit(5, deadline=later(60))
        assert refusal.value.retry_after_s == 11
        doubler.may_go.set()
        await asyncio.gather(*tasks)
        assert batcher.backlog_s == 0


async def test_what_cannot_make_its_deadline_is_refused_at_once(batching, doubler):
    doubler.may_go.clear()
    async with batching(forecast=Constant(each_s=1.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        with pytest.raises(Overloaded, match=r"about (29|30)\d\d ms; allowed: 2\d\d\d ms until .* deadline") as refusal:
            await batcher.submit(3, deadline=later(2.5))
        assert refusal.value.retry_after_s == 2
        tasks.append(asyncio.create_task(batcher.submit(3, deadline=later(3.5))))
        await asyncio.sleep(0.01)
        doubler.may_go.set()
        assert [(await task).result for task in tasks] == [2, 4, 6]


async def test_with_nothing_ahead_an_item_is_tried_whatever_the_forecast_says(batching):
    async with batching(forecast=Constant(each_s=1000.0)) as batcher:
        assert (await batcher.submit(1, deadline=later())).result == 2


async def test_work_for_others_on_the_same_worker_counts(batching):
    async with batching(elsewhere=lambda: 7.0) as batcher:
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit(1, deadline=later(5))
        assert refusal.value.retry_after_s == 7
        assert (await batcher.submit(1, deadline=later(8))).result == 2


async def test_a_forecast_that_is_wrong_is_corrected_by_what_is_measured(batching, doubler):
    async with batching(forecast=Constant(each_s=0.5)) as batcher:
        for _ in range(60):  # each takes next to nothing
            await batcher.submit(1, deadline=later())
        doubler.may_go.clear()
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5])
        assert 0 < batcher.backlog_s < 0.5  # instead of 2.5
        doubler.may_go.set()
        await asyncio.gather(*tasks)


async def test_an_item_whose_deadline_passes_in_the_queue_is_not_computed(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        patient = await submit_all(batcher, [1])
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(2, deadline=later(0.03))
        assert batcher.waiting == 0
        doubler.may_go.set()
        await asyncio.gather(*patient)
    assert doubler.batches == [[1]]


async def test_a_deadline_also_ends_the_wait_for_a_computation_that_hangs(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(1, deadline=later(0.03))
        assert batcher.busy_s > 0.02
        doubler.may_go.set()
        assert await batcher.drain(5)
        assert batcher.busy_s == 0


async def test_streams_compute_at_the_same_time_and_share_what_waits(doubler):
    doubler.may_go.clear()
    with ThreadPoolExecutor(2) as worker:
        async with Batcher(
            doubler, cost=float, forecast=Constant(), limits=LIMITS, worker=worker, streams=2
        ) as batcher:
            tasks = await submit_all(batcher, [1, 2])
            assert batcher.waiting == 0  # each stream took one at once
            assert batcher.busy_s > 0
            doubler.may_go.set()
            assert [(await task).result for task in tasks] == [2, 4]
            doubler.batches.clear()
            together = [asyncio.create_task(batcher.submit(number, deadline=later())) for number in range(3, 9)]
            assert [(await task).result for task in together] == [6, 8, 10, 12, 14, 16]
    assert sorted(doubler.batches) == [[3, 4, 5], [6, 7, 8]]


async def test_two_streams_halve_the_predicted_wait(batching, doubler):
    doubler.may_go.clear()
    async with batching(forecast=Constant(0.0, 1.0), streams=2) as batcher:  # of which the worker has one thread only
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5])
        assert batcher.backlog_s == pytest.approx(5 / 2, abs=0.2)
        doubler.may_go.set()
        await asyncio.gather(*tasks)


async def test_a_thread_that_hangs_is_noticed_also_after_the_queue_was_closed(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        (task,) = await submit_all(batcher, [1])
    with pytest.raises(Stopped):
        await task
    assert batcher.busy_s > 0
    doubler.may_go.set()


async def test_a_cancelled_caller_leaves_the_queue(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        first, second, third = await submit_all(batcher, [1, 2, 3])
        second.cancel()
        await asyncio.sleep(0.02)
        assert batcher.waiting == 1
        doubler.may_go.set()
        await asyncio.gather(first, third)
    assert doubler.batches == [[1], [3]]


async def test_a_poisonous_item_fails_alone(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 13, 4])
        doubler.may_go.set()
        one, two, poisonous, four = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.result, two.result, four.result] == [2, 4, 8]
    assert isinstance(poisonous, ValueError)
    assert doubler.batches == [[1], [2, 13, 4], [2], [13], [4]]


async def test_a_computation_that_loses_items_is_an_error_and_not_a_mix_up(batching):
    async with batching(compute=lambda numbers: []) as batcher:
        with pytest.raises(RuntimeError, match="1 items were computed to 0 results"):
            await batcher.submit(1, deadline=later())


async def test_draining_waits_for_what_was_accepted(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert not await batcher.drain(0.02)
        doubler.may_go.set()
        assert await batcher.drain(5)
        assert all(task.done() for task in tasks)


async def test_closing_tells_everybody_who_still_waits(batching, doubler):
    doubler.may_go.clear()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Stopped, Stopped]


async def test_every_batch_is_reported_by_its_size(doubler):
    sizes = []
    with ThreadPoolExecutor(1) as worker:
        options = {"cost": float, "forecast": Constant(), "limits": LIMITS, "worker": worker}
        async with Batcher(doubler, on_batch=sizes.append, **options) as batcher:
            await batcher.submit(1, deadline=later())
    assert sizes == [1]
