import re

import pytest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("order-4711.retry_2", True, id="plain"),
        pytest.param("x" * 128, True, id="longest"),
        pytest.param("x" * 129, False, id="too-long"),
        pytest.param("a b", False, id="space"),
        pytest.param("{}", False, id="punctuation"),
        pytest.param("", False, id="empty"),
    ],
)
async def test_a_callers_request_id_is_kept_when_it_is_plain(client, given, kept):
    answer = await client.get("/livez", headers={"X-Request-Id": given})
    assert (answer.headers["X-Request-Id"] == given) is kept


async def test_a_request_without_an_id_gets_a_new_one_each_time(client):
    ids = {(await client.get("/livez")).headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


async def test_one_line_is_logged_per_request_with_what_one_asks_for_first(client, logs):
    answer = await client.post("/v1/classify", json={"text": "red"})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert (line["method"], line["route"], line["status"], line["code"]) == ("POST", "/v1/classify", 200, "ok")
    assert list(line["stages_ms"]) == ["read", "queue", "decode", "encode_text", "fuse", "write"]
    assert line["duration_ms"] >= max(line["stages_ms"].values())
    assert (line["model"], line["digest"], line["modalities"]) == ("toy", "ab" * 32, ["text"])
    assert line["request_bytes"] == len(answer.request.content)
    assert line["response_bytes"] == len(answer.content)


async def test_a_refused_example_tells_how_far_it_came(client, logs):
    answer = await client.post("/v1/classify", json={"text": "\0"})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["status"], line["code"], line["modalities"]) == (422, "undecodable", ["text"])
    assert list(line["stages_ms"]) == ["read", "queue", "decode", "write"]
    assert answer.headers["Server-Timing"].startswith("read;dur=")


async def test_a_batchs_line_tells_how_many_and_the_longest_of_each_stage(client, logs):
    await client.post("/v1/classify/batch", json={"items": [{"text": "red"}, {"text": "blue"}, {"image": "?"}]})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["items"], line["modalities"], line["model"]) == (3, ["text"], "toy")
    assert set(line["stages_ms"]) == {"read", "queue", "decode", "encode_text", "fuse", "write"}


async def test_bytes_that_were_declared_but_never_read_do_not_count(client, logs):
    headers = {"Content-Type": "application/json", "Content-Length": "999999999"}
    answer = await client.post("/v1/classify", content=b"{}", headers=headers)
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (answer.status_code, line["code"], line["request_bytes"]) == (413, "too_many_bytes", 0)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("given", "known"),
    [
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-01", True, id="sampled"),
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-00", True, id="not-sampled"),
        pytest.param(f"01-{TRACE}-00f067aa0ba902b7-01-more", True, id="of-a-later-version"),
        pytest.param(f"00-{TRACE}-00f067aa0ba902b7-01-more", False, id="too-long"),
        pytest.param(f"ff-{TRACE}-00f067aa0ba902b7-01", False, id="of-no-version"),
        pytest.param(f"00-{'0' * 32}-00f067aa0ba902b7-01", False, id="no-trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="no-parent"),
        pytest.param(f"00-{TRACE.upper()}-00f067aa0ba902b7-01", False, id="capitals"),
        pytest.param("rubbish", False, id="rubbish"),
    ],
)
async def test_the_trace_that_a_caller_names_stands_in_the_log(client, logs, given, known):
    await client.post("/v1/classify", json={"text": "red"}, headers={"traceparent": given})
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line.get("trace_id") == (TRACE if known else None)


async def test_the_log_does_not_repeat_what_clients_send(client, logs):
    await client.post("/v1/classify", json={"text": "my secret diary"})
    assert "diary" not in str(logs)
