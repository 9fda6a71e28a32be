"""The queue, with integers for examples."""

import asyncio
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

LIMITS = BatchLimits(items=4, seconds=100.0, waiting=8)


@dataclass(frozen=True)
class Constant:
    """A forecast: the same for every batch, and for an item as many times `each_s` as its number; by default nothing takes time."""

    batch_s: float = 0.0
    each_s: float = 0.0
    by_number: bool = False

    def item_s(self, number: int) -> float:
        return self.each_s * (number if self.by_number else 1)


class Doubler:
    """Doubles integers; can be held up, notes what it was given, and dies of some numbers."""

    busy_s = 0.0

    def __init__(self, batches: list[list[int]], may_go: asyncio.Event, depth: int) -> None:
        self.alive = True
        self.depth = depth
        self._turn = asyncio.Lock()
        self.batches = batches
        self.may_go = may_go
        self.deadly: list[int] = []
        self.predicted_s: list[float] = []

    async def compute(self, numbers, predicted_s):
        self.predicted_s.append(predicted_s)
        async with self._turn:
            if not self.alive:
                raise NotStarted("it died before")
            return await self._double(numbers)

    async def _double(self, numbers):
        await self.may_go.wait()
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13 brings bad luck")
        for number in numbers:
            if number in self.deadly:
                self.deadly.remove(number)
                self.alive = self.depth == 1  # those of depth 1 are at once replaced by their like
                raise WorkerLost("a worker died")
        return [2 * number for number in numbers]


