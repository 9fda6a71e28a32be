import asyncio

import httpx
import pytest

from polymodal.app.main import create_app
from polymodal.app.probes import PROBES
from polymodal.app.serving.service import State


async def statuses(client) -> list[int]:
    """Return the statuses of livez, startupz, readyz and healthz."""
    return [(await client.get(probe)).status_code for probe in PROBES]


async def test_a_ready_service_passes_every_probe(client):
    assert await statuses(client) == [200] * 4
    assert (await client.get("/readyz")).json() == {"status": "ok", "state": "ready", "models": ["toy"]}


async def test_before_its_models_are_loaded_only_livez_passes(settings, predictor):
    app = create_app(settings, {"toy": predictor})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        assert await statuses(client) == [200, 503, 503, 503]
        refusals = [await client.post("/v1/classify", json={"text": "red"})]
        refusals += [await client.get(route) for route in ("/v1/models", "/v1/models/toy")]
    for refusal in refusals:
        assert (refusal.status_code, refusal.json()["code"], refusal.headers["Retry-After"]) == (503, "not_ready", "1")


async def test_while_draining_only_readiness_fails(client):
    service = client._transport.app.state.service
    assert await service.drain(1)
    assert service.state is State.DRAINING
    assert await statuses(client) == [200, 200, 503, 503]
    answer = await client.get("/readyz")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == "the service is draining; allowed: requests while it is ready"


async def test_a_hung_inference_worker_fails_liveness_and_readiness(serving, runtime):
    async with serving(stall_timeout_ms=100, request_timeout_ms=50) as client:
        runtime.may_go.clear()
        await client.post("/v1/classify", json={"text": "red"})
        await asyncio.sleep(0.5)  # longer than 100 ms, because the computation may start late on a busy machine
        assert await statuses(client) == [503, 200, 503, 503]
        assert (await client.get("/livez")).json()["code"] == "stalled"
        runtime.may_go.set()


async def test_while_a_batch_takes_far_longer_than_predicted_only_readiness_fails(serving, runtime):
    async with serving() as client:

        async def ready():
            return (await client.get("/readyz")).status_code

        runtime.may_go.clear()
        hanging = asyncio.create_task(client.post("/v1/classify", json={"text": "red"}))
        for _ in range(200):
            if await ready() == 503:
                break
            await asyncio.sleep(0.05)
        assert await statuses(client) == [200, 200, 503, 503]
        assert "without a worker that answers" in (await client.get("/readyz")).json()["detail"]
        refused = await client.post("/v1/classify", json={"text": "red"})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        runtime.may_go.set()
        assert (await hanging).status_code == 200
        assert await ready() == 200


@pytest.mark.parametrize("probe", PROBES)
async def test_probes_are_logged_at_debug_level(client, logs, probe):
    await client.get(probe)
    assert logs[-1]["log_level"] == "debug"
