import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROUTE = {"http_request_method": "POST", "http_route": "/v1/classify"}


class Scrape:
    """The samples of an answer of /metrics."""

    def __init__(self, text):
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def __call__(self, name, **labels):
        (value,) = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return value

    def labels(self, name):
        return [sample.labels for sample in self.samples if sample.name == name]


async def scrape(client):
    return Scrape((await client.get("/metrics")).text)


@pytest.mark.parametrize(
    ("method", "route", "status", "error"),
    [
        ("POST", "/v1/classify", "200", ""),
        ("POST", "/v1/classify", "422", "undecodable"),
        ("GET", "/v1/models/{name}", "404", "unknown_model"),
        ("_OTHER", "unmatched", "404", "not_found"),
    ],
)
async def test_requests_are_counted_by_route_status_and_code(client, method, route, status, error):
    await client.post("/v1/classify", json={"text": "red"})
    await client.post("/v1/classify", json={"text": "\0"})
    await client.get("/v1/models/nope")
    await client.request("PROPFIND", "/etc/passwd")
    metrics = await scrape(client)
    labels = {"http_request_method": method, "http_route": route, "http_response_status_code": status}
    assert metrics("http_server_request_duration_seconds_count", error_type=error, **labels) == 1


async def test_bodies_are_measured_and_active_requests_are_counted(client):
    answer = await client.post("/v1/classify", json={"text": "red"})
    metrics = await scrape(client)
    assert metrics("http_server_request_body_size_bytes_sum", **ROUTE) == len(answer.request.content)
    assert metrics("http_server_response_body_size_bytes_sum", **ROUTE) == len(answer.content)
    assert metrics("http_server_active_requests", http_request_method="POST") == 0
    assert metrics("http_server_active_requests", http_request_method="GET") == 1  # the scrape itself


async def test_stages_batches_queue_refusals_and_bundles_are_measured(client):
    await client.post("/v1/classify", json={"text": "red"})
    await client.post("/v1/classify/batch", json={"items": [{"text": "red"}, {"image": "?"}]})
    await client.post("/v1/classify", content=b"?", headers={"Content-Type": "application/json"})
    metrics = await scrape(client)
    for stage, count in {"read": 2, "queue": 2, "decode": 2, "encode_text": 2, "fuse": 2, "write": 2}.items():
        assert metrics("polymodal_stage_duration_seconds_count", model="toy", stage=stage) == count
    assert metrics("polymodal_stage_duration_seconds_count", model="", stage="read") == 1
    assert metrics("polymodal_batch_items_sum", model="toy") == 2
    assert metrics("polymodal_batch_predicted_seconds_count", model="toy") == 2
    took = metrics("polymodal_batch_duration_seconds_sum", model="toy")
    assert took == pytest.approx(metrics("polymodal_worker_busy_seconds_total"))
    assert took > 0
    assert metrics("polymodal_queue_length") == metrics("polymodal_queue_predicted_wait_seconds") == 0
    assert metrics("polymodal_refusals_total", reason="malformed_body") == 2
    assert metrics("polymodal_bundle_info", digest="ab" * 32, runtime="arithmetic", model="toy") == 1


async def test_an_embedding_has_stages_but_no_predictions(client):
    await client.post("/v1/embed", json={"text": "red"})
    await client.post("/v1/embed/batch", json={"items": [{"text": "red"}, {"text": "\0"}]})
    metrics = await scrape(client)
    for stage, count in {"read": 2, "queue": 3, "decode": 3, "encode_text": 2, "write": 2}.items():
        assert metrics("polymodal_stage_duration_seconds_count", model="toy", stage=stage) == count
    assert "fuse" not in {labels["stage"] for labels in metrics.labels("polymodal_stage_duration_seconds_count")}
    assert metrics("polymodal_refusals_total", reason="undecodable") == 1
    assert metrics("http_server_request_duration_seconds_count", http_route="/v1/embed") == 1
    assert metrics("http_server_request_duration_seconds_count", http_route="/v1/embed/batch") == 1
    for name in ("predictions_total", "prediction_score_count", "prediction_entropy_ratio_count"):
        assert metrics.labels(f"polymodal_{name}") == []


async def test_predictions_are_counted(client, solid):
    for fields in ({"image": solid("red"), "text": (None, "red")}, {"image": solid("red")}, {"text": (None, "blue")}):
        await client.post("/v1/classify", files=fields)
    metrics = await scrape(client)
    for label, modalities in (("red", "image+text"), ("red", "image"), ("blue", "text")):
        assert metrics("polymodal_predictions_total", model="toy", label=label, modalities=modalities) == 1
    # Logits (2, 0, 0) once, (1, 0, 0) twice.
    best = [math.exp(logit) / (math.exp(logit) + 2) for logit in (2, 1, 1)]
    assert metrics("polymodal_prediction_score_sum", model="toy") == pytest.approx(sum(best), abs=1e-4)
    entropies = [-(p * math.log(p) + (1 - p) * math.log((1 - p) / 2)) / math.log(3) for p in best]
    assert metrics("polymodal_prediction_entropy_ratio_sum", model="toy") == pytest.approx(sum(entropies), abs=1e-3)


async def test_every_selected_label_of_a_multi_label_model_is_counted(serving, make):
    async with serving({"tags": make("tags", task="multi-label")}) as client:
        for text in ("red red red green green green", "nothing"):
            await client.post("/v1/classify", json={"text": text})
        metrics = await scrape(client)
    for label, count in {"red": 1, "green": 2, "": 0}.items():
        counted = [labels["label"] for labels in metrics.labels("polymodal_predictions_total")]
        assert (label in counted) is bool(count)
        assert not count or metrics("polymodal_predictions_total", label=label) == count


async def test_a_regression_is_counted_without_a_label(serving, make):
    async with serving({"price": make("price", task="regression")}) as client:
        await client.post("/v1/classify", json={"text": "red"})
        metrics = await scrape(client)
    assert metrics("polymodal_predictions_total", model="price", label="", modalities="text") == 1
    assert metrics.labels("polymodal_prediction_score_count") == []


async def test_the_state_and_resources_of_the_service_are_measured(client):
    metrics = await scrape(client)
    assert metrics("polymodal_ready") == 1
    assert metrics("polymodal_workers") == metrics("polymodal_workers_wanted") == 1
    assert metrics("polymodal_processor_seconds_total", process="server") > 0
    assert metrics("polymodal_resident_memory_bytes", process="server") > 2**20
    (build,) = metrics.labels("polymodal_build_info")
    assert {"version", "python"} <= set(build)


async def test_the_build_info_has_the_revision_if_it_is_set(serving):
    async with serving(revision="1a2b3c") as client:
        assert (await scrape(client))("polymodal_build_info", revision="1a2b3c") == 1


async def test_while_draining_the_service_is_not_ready(client):
    service = client._transport.app.state.service
    await service.drain(1)
    assert (await scrape(client))("polymodal_ready") == 0


async def test_counters_have_no_series_with_their_creation_time(client):
    assert "_created" not in (await client.get("/metrics")).text


async def test_two_applications_have_separate_metrics(serving, client):
    await client.get("/livez")
    async with serving() as other:
        assert not [sample for sample in (await scrape(other)).samples if "/livez" in sample.labels.values()]


@pytest.mark.parametrize("path", ["/a", "/b", "/v1/classify/nope"])
async def test_unknown_paths_share_one_time_series(client, path):
    await client.get(path)
    assert not any(path in sample.labels.values() for sample in (await scrape(client)).samples)
