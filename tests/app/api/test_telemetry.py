import re

import pytest


@pytest.mark.parametrize(
    ("request_id", "kept"),
    [
        pytest.param("order-4711.retry_2", True, id="plain"),
        pytest.param("x" * 128, True, id="longest"),
        pytest.param("x" * 129, False, id="too-long"),
        pytest.param("a b", False, id="space"),
        pytest.param("{}", False, id="punctuation"),
        pytest.param("", False, id="empty"),
    ],
)
async def test_a_clients_request_id_is_kept_if_it_is_safe_to_log(client, request_id, kept):
    answer = await client.get("/livez", headers={"X-Request-Id": request_id})
    assert (answer.headers["X-Request-Id"] == request_id) is kept


async def test_a_request_without_an_id_gets_a_new_one_each_time(client):
    ids = {(await client.get("/livez")).headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)


async def test_one_line_is_logged_per_request(client, logs):
    answer = await client.post("/v1/classify", json={"text": "red"})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert (line["method"], line["route"], line["status"], line["code"]) == ("POST", "/v1/classify", 200, "ok")
    assert list(line["stages_ms"]) == ["read", "queue", "decode", "encode_text", "fuse", "write"]
    assert line["duration_ms"] >= max(line["stages_ms"].values())
    assert (line["model"], line["digest"], line["modalities"]) == ("toy", "ab" * 32, ["text"])
    assert line["request_bytes"] == len(answer.request.content)
    assert line["response_bytes"] == len(answer.content)


async def test_the_line_of_a_rejected_item_has_the_stages_that_it_passed(client, logs):
    answer = await client.post("/v1/classify", json={"text": "\0"})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["status"], line["code"], line["modalities"]) == (422, "undecodable", ["text"])
    assert list(line["stages_ms"]) == ["read", "queue", "decode", "write"]
    assert answer.headers["Server-Timing"].startswith("read;dur=")


async def test_the_line_of_a_batch_has_its_number_of_items_and_its_stages(client, logs):
    await client.post("/v1/classify/batch", json={"items": [{"text": "red"}, {"text": "blue"}, {"image": "?"}]})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["items"], line["modalities"], line["model"]) == (3, ["text"], "toy")
    assert set(line["stages_ms"]) == {"read", "queue", "decode", "encode_text", "fuse", "write"}


async def test_declared_bytes_that_are_not_read_are_not_counted(client, logs):
    headers = {"Content-Type": "application/json", "Content-Length": "999999999"}
    answer = await client.post("/v1/classify", content=b"{}", headers=headers)
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (answer.status_code, line["code"], line["request_bytes"]) == (413, "too_many_bytes", 0)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-01", True, id="sampled"),
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-00", True, id="not-sampled"),
        pytest.param(f"01-{TRACE}-00f067aa0ba902b7-01-more", True, id="later-version"),
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-01-more", False, id="too-long"),
        pytest.param(f"ff-{TRACE}-00f067aa0ba902b7-01", False, id="invalid-version"),
        pytest.param(f"00-{'0' * 32}-00f067aa0ba902b7-01", False, id="no-trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="no-parent"),
        pytest.param(f"00-{TRACE.upper()}-00f067aa0ba902b7-01", False, id="capitals"),
        pytest.param("rubbish", False, id="rubbish"),
    ],
)
async def test_the_trace_of_a_client_is_logged(client, logs, traceparent, valid):
    await client.post("/v1/classify", json={"text": "red"}, headers={"traceparent": traceparent})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line.get("trace_id") == (TRACE if valid else None)


async def test_inputs_are_not_logged(client, logs):
    await client.post("/v1/classify", json={"text": "my secret diary"})
    assert "diary" not in str(logs)
