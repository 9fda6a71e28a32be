import pytest
from prometheus_client.parser import text_string_to_metric_families


async def samples(client):
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


async def test_requests_are_counted_by_route_status_and_code(client):
    await client.post("/v1/classify", json={"text": "red"})
    await client.post("/v1/classify", json={"text": "\0"})
    await client.get("/v1/models/nope")
    await client.request("PROPFIND", "/etc/passwd")
    found = await samples(client)
    for labels in (
        ("/v1/classify", "200", "POST", "ok"),
        ("/v1/classify", "422", "POST", "undecodable"),
        ("/v1/models/{name}", "404", "GET", "unknown_model"),
        ("404", "not_found", "other", "unmatched"),
    ):
        assert found["polymodal_requests_total", *sorted(labels)] == 1


async def test_stages_batches_queue_refusals_and_bundles_are_measured(client):
    await client.post("/v1/classify", json={"text": "red"})
    await client.post("/v1/classify/batch", json={"items": [{"text": "red"}, {"image": "?"}]})
    found = await samples(client)
    for stage, count in {"read": 2, "decode": 2, "queue": 2, "predict": 2}.items():
        assert found["polymodal_stage_duration_seconds_count", stage] == count
    assert found["polymodal_batch_items_sum",] == 2
    assert found["polymodal_queue_length",] == 0
    assert found["polymodal_refusals_total", "malformed_body"] == 1
    assert found["polymodal_bundle_info", "ab" * 32, "arithmetic", "toy"] == 1
    assert found["polymodal_request_duration_seconds_count", "/v1/classify"] == 1


async def test_two_applications_measure_apart(serving, client):
    await client.get("/livez")
    async with serving() as other:
        assert not any("/livez" in key for key in await samples(other))


@pytest.mark.parametrize("path", ["/a", "/b", "/v1/classify/nope"])
async def test_mistyped_addresses_share_one_time_series(client, path):
    await client.get(path)
    assert not any(path in key for key in await samples(client))
