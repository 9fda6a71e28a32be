"""Deployments are loaded, replaced and unloaded while they serve; with one thread, or with worker processes."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from polymodal.app.observe.metrics import Metrics
from polymodal.app.serving.registry import UnknownModel
from polymodal.app.serving.service import Service
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers import process
from polymodal.app.workers.failures import BatchFailed
from polymodal.app.workers.supervisor import ProcessSupervisor
from polymodal.app.workers.thread import ThreadSupervisor
from polymodal.model import TASKS, BundleError

CLASSIFY = TASKS["classify"]
DIGESTS = {"first": "aa" * 32, "second": "bb" * 32}


async def classify(service, name=None, text="red"):
    with service.registry.use(name) as deployment:
        options = CLASSIFY.Options()
        return await service.run(deployment, CLASSIFY, {"text": text}, options, deadline=service.deadline())


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- one thread ---


@pytest.fixture
def source():
    return BundleSource("toy", Path())


@pytest.fixture
def models(make, runtime):
    """Models that are loaded by name; replace one to load another version of it."""
    first = make(runtime=runtime)
    first.description = replace(first.description, digest=DIGESTS["first"])
    return {"toy": first}


@pytest.fixture
def second(make):
    """Another version of the model."""
    model = make()
    model.description = replace(model.description, digest=DIGESTS["second"])
    return model


@pytest.fixture
async def service(settings, models, source):
    settings = settings.model_copy(update={"bundles": (source,)})
    service = Service(settings, Metrics(), ThreadSupervisor(settings, models))
    async with service.running():
        yield service


def loaded_in(service):
    """Return the references of the models that the thread has."""
    return set(service._supervisor._worker._engine._models)


async def test_a_new_version_takes_over_under_the_same_name(service, models, second, source, logs):
    assert (await classify(service)).digest == DIGESTS["first"]
    models["toy"] = second
    deployment = await service.registry.load(source)
    assert deployment.description.digest == DIGESTS["second"]
    assert (await classify(service)).digest == DIGESTS["second"]
    assert [model.digest for model in service.models] == [DIGESTS["second"]]
    assert loaded_in(service) == {"toy#2"}
    assert [entry["digest"] for entry in logs if entry["event"] == "model_replaced"] == [DIGESTS["second"]]


async def test_a_new_version_replays_its_golden_inputs_before_it_takes_over(
    service, models, second, source, monkeypatch
):
    served = []
    replay = second.warm_up

    def warm_up():
        served.append(service.registry.resolve("toy").description.digest)
        replay()

    monkeypatch.setattr(second, "warm_up", warm_up)
    models["toy"] = second
    await service.registry.load(source)
    assert served == [DIGESTS["first"]]


async def test_a_request_that_resolved_the_old_version_is_answered_before_it_is_unloaded(
    service, models, second, source, runtime
):
    runtime.may_go.clear()
    working = asyncio.create_task(classify(service))
    await until(lambda: service.busy_s > 0)
    models["toy"] = second
    with service.registry.use("toy") as old:
        loading = asyncio.create_task(service.registry.load(source))
        runtime.may_go.set()
        assert (await working).digest == DIGESTS["first"]
        await until(lambda: service.registry.resolve("toy") is not old)
        assert (await classify(service)).digest == DIGESTS["second"]
        late = await service.run(old, CLASSIFY, {"text": "red"}, CLASSIFY.Options(), deadline=service.deadline())
        assert late.digest == DIGESTS["first"]
        assert loaded_in(service) == {"toy#1", "toy#2"}
        assert not loading.done()
    await loading
    assert loaded_in(service) == {"toy#2"}


@pytest.mark.parametrize("step", ["warm_up", "probes"])
async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    service, models, second, source, monkeypatch, step
):
    def refuse(*_arguments):
        raise BundleError("golden input 1 scores 0.5 away")

    monkeypatch.setattr(second, step, refuse)
    models["toy"] = second
    with pytest.raises(BundleError, match="golden input 1"):
        await service.registry.load(source)
    assert (await classify(service)).digest == DIGESTS["first"]
    assert loaded_in(service) == {"toy#1"}
    assert len(service.registry.deployments) == 1


async def test_another_model_is_served_next_to_the_first_which_stays_the_default(service, models, make):
    models["other"] = make("other")
    await service.registry.load(BundleSource("other", Path()))
    assert [model.name for model in service.models] == ["toy", "other"]
    assert ((await classify(service)).model, (await classify(service, "other")).model) == ("toy", "other")


async def test_a_new_version_of_the_default_model_stays_the_default(service, models, make, second, source):
    models["other"] = make("other")
    await service.registry.load(BundleSource("other", Path()))
    models["toy"] = second
    await service.registry.load(source)
    assert (await classify(service)).digest == DIGESTS["second"]


async def test_an_unloaded_model_is_unknown_at_once_and_freed_when_its_last_request_is_answered(service, runtime):
    runtime.may_go.clear()
    working = asyncio.create_task(classify(service))
    await until(lambda: service.busy_s > 0)
    unloading = asyncio.create_task(service.registry.unload("toy"))
    await asyncio.sleep(0)
    for name in ("toy", None):
        with pytest.raises(UnknownModel):
            service.registry.resolve(name)
    await asyncio.sleep(0.02)
    assert not unloading.done()
    runtime.may_go.set()
    assert (await working).labels[0].label == "red"
    await unloading
    assert loaded_in(service) == set()


async def test_unloading_an_unknown_model_is_refused(service):
    with pytest.raises(UnknownModel, match='"nope"; allowed: toy'):
        await service.registry.unload("nope")


async def test_the_backlog_of_a_replaced_version_still_counts(service, models, second, source, runtime):
    runtime.may_go.clear()
    working = asyncio.create_task(classify(service))
    await until(lambda: service.busy_s > 0)
    old = service.registry.resolve()
    queue = old.queues["classify"]
    queue._forecast = replace(queue._forecast, latency=replace(queue._forecast.latency, batch_s=60.0))
    models["toy"] = second
    loading = asyncio.create_task(service.registry.load(source))
    await asyncio.sleep(0.02)
    assert service.predicted_wait_s > 0
    runtime.may_go.set()
    await asyncio.gather(working, loading)
    assert service.predicted_wait_s == 0


async def test_a_service_ends_while_an_old_version_is_in_use(settings, models, second, source):
    settings = settings.model_copy(update={"bundles": (source,)})
    service = Service(settings, Metrics(), ThreadSupervisor(settings, models))
    async with service.running():
        models["toy"] = second
        with service.registry.use("toy") as old:
            loading = asyncio.create_task(service.registry.load(source))
            await until(lambda: service.registry.resolve("toy") is not old)
            await service.registry.__aexit__(None, None, None)
        await loading


# --- worker processes ---

linux = pytest.mark.skipif(sys.platform != "linux", reason="sends signals to worker processes")


@asynccontextmanager
async def worker_processes(bundle, **changed):
    options = {"bundles": (BundleSource("shapes", bundle),), "workers": 2, "request_timeout_ms": 600_000, **changed}
    settings = Settings(inference_threads=1, **options)
    supervisor = ProcessSupervisor(settings)
    service = Service(settings, Metrics(), supervisor)
    async with service.running():
        yield service, supervisor


async def has(worker, ref):
    """Return whether a worker process has a model."""
    try:
        await worker.compute(ref, "classify", [], 1.0)
    except BatchFailed:
        return False
    return True


async def loaded(supervisor, ref):
    return [await has(worker, ref) for worker in supervisor.pool.workers]


@linux
async def test_a_gradual_load_replaces_the_version_without_losing_a_request(tiny_bundle, bundle_copy):
    async with worker_processes(tiny_bundle) as (service, supervisor):
        over, answers = asyncio.Event(), []

        async def send_requests():
            while not over.is_set():
                answers.append((await classify(service)).model)

        clients = [asyncio.create_task(send_requests()) for _ in range(4)]
        deployment = await service.registry.load(BundleSource("shapes", bundle_copy), gradually=True)
        during = len(answers)
        over.set()
        await asyncio.gather(*clients)
        assert during > 0
        assert await loaded(supervisor, "shapes#1") == [False, False]
        assert await loaded(supervisor, deployment.ref) == [True, True]
        assert supervisor.pool.idle == 2  # none is paused any more


@linux
async def test_a_version_that_a_worker_cannot_load_is_in_no_worker(tiny_bundle, bundle_copy):
    (bundle_copy / "weights.safetensors").unlink()
    async with worker_processes(tiny_bundle) as (service, supervisor):
        for gradually in (True, False):
            with pytest.raises(BundleError, match=r"weights\.safetensors"):
                await service.registry.load(BundleSource("shapes", bundle_copy), gradually=gradually)
        assert (await classify(service)).labels
        for ref in ("shapes#2", "shapes#3"):
            assert await loaded(supervisor, ref) == [False, False]


@linux
async def test_a_restarted_worker_has_all_models_that_are_deployed_by_then(tiny_bundle, bundle_copy):
    async with worker_processes(tiny_bundle) as (service, supervisor):
        await service.registry.load(BundleSource("late", bundle_copy))
        await service.registry.load(BundleSource("gone", bundle_copy))
        first = supervisor.pool.workers[0]
        first.process.kill()
        await until(lambda: first not in supervisor.pool.workers)
        # Both happen while the worker is restarted.
        await service.registry.unload("gone")
        added = await service.registry.load(BundleSource("added", bundle_copy))
        await until(lambda: supervisor.pool.alive == 2)
        for ref in ("shapes#1", "late#2", added.ref):
            assert await loaded(supervisor, ref) == [True, True]
        assert await loaded(supervisor, "gone#3") == [False, False]


@linux
async def test_a_worker_that_is_lost_before_it_loads_does_not_fail_the_load(tiny_bundle, bundle_copy):
    async with worker_processes(tiny_bundle) as (service, supervisor):
        first = supervisor.pool.workers[0]
        first.process.send_signal(signal.SIGSTOP)
        loading = asyncio.create_task(service.registry.load(BundleSource("late", bundle_copy)))
        await asyncio.sleep(0.05)
        first.process.kill()
        deployment = await loading
        await until(lambda: supervisor.pool.alive == 2)
        assert await loaded(supervisor, deployment.ref) == [True, True]


@linux
async def test_a_worker_that_dies_while_it_loads_fails_the_load_and_is_restarted(tiny_bundle, bundle_copy):
    async with worker_processes(tiny_bundle) as (service, supervisor):
        first, second = supervisor.pool.workers
        loading = asyncio.create_task(service.registry.load(BundleSource("late", bundle_copy)))
        await until(lambda: first._sent and first._sent[0].started)
        first.process.kill()
        with pytest.raises(BundleError, match="a worker died while it loaded the model late"):
            await loading
        assert (await classify(service)).labels
        await until(lambda: supervisor.pool.alive == 2)
        assert second in supervisor.pool.workers
        assert await loaded(supervisor, "late#2") == [False, False]


@linux
async def test_a_worker_that_hangs_while_it_loads_is_killed_and_the_old_version_serves(
    tiny_bundle, bundle_copy, monkeypatch
):
    async with worker_processes(tiny_bundle, workers=1, stall_timeout_ms=500) as (service, supervisor):
        (worker,) = supervisor.pool.workers
        with monkeypatch.context() as patched:
            patched.setattr(process, "LOADING_S", 0.05)
            loading = asyncio.create_task(service.registry.load(BundleSource("late", bundle_copy)))
            await until(lambda: worker._sent and worker._sent[0].started)
            worker.process.send_signal(signal.SIGSTOP)
            with pytest.raises(BundleError, match="the worker hung while it loaded the model late"):
                await loading
        await until(lambda: supervisor.pool.alive == 1 and worker not in supervisor.pool.workers)
        assert (await classify(service)).labels


@linux
async def test_a_bundle_that_changes_between_two_workers_is_refused(tiny_bundle, bundle_copy, monkeypatch):
    async with worker_processes(tiny_bundle) as (service, supervisor):
        _, second = supervisor.pool.workers
        load = second.load

        async def load_another(ref, source):
            loaded = await load(ref, source)
            return replace(loaded, description=replace(loaded.description, digest="cc" * 32))

        monkeypatch.setattr(second, "load", load_another)
        with pytest.raises(BundleError, match="the bundle changed while it was loaded"):
            await service.registry.load(BundleSource("late", bundle_copy), gradually=True)
        assert await loaded(supervisor, "late#2") == [False, False]
