"""The service without HTTP."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polymodal.app.observe.metrics import Metrics
from polymodal.app.observe.timeline import Timeline
from polymodal.app.serving.batching import DeadlineExceeded, Overloaded
from polymodal.app.serving.registry import UnknownModel, UnknownTask
from polymodal.app.serving.service import NotReady, Service, Stalled, State
from polymodal.app.settings import BundleSource
from polymodal.app.workers.thread import ThreadSupervisor
from polymodal.model import TASKS, BundleError, Took, UnsupportedFormat, answer_one

CLASSIFY, EMBED = TASKS["classify"], TASKS["embed"]


def make_service(settings, models, **changed):
    """Return a service with these models, which a thread computes."""
    bundles = tuple(BundleSource(name, Path()) for name in models)
    settings = settings.model_copy(update={"bundles": bundles, **changed})
    return Service(settings, Metrics(), ThreadSupervisor(settings, models))


@pytest.fixture
def service(settings, predictor):
    return make_service(settings, {"toy": predictor})


@pytest.fixture
async def running(service):
    async with service.running():
        yield service


async def run(service, inputs, task=CLASSIFY, **options):
    """Run one item as a route does."""
    deadline = service.deadline()
    with service.registry.use("toy") as deployment:
        return await service.run(deployment, task, inputs, task.Options(), deadline=deadline, **options)


async def run_all(service, items, task=CLASSIFY, **options):
    deadline = service.deadline()
    with service.registry.use("toy") as deployment:
        return await service.run_all(deployment, task, items, task.Options(), deadline=deadline, **options)


def measured(service, name, **labels):
    return service._observer.registry.get_sample_value(name, labels)


def predict(queue, batch_s):
    """Set the predicted time of a batch."""
    queue._forecast = replace(queue._forecast, latency=replace(queue._forecast.latency, batch_s=batch_s))


# --- one item and several ---


async def test_an_item_is_classified(running):
    timeline = Timeline()
    answer = await run(running, {"text": "blue"}, timeline=timeline)
    assert (answer.labels[0].label, answer.model, answer.modalities) == ("blue", "toy", ["text"])
    assert list(timeline.longest()) == ["queue", "decode", "encode_text", "fuse"]


@pytest.mark.parametrize("task", [CLASSIFY, EMBED], ids=["classify", "embed"])
async def test_the_answer_of_a_task_is_that_of_the_model_computed_directly(running, predictor, solid, task):
    inputs = {"image": solid("blue"), "text": "red blue"}
    expected = answer_one(predictor, task, inputs, task.Options())
    assert await run(running, inputs, task) == expected


async def test_items_of_a_batch_are_embedded_as_single_items(running, solid):
    examples = [{"text": "red"}, {"image": solid("green")}, {"image": solid("blue"), "text": "blue"}]
    together = await run_all(running, [lambda inputs=inputs: inputs for inputs in examples], EMBED)
    for answer, inputs in zip(together, examples, strict=True):
        assert answer == await run(running, inputs, EMBED)
        assert answer.embeddings.keys() == set(inputs)
        for vector in answer.embeddings.values():
            assert np.linalg.norm(vector) == pytest.approx(1.0)


async def test_an_item_with_unusable_inputs_has_the_stages_that_it_reached(running):
    timeline = Timeline()
    with pytest.raises(UnsupportedFormat):
        await run(running, {"image": b"?"}, timeline=timeline)
    assert list(timeline.longest()) == ["queue", "decode"]


async def test_many_items_share_one_timeline(running):
    timeline = Timeline()
    await run_all(running, [lambda: {"text": "red"}, lambda: {"image": b"?"}], timeline=timeline)
    stages = {0: ["decode", "encode_text", "fuse", "queue"], 1: ["decode", "queue"]}
    assert sorted((step.item, step.stage) for step in timeline.steps) == [
        (item, stage) for item in stages for stage in stages[item]
    ]
    assert timeline.longest()["queue"] == max(step.seconds for step in timeline.steps if step.stage == "queue")


async def test_an_item_that_fails_in_a_batch_does_not_affect_the_others(running):
    bad, good = await run_all(running, [lambda: {"image": b"?"}, lambda: {"text": "red"}])
    assert isinstance(bad, UnsupportedFormat)
    assert good.labels[0].label == "red"


# --- models and their tasks ---


async def test_an_unknown_model_is_refused_with_the_names_of_those_that_are_served(running):
    with pytest.raises(UnknownModel, match='model: "nope"; allowed: toy'):
        running.describe("nope")
    with pytest.raises(UnknownModel), running.registry.use("nope"):
        pass


async def test_a_model_without_the_capability_for_a_task_refuses_it(settings, predictor):
    predictor.description = replace(predictor.description, capabilities=frozenset({"embeds"}))
    service = make_service(settings, {"toy": predictor})
    async with service.running():
        deployment = service.registry.resolve()
        deployment.check("embed")
        with pytest.raises(UnknownTask, match='model: "toy", which has no task classify; allowed: embed'):
            deployment.check("classify")
        assert (await run(service, {"text": "red"}, EMBED)).embeddings == {"text": [1.0, 0.0, 0.0]}


async def test_a_batch_has_items_of_one_task_and_all_tasks_of_a_model_share_its_workers(
    settings, predictor, runtime, monkeypatch
):
    service, batches = make_service(settings, {"toy": predictor}), []
    async with service.running():
        (worker,) = service._supervisor.pool.workers
        compute = worker.compute

        async def noted(ref, task, items, expected_s):
            batches.append((ref, task, len(items)))
            return await compute(ref, task, items, expected_s)

        monkeypatch.setattr(worker, "compute", noted)
        runtime.may_go.clear()
        running = []
        for task in (CLASSIFY, EMBED, CLASSIFY, EMBED, EMBED):
            running.append(asyncio.create_task(run(service, {"text": "red"}, task)))
            await asyncio.sleep(0.01)
        assert service.waiting == 4
        runtime.may_go.set()
        answers = await asyncio.gather(*running)
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["Classification", "Embedding", "Classification", "Embedding", "Embedding"]
    assert sorted(batches) == [("toy#1", "classify", 1), ("toy#1", "classify", 1), ("toy#1", "embed", 3)]


async def test_the_backlog_of_one_task_counts_for_the_other(running, runtime):
    with running.registry.use("toy") as deployment:
        classify, embed = deployment.queues["classify"], deployment.queues["embed"]
        predict(classify, 60.0)
        runtime.may_go.clear()
        working = asyncio.create_task(run(running, {"text": "red " * 4}, CLASSIFY))
        await asyncio.sleep(0.02)
        assert classify.backlog_s > 0
        assert embed.backlog_s == 0
        with pytest.raises(Overloaded, match="an answer would take about"):
            embed.check_time(asyncio.get_running_loop().time())
    runtime.may_go.set()
    await working


# --- workers are not trusted ---


def falsify(service, monkeypatch, **changed):
    """Change the results of the worker."""
    (worker,) = service._supervisor.pool.workers
    compute = worker.compute

    async def falsified(*arguments):
        return [replace(result, **changed) for result in await compute(*arguments)]

    monkeypatch.setattr(worker, "compute", falsified)


async def test_a_stage_that_a_worker_invents_is_not_counted(running, monkeypatch):
    falsify(running, monkeypatch, stages={"decode": Took(0.0, 0.25), "mine_coins": Took(0.0, 9.0)})
    timeline = Timeline()
    assert (await run(running, {"text": "red"}, timeline=timeline)).labels[0].label == "red"
    assert list(timeline.longest()) == ["queue", "decode"]
    name = "polymodal_stage_duration_seconds_count"
    assert measured(running, name, model="toy", stage="decode") == 1
    assert measured(running, name, model="toy", stage="mine_coins") is None


@pytest.mark.parametrize("invented", ["smell", "image"], ids=["of-no-model", "not-sent"])
async def test_a_modality_that_a_worker_invents_is_neither_answered_nor_counted(running, monkeypatch, invented):
    falsify(running, monkeypatch, used=frozenset({"text", invented}))
    answer = await run(running, {"text": "red"})
    assert answer.modalities == ["text"]
    name = "polymodal_predictions_total"
    assert measured(running, name, model="toy", label="red", modalities="text") == 1
    assert all(sample.labels.get("modalities") in (None, "text") for sample in samples(running))


def samples(service):
    return [sample for metric in service._observer.registry.collect() for sample in metric.samples]


async def test_a_vector_that_a_worker_invents_is_not_answered(running, monkeypatch):
    vector = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    falsify(running, monkeypatch, arrays={"text": vector, "smell": vector})
    assert (await run(running, {"text": "red"}, EMBED)).embeddings == {"text": [1.0, 0.0, 0.0]}


async def test_an_embedding_of_an_input_that_was_not_sent_is_not_cached(settings, predictor, monkeypatch):
    service = make_service(settings, {"toy": predictor}, embedding_cache_bytes=2**20)
    async with service.running():
        falsify(service, monkeypatch, embeddings={"smell": np.zeros(3, dtype=np.float32)})
        await run(service, {"text": "red"})
        assert service.cached_bytes == 0


# --- cached embeddings ---


async def test_an_input_that_was_embedded_for_one_task_is_not_encoded_for_the_other(settings, predictor):
    service = make_service(settings, {"toy": predictor}, embedding_cache_bytes=2**20)
    async with service.running():
        first = await run(service, {"text": "red"})
        timeline = Timeline()
        second = await run(service, {"text": "red"}, EMBED, timeline=timeline)
        assert list(timeline.longest()) == ["queue", "decode"]
        assert await run(service, {"text": "red"}) == first
    assert second.embeddings == {"text": [1.0, 0.0, 0.0]}


# --- the life of a service ---


async def test_requests_are_admitted_only_between_start_and_drain(service):
    with pytest.raises(NotReady, match="the service is starting"), service.admit():
        pass
    async with service.running():
        with service.admit():
            assert service.inside == 1
        assert await service.drain(1)
        with pytest.raises(NotReady, match="the service is draining"), service.admit():
            pass


async def test_a_request_that_was_admitted_is_finished_while_draining(running):
    with running.admit():
        draining = asyncio.create_task(running.drain(5))
        await asyncio.sleep(0.02)
        assert running.state is State.DRAINING
        assert (await run(running, {"text": "red"})).labels[0].label == "red"
        assert not draining.done()
    assert await draining


async def test_draining_ends_at_its_timeout(running):
    with running.admit():
        assert not await running.drain(0.03)


async def test_the_number_of_admitted_requests_is_limited_to_the_queue_and_one_batch(settings, predictor):
    service = make_service(settings, {"toy": predictor}, queue_limit=1, max_batch_items=1)
    async with service.running():
        full = pytest.raises(Overloaded, match="2 requests are waiting already; allowed: 2")
        with service.admit(), service.admit(), full, service.admit():
            pass
        assert service.inside == 0


@pytest.mark.parametrize("step", ["warm_up", "probes"])
async def test_a_refused_bundle_never_becomes_ready(service, predictor, monkeypatch, step):
    def refuse(*_arguments):
        raise BundleError("weights.safetensors was altered")

    monkeypatch.setattr(predictor, step, refuse)
    with pytest.raises(BundleError, match="altered"):
        async with service.running():
            pytest.fail("must not start")
    assert service.state is State.STARTING
    assert service.models == []


# --- batches that hang ---


@pytest.mark.parametrize(
    ("predicted_s", "stalled"), [(0.0, True), (600.0, False)], ids=["predicted-short", "predicted-long"]
)
async def test_a_batch_stalls_only_when_it_exceeds_its_prediction(settings, predictor, runtime, predicted_s, stalled):
    service = make_service(settings, {"toy": predictor}, stall_timeout_ms=100, request_timeout_ms=200)
    async with service.running():
        predict(service.registry.resolve().queues["classify"], predicted_s)
        runtime.may_go.clear()
        with pytest.raises(DeadlineExceeded):
            await run(service, {"text": "red"})
        if stalled:
            with pytest.raises(Stalled, match="one batch takes"):
                service.check_worker()
        else:
            service.check_worker()
        assert service.ready is not stalled
        runtime.may_go.set()
