"""The service without HTTP."""

import asyncio

import pytest

from app.batching import Overloaded
from app.engine import Engine
from app.metrics import Metrics
from app.service import NotReady, Service, State, UnknownModel
from app.timeline import Timeline
from app.workers import OneThread
from model import BundleError, NothingGiven, UnsupportedFormat


def made(settings, predictor):
    return Service(settings, Metrics(), OneThread(lambda: Engine({"toy": predictor})))


@pytest.fixture
def service(settings, predictor):
    return made(settings, predictor)


@pytest.fixture
async def running(service):
    async with service.running():
        yield service


async def test_one_classification_from_beginning_to_end(running):
    timeline = Timeline()
    outcome = await running.classify({"text": "blue"}, model=None, deadline=running.deadline(), timeline=timeline)
    assert max(outcome.prediction.scores, key=outcome.prediction.scores.get) == "blue"
    assert outcome.description.name == "toy"
    assert list(timeline.longest()) == ["queue", "decode", "encode_text", "fuse"]


async def test_what_fails_tells_how_far_it_came(running):
    timeline = Timeline()
    with pytest.raises(UnsupportedFormat):
        await running.classify({"image": b"?"}, model=None, deadline=running.deadline(), timeline=timeline)
    assert list(timeline.longest()) == ["queue", "decode"]


async def test_many_examples_share_one_timeline(running):
    timeline = Timeline()
    items = [lambda: {"text": "red"}, lambda: {"image": b"?"}]
    await running.classify_all(items, model=None, deadline=running.deadline(), timeline=timeline)
    assert sorted((step.item, step.stage) for step in timeline.steps) == [
        (0, "decode"),
        (0, "encode_text"),
        (0, "fuse"),
        (0, "queue"),
        (1, "decode"),
        (1, "queue"),
    ]
    assert timeline.longest()["queue"] == max(step.seconds for step in timeline.steps if step.stage == "queue")


async def test_an_input_error_reaches_the_caller_as_it_is(running):
    with pytest.raises(NothingGiven):
        await running.classify({}, model=None, deadline=running.deadline())


async def test_an_unknown_model_names_the_known_ones(running):
    with pytest.raises(UnknownModel, match='model: "nope"; allowed: toy'):
        running.describe("nope")


async def test_a_service_starts_drains_and_admits_only_in_between(service):
    with pytest.raises(NotReady, match="the service is starting"), service.admit():
        pass
    async with service.running():
        with service.admit():
            assert service.inside == 1
        assert await service.drain(1)
        with pytest.raises(NotReady, match="the service is draining"), service.admit():
            pass


async def test_what_was_admitted_is_finished_while_draining(running):
    with running.admit():
        draining = asyncio.create_task(running.drain(5))
        await asyncio.sleep(0.02)
        assert running.state is State.DRAINING
        outcome = await running.classify({"text": "red"}, model=None, deadline=running.deadline())
        assert outcome.prediction.scores["red"] > 0.5
        assert not draining.done()
    assert await draining


async def test_draining_has_a_bound(running):
    with running.admit():
        assert not await running.drain(0.03)


async def test_no_more_is_inside_than_may_wait_and_be_computed(settings, predictor):
    service = made(settings.model_copy(update={"queue_limit": 1, "max_batch_items": 1}), predictor)
    async with service.running():
        full = pytest.raises(Overloaded, match="2 requests are waiting already; allowed: 2")
        with service.admit(), service.admit(), full, service.admit():
            pass
        assert service.inside == 0


async def test_cancelling_a_classification_takes_it_out_of_the_queue(running, runtime):
    runtime.may_go.clear()
    tasks = []
    for _ in range(3):
        work = running.classify({"text": "red"}, model=None, deadline=running.deadline())
        tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0.02)
    assert running.waiting == 2
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    assert running.waiting == 1
    runtime.may_go.set()
    await asyncio.gather(tasks[0], tasks[2])


@pytest.mark.parametrize("step", ["load", "warm_up"])
async def test_a_refused_bundle_never_becomes_ready(settings, predictor, monkeypatch, step):
    def refuse():
        raise BundleError("weights.safetensors was altered")

    service = made(settings, predictor)
    if step == "warm_up":
        monkeypatch.setattr(predictor, "warm_up", refuse)
    else:
        service = Service(settings, Metrics(), OneThread(refuse))
    with pytest.raises(BundleError, match="altered"):
        async with service.running():
            pytest.fail("must not start")
    assert service.state is State.STARTING
