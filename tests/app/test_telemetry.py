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
    assert set(line["stages_ms"]) == {"read", "decode", "queue", "predict"}
    assert line["duration_ms"] > 0


async def test_the_log_does_not_repeat_what_clients_send(client, logs):
    await client.post("/v1/classify", json={"text": "my secret diary"})
    assert "diary" not in str(logs)