class Bench:
    """Workers, and what they did."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.pool: Pool[Doubler] = Pool()
        self.hire()

    def hire(self, depth: int = 1) -> Doubler:
        doubler = Doubler(self.batches, self.may_go, depth)
        self.pool.add(doubler)
        return doubler

    def hold(self) -> None:
        self.may_go.clear()

    def go(self) -> None:
        self.may_go.set()


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
        await asyncio.sleep(0.01)
    return tasks


async def test_a_single_item_is_computed_at_once_and_alone(batching, bench):
    async with batching() as batcher:
        computed = await batcher.submit(21, deadline=later())
    assert computed.result == 42
    assert computed.batch_size == 1
    assert bench.batches == [[21]]


async def test_a_worker_learns_how_long_its_batch_is_predicted_to_take(batching, bench):
    (worker,) = bench.pool.workers
    bench.hold()
    async with batching(forecast=Constant(batch_s=2.0, each_s=3.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3], seconds=100)
        assert worker.predicted_s == pytest.approx([5.0])
        bench.go()
        await asyncio.gather(*tasks)
    assert len(worker.predicted_s) == 2
    assert worker.predicted_s[1] > 5.0  # of two items, corrected by how fast the first one was


async def test_what_waits_while_the_worker_is_busy_becomes_one_batch(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert batcher.waiting == 3
        bench.go()
        results = [(await task).result for task in tasks]
    assert results == [2, 4, 6, 8]
    assert bench.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        pytest.param(BatchLimits(items=2, seconds=100, waiting=8), [[1], [2, 3], [4, 5]], id="items"),
        pytest.param(BatchLimits(items=8, seconds=9, waiting=8), [[1], [2, 3, 4], [5]], id="seconds"),
        pytest.param(
            BatchLimits(items=8, seconds=0.5, waiting=8), [[1], [2], [3], [4], [5]], id="each-longer-than-the-limit"
        ),
    ],
)
async def test_a_batch_keeps_its_limits(batching, bench, limits, batches):
    bench.hold()
    async with batching(limits=limits, forecast=Constant(10.0, each_s=1.0, by_number=True)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5], seconds=100)
        bench.go()
        await asyncio.gather(*tasks)
    assert bench.batches == batches


async def test_a_batch_grows_until_what_it_costs_beside_its_items_hardly_matters(batching, bench):
    bench.hold()
    async with batching(forecast=Constant(batch_s=0.079, each_s=1.0)) as batcher:  # 4 % of two items
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5, 6], seconds=100)
        bench.go()
        await asyncio.gather(*tasks)
    assert bench.batches == [[1], [2, 3], [4, 5], [6]]


async def test_while_there_is_plenty_a_worker_gets_its_next_batch_before_it_has_finished(batching, bench):
    bench.pool.remove(bench.pool.workers[0])
    bench.hire(depth=2)
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert batcher.waiting == 3  # not enough for a batch of four
        tasks += await submit_all(batcher, [5, 6])
        assert batcher.waiting == 1  # two to five are with the worker
        tasks += await submit_all(batcher, [7, 8, 9, 10])
        assert batcher.waiting == 5  # it takes no third batch
        bench.go()
        assert [(await task).result for task in tasks] == [2 * number for number in range(1, 11)]
    assert bench.batches == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10]]


async def test_an_idle_worker_comes_before_one_that_could_take_another_batch(batching, bench):
    bench.hire(depth=2)
    bench.hold()
    async with batching(limits=BatchLimits(items=1, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert sorted(bench.pool._batches.values()) == [1, 1]
        tasks += await submit_all(batcher, [3, 4, 5])
        assert sorted(bench.pool._batches.values()) == [1, 2]
        bench.go()
        await asyncio.gather(*tasks)


async def test_what_waited_behind_a_batch_that_killed_its_worker_is_not_suspected(batching, bench):
    first = bench.pool.workers[0]
    first.depth, first.deadly = 2, [1]
    bench.hold()
    async with batching(limits=BatchLimits(items=2, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        assert first.alive
        assert batcher.waiting == 1
        bench.hire()
        bench.go()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8]
    assert [2, 3] in bench.batches  # together, as before
    assert [1] in bench.batches[1:]


async def test_the_time_of_a_batch_does_not_include_its_wait_behind_another(batching, bench):
    worker = bench.pool.workers[0]
    worker.depth = 2
    bench.hold()
    async with batching(limits=BatchLimits(items=1, seconds=100.0, waiting=8)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3])
        await asyncio.sleep(0.1)
        bench.go()
        second = [await task for task in tasks][1]
    assert second.compute_s < 0.05
    assert second.queue_s > 0.05


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(batching, bench):
    async with batching(limits=BatchLimits(items=1, seconds=1, waiting=2)) as batcher:
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3])
        with pytest.raises(Overloaded, match="2 requests are waiting already; allowed: 2") as refusal:
            await batcher.submit(4, deadline=later())
        assert refusal.value.retry_after_s >= 1
        bench.go()
        await asyncio.gather(*tasks)
        assert (await batcher.submit(4, deadline=later())).result == 8


async def test_an_idle_worker_makes_room_for_a_burst(batching, bench):
    async with batching(limits=BatchLimits(items=2, seconds=9, waiting=1)) as batcher:
        outcomes = await asyncio.gather(
            *(batcher.submit(n, deadline=later()) for n in (1, 2, 3, 4)), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes[:3]] == [Computed] * 3
    assert isinstance(outcomes[3], Overloaded)


async def test_the_time_to_come_back_is_the_predicted_time_of_all_that_is_ahead(batching, bench):
    slow = Constant(batch_s=1.0, each_s=2.0)
    async with batching(limits=BatchLimits(items=2, seconds=100, waiting=3), forecast=slow) as batcher:
        assert batcher.backlog_s == 0
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3, 4], seconds=60)  # computed as 1 | 2, 3 | 4
        assert batcher.backlog_s == pytest.approx(3 + 5 + 3, abs=0.2)
        with pytest.raises(Overloaded, match="3 requests are waiting already") as refusal:
            await batcher.submit(5, deadline=later(60))
        assert refusal.value.retry_after_s == 11
        bench.go()
        await asyncio.gather(*tasks)
        assert batcher.backlog_s == 0


async def test_what_cannot_make_its_deadline_is_refused_at_once(batching, bench):
    bench.hold()
    async with batching(forecast=Constant(each_s=1.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        with pytest.raises(Overloaded, match=r"about (29|30)\d\d ms; allowed: 2\d\d\d ms until .* deadline") as refusal:
            await batcher.submit(3, deadline=later(2.5))
        assert refusal.value.retry_after_s == 2
        tasks.append(asyncio.create_task(batcher.submit(3, deadline=later(3.5))))
        await asyncio.sleep(0.01)
        bench.go()
        assert [(await task).result for task in tasks] == [2, 4, 6]


async def test_with_nothing_ahead_an_item_is_tried_whatever_the_forecast_says(batching):
    async with batching(forecast=Constant(each_s=1000.0)) as batcher:
        assert (await batcher.submit(1, deadline=later())).result == 2


async def test_work_for_others_on_the_same_worker_counts(batching):
    async with batching(backlog_of_others=lambda: 7.0) as batcher:
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit(1, deadline=later(5))
        assert refusal.value.retry_after_s == 7
        assert (await batcher.submit(1, deadline=later(8))).result == 2


async def test_a_forecast_that_is_wrong_is_corrected_by_what_is_measured(batching, bench):
    async with batching(forecast=Constant(each_s=0.5)) as batcher:
        for _ in range(60):  # each takes next to nothing
            await batcher.submit(1, deadline=later())
        bench.hold()
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5])
        assert 0 < batcher.backlog_s < 0.5  # instead of 2.5
        bench.go()
        await asyncio.gather(*tasks)


async def test_an_item_whose_deadline_passes_in_the_queue_is_not_computed(batching, bench):
    bench.hold()
    async with batching() as batcher:
        patient = await submit_all(batcher, [1])
        with pytest.raises(DeadlineExceeded, match=r"in the queue for 0\.\d\d s and with a worker for 0\.00 s") as late:
            await batcher.submit(2, deadline=later(0.03))
        assert late.value.queue_s >= 0.03
        assert batcher.waiting == 0
        bench.go()
        await asyncio.gather(*patient)
    assert bench.batches == [[1]]


async def test_a_deadline_also_ends_the_wait_for_a_computation_that_hangs(batching, bench):
    bench.hold()
    async with batching() as batcher:
        with pytest.raises(
            DeadlineExceeded, match=r"in the queue for 0\.\d\d s and with a worker for 0\.[12]\d s"
        ) as late:
            await batcher.submit(1, deadline=later(0.15))
        assert late.value.queue_s < 0.15
        bench.go()


async def test_what_is_given_up_behind_another_batch_of_its_worker_was_in_the_queue(batching, bench):
    bench.pool.remove(bench.pool.workers[0])
    bench.hire(depth=2)
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1])
        given_up = asyncio.create_task(batcher.submit(2, deadline=later(0.1)))
        tasks += await submit_all(batcher, [3, 4, 5, 6])
        assert batcher.waiting == 1  # two to five are with the worker
        with pytest.raises(DeadlineExceeded) as late:
            await given_up
        assert str(late.value).endswith("and with a worker for 0.00 s")
        bench.go()
        await asyncio.gather(*tasks)


async def test_workers_compute_at_the_same_time_and_each_takes_its_share(batching, bench):
    bench.hire()
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert batcher.waiting == 0  # each took one at once
        tasks += await submit_all(batcher, [3, 4, 5, 6, 7, 8])
        bench.go()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8, 10, 12, 14, 16]
    # Half of what waits is left for the other one, although that is still at work.
    assert bench.batches == [[1], [2], [3, 4, 5], [6, 7], [8]]


async def test_two_workers_halve_the_predicted_wait(batching, bench):
    bench.hire()
    bench.hold()
    async with batching(forecast=Constant(0.0, 1.0)) as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4, 5], seconds=10)
        assert batcher.backlog_s == pytest.approx(5 / 2, abs=0.2)
        bench.go()
        await asyncio.gather(*tasks)


async def test_without_a_worker_items_wait_for_the_next_one(batching, bench):
    lost = bench.pool.workers[0]
    bench.pool.remove(lost)
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
        assert batcher.waiting == 2
        bench.hire()
        assert [(await task).result for task in tasks] == [2, 4]


async def test_a_cancelled_caller_leaves_the_queue(batching, bench):
    bench.hold()
    async with batching() as batcher:
        first, second, third = await submit_all(batcher, [1, 2, 3])
        second.cancel()
        await asyncio.sleep(0.02)
        assert batcher.waiting == 1
        bench.go()
        await asyncio.gather(first, third)
    assert bench.batches == [[1], [3]]


async def test_a_poisonous_item_fails_alone(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 13, 4])
        bench.go()
        one, two, poisonous, four = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.result, two.result, four.result] == [2, 4, 8]
    assert isinstance(poisonous, ValueError)
    assert bench.batches == [[1], [2, 13, 4], [2], [13], [4]]


async def test_items_whose_worker_died_are_computed_again_each_alone(batching, bench):
    bench.pool.workers[0].deadly = [3]
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2, 3, 4])
        bench.go()
        assert [(await task).result for task in tasks] == [2, 4, 6, 8]
    assert bench.batches == [[1], [2, 3, 4], [2], [3], [4]]


async def test_an_item_that_kills_two_workers_by_itself_is_given_up(batching, bench):
    bench.pool.workers[0].deadly = [3, 3, 3]
    async with batching() as batcher:
        with pytest.raises(WorkerLost):
            await batcher.submit(3, deadline=later())
        assert (await batcher.submit(4, deadline=later())).result == 8
    assert bench.batches == [[3], [3], [4]]


async def no_results(worker, numbers, predicted_s):
    return []


async def test_a_computation_that_loses_items_is_an_error_and_not_a_mix_up(batching):
    async with batching(compute=no_results) as batcher:
        with pytest.raises(RuntimeError, match="1 items were computed to 0 results"):
            await batcher.submit(1, deadline=later())


async def test_closing_tells_everybody_who_still_waits(batching, bench):
    bench.hold()
    async with batching() as batcher:
        tasks = await submit_all(batcher, [1, 2])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Stopped, Stopped]


async def test_every_batch_is_reported_with_what_it_took(batching):
    reports = []
    async with batching(on_batch=reports.append) as batcher:
        computed = await batcher.submit(1, deadline=later())
    (report,) = reports
    assert report.items == [1]
    assert report.error is None
    assert report.predicted_s >= 0
    assert (report.began, report.compute_s) == (computed.began, computed.compute_s)


async def test_batches_that_fail_or_lose_their_worker_are_reported_too(batching, bench):
    reports = []
    bench.pool.workers[0].deadly = [3]
    async with batching(on_batch=reports.append) as batcher:
        outcomes = [await batcher.submit(3, deadline=later())]
        outcomes += await asyncio.gather(batcher.submit(13, deadline=later()), return_exceptions=True)
    assert isinstance(outcomes[1], ValueError)
    assert [(report.items, type(report.error)) for report in reports] == [
        ([3], WorkerLost),
        ([3], type(None)),
        ([13], ValueError),
    ]
    assert all(report.compute_s >= 0 for report in reports)
