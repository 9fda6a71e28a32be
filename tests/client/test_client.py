"""Both clients, against the real service and against servers that misbehave."""

import io
import time

import httpx
import pytest
from PIL import Image

from benchmarks.servers import free_port
from polymodal_client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    Forbidden,
    InvalidInput,
    InvalidRequest,
    Item,
    Overloaded,
    RateLimited,
    Retries,
    TimedOut,
    Unauthorized,
    UnexpectedAnswer,
    UnknownModel,
)
from tests.client.toy_service import ANSWER, answering, problem

ONCE = Retries(attempts=1)


def ok(**changed):
    return httpx.Response(200, json=ANSWER | changed)


# --- the real service ---


async def test_the_async_client_calls_the_real_application(serving, solid):
    async with (
        serving() as inside,
        AsyncClient("http://service", transport=inside._transport) as client,
    ):
        answer = await client.classify(image=solid("green"), text="red", top_k=2, request_id="mine")
        assert {entry.label for entry in answer.labels} == {"red", "green"}
        assert (answer.modalities, answer.request_id) == (("image", "text"), "mine")
        assert (await client.classify(text="blue")).best.label == "blue"
        assert (await client.models()).default == "toy"
        assert (await client.model("toy")).card == "# Toy"
        assert (await client.health()).state == "ready"
        with pytest.raises(InvalidInput) as broken:
            await client.classify(image=b"not an image")
        assert (broken.value.code, broken.value.input) == ("unsupported_format", "image")
        done = []
        answers = await client.classify_batch(
            [{"text": "red"}, Item(image=b"not an image", id="bad"), Item(text="green")],
            items_per_request=2,
            progress=lambda number, total: done.append((number, total)),
        )
    assert [answer.classification and answer.classification.best.label for answer in answers] == ["red", None, "green"]
    assert (answers[1].id, answers[1].error.code) == ("bad", "unsupported_format")
    assert sorted(done)[-1] == (3, 3)


def test_the_sync_client_calls_a_real_server(listening, solid, tmp_path):
    (tmp_path / "blue.png").write_bytes(solid("blue"))
    with listening() as service, Client(service.url) as client:
        for image in (
            tmp_path / "blue.png",
            str(tmp_path / "blue.png"),
            solid("blue"),
            io.BytesIO(solid("blue")),
            Image.new("RGB", (4, 4), "blue"),
        ):
            assert client.classify(image).best.label == "blue"
        assert client.health("live").models == ("toy",)
        assert client.models().models[0].labels == ("red", "green", "blue")
        answers = client.classify_batch(
            ({"text": colour, "id": str(number)} for number, colour in enumerate(["red", "green", "blue"] * 7)),
            items_per_request=2,
            concurrency=3,
        )
        assert [answer.result().best.label for answer in answers] == ["red", "green", "blue"] * 7
        assert [answer.id for answer in answers] == [str(number) for number in range(21)]
        with pytest.raises(UnknownModel, match="allowed: toy"):
            client.classify(text="red", model="nope")
        with pytest.raises(UnknownModel):
            client.model("nope")
        with pytest.raises(InvalidRequest, match="top_k"):
            client.classify(text="red", top_k=99)
        with pytest.raises(InvalidInput, match="nothing_given"):
            client.classify()


def test_empty_files_and_files_at_their_end_are_reported(listening, tmp_path):
    (tmp_path / "empty.png").touch()
    read = io.BytesIO(b"bytes of a file")
    read.read()
    with listening() as service, Client(service.url) as client:
        for image in (b"", tmp_path / "empty.png", read):
            with pytest.raises(InvalidInput, match="image: 0 bytes; allowed: a whole picture"):
                client.classify(image)
            (answer,) = client.classify_batch([{"image": image, "text": "red"}])
            assert (answer.error.code, answer.error.found) == ("undecodable", "0 bytes")


def test_a_missing_text_does_not_affect_other_rows(listening):
    rows = [{"text": "red"}, {"text": float("nan")}, {"text": "blue"}, {"text": "\u200b"}]
    with listening() as service, Client(service.url) as client:
        answers = client.classify_batch(rows)
    assert [answer.error.code if answer.error else answer.result().best.label for answer in answers] == [
        "red",
        "nothing_given",
        "blue",
        "nothing_given",
    ]


def test_a_multi_label_model_and_a_regression_are_read(listening, make):
    with (
        listening({"tags": make("tags", task="multi-label"), "prices": make("prices", task="regression")}) as service,
        Client(service.url) as client,
    ):
        # sigmoid(1) misses red's threshold of 0.8, sigmoid(0) reaches green's of 0.5 and misses blue's of 0.6.
        selected = {entry.label: entry.selected for entry in client.classify(text="red").labels}
        assert selected == {"red": False, "green": True, "blue": False}
        number = client.classify(text="red", model="prices")
        assert (number.value, number.labels) == (12.0, ())
        assert number.interval.coverage == pytest.approx(0.9)
        with pytest.raises(LookupError, match="a regression has a value"):
            _ = number.best
        assert set(client.model("tags").thresholds) == {"red", "green", "blue"}


def test_a_key_is_sent_and_missing_keys_and_scopes_are_reported(listening, tmp_path):
    from polymodal.app.access.keys import digest, make_record, new_key, write_keys

    key, narrow = new_key(), new_key()
    write_keys(
        tmp_path / "keys.json",
        [
            make_record("all", digest(key), ["classify", "models"], None),
            make_record("narrow", digest(narrow), ["models"], None),
        ],
    )
    with listening(api_keys_file=tmp_path / "keys.json") as service:
        with Client(service.url, api_key=key) as client:
            assert client.classify(text="red").best.label == "red"
        with Client(service.url, api_key=narrow) as client, pytest.raises(Forbidden, match="scope classify"):
            client.classify(text="red")
        with Client(service.url) as client:
            with pytest.raises(Unauthorized, match="key: none"):
                client.classify(text="red")
            with pytest.raises(Unauthorized):  # not one error for each of a thousand items
                client.classify_batch([{"text": "red"}] * 1000)
            assert client.health().state == "ready"


def test_a_rate_limited_client_waits_for_retry_after(listening):
    from polymodal.app.access.rates import Rate

    with listening(rate_limit_per_address=Rate(2, 1)) as service, Client(service.url) as client:
        started = time.monotonic()
        for _ in range(4):
            assert client.classify(text="red").best.label == "red"
        assert time.monotonic() - started > 0.9
    with (
        listening(rate_limit_per_address=Rate(1, 3600)) as service,
        Client(service.url, timeout=5) as client,
    ):
        client.classify(text="red")
        with pytest.raises(RateLimited) as limited:
            client.classify(text="red")
    assert limited.value.retry_after > 5


def test_connections_are_reused(listening):
    with listening() as service, Client(service.url) as client:
        for _ in range(5):
            client.classify(text="red")
        assert len(client._http._transport._pool.connections) == 1


def test_the_sync_client_embeds_with_a_real_server(listening, solid):
    with listening() as service, Client(service.url) as client:
        assert client.models().models[0].tasks == ("classify", "embed")
        answer = client.embed(solid("green"), "red red blue", request_id="mine")
        assert (answer.modalities, answer.aligned, answer.request_id) == (("image", "text"), False, "mine")
        assert answer.embeddings["text"] == pytest.approx((2 / 5**0.5, 0, 1 / 5**0.5), abs=1e-6)
        assert sum(number**2 for number in answer.embeddings["image"]) == pytest.approx(1, abs=1e-6)
        assert client.embed(inputs={"image": solid("green")}).vector == answer.embeddings["image"]
        rows = [{"text": "red"}, {"image": b"not an image", "id": "bad"}, {"inputs": {"text": "blue"}}]
        first, bad, last = client.embed_batch(rows, items_per_request=2)
        assert (first.result().vector, last.result().vector) == ((1, 0, 0), (0, 0, 1))
        assert (bad.id, bad.error.code) == ("bad", "unsupported_format")
        with pytest.raises(InvalidRequest, match='field "scent"; allowed: image, text, audio, space, fused, model'):
            client.embed(text="red", inputs={"scent": b"rose"})


async def test_the_async_client_embeds_with_the_real_application(serving):
    async with serving() as inside, AsyncClient("http://service", transport=inside._transport) as client:
        assert (await client.embed(text="red")).vector == (1, 0, 0)
        (answer,) = await client.embed_batch([Item(text="blue", id="a")])
        assert (answer.id, answer.result().vector) == ("a", (0, 0, 1))


# --- both clients ---


def test_a_busy_service_gets_retries(both, scripted):
    busy = scripted(problem(429, "overloaded", retry_after="0"), problem(503, "not_ready", retry_after="0"), ok())
    assert both.call(busy, "classify", text="red").best.label == "red"
    assert len(busy.seen) == 3
    assert len({request.headers["x-request-id"] for request in busy.seen}) == 1
    assert len({request.content for request in busy.seen}) == 1


def test_every_attempt_sends_the_whole_image_of_a_stream(both, scripted, solid):
    busy = scripted(problem(503, "stopped", retry_after="0"), ok())
    both.call(busy, "classify", io.BytesIO(solid("red")), "red")
    assert all(solid("red") in request.content for request in busy.seen)
    assert len(busy.seen) == 2


@pytest.mark.parametrize("retries", [Retries(), ONCE], ids=["default", "no-retries"])
def test_the_error_of_the_last_attempt_is_raised(both, scripted, retries):
    busy = scripted(problem(429, "overloaded", retry_after="0"))
    with pytest.raises(Overloaded) as overloaded:
        both.call(busy, "classify", text="red", retries=retries)
    assert overloaded.value.retry_after == 0
    assert len(busy.seen) == retries.attempts


@pytest.mark.parametrize(
    "broken",
    [httpx.ConnectError("refused"), httpx.RemoteProtocolError("disconnected"), httpx.ReadError("reset")],
    ids=lambda error: type(error).__name__,
)
def test_a_broken_connection_gets_a_retry(both, scripted, broken):
    assert both.call(scripted(broken, ok()), "classify", text="red").best.label == "red"


def test_a_failed_request_does_not_affect_the_rest_of_a_batch(both, scripted):
    one_fails = scripted(answering, problem(500, "internal_error"), answering)
    answers = both.call(one_fails, "classify_batch", [{"text": "a"}] * 3, items_per_request=1, concurrency=1)
    assert [type(answer.error).__name__ for answer in answers] == ["NoneType", "InternalError", "NoneType"]


def test_no_items_cause_no_request(both, scripted):
    service = scripted(AssertionError("sent"))
    assert both.call(service, "classify_batch", []) == []
    assert not service.seen


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"items_per_request": 0}])
def test_impossible_batch_options_are_rejected(both, scripted, wrong):
    with pytest.raises(ValueError, match="allowed: at least 1"):
        both.call(scripted(ok()), "classify_batch", [{"text": "red"}], **wrong)


@pytest.mark.parametrize("name", ["", "a/b", "../livez", "..", "a?b", "a\nb"])
def test_an_impossible_model_name_is_not_sent(both, scripted, name):
    service = scripted(AssertionError("sent"))
    with pytest.raises(ValueError, match="model: "):
        both.call(service, "model", name)


# --- servers that misbehave ---


@pytest.mark.parametrize(("call", "items"), [("classify", None), ("classify_batch", [{"text": "a"}] * 100)])
def test_a_closed_port_is_reported_at_once(both, call, items):
    with pytest.raises(ConnectionFailed, match="no connection"):
        both.call(None, call, items, url=f"http://127.0.0.1:{free_port()}", retries=ONCE)


def hang(connection, over):
    over.wait(5)


def drip(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not over.wait(0.05):
        connection.sendall(b" ")


def html(connection, over):
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<h1>It works!</h1>\r\n"
    )


def noise(connection, over):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize("talk", [hang, drip])
def test_a_slow_server_causes_a_timeout(both, raw_server, talk):
    with raw_server(talk) as url:
        started = time.monotonic()
        with pytest.raises(TimedOut):
            both.call(None, "classify", text="red", url=url, timeout=0.4)
        assert 0.3 < time.monotonic() - started < 10


def test_another_server_is_reported(both, raw_server):
    with raw_server(html) as url, pytest.raises(UnexpectedAnswer, match=r"text/html.*It works!") as unexpected:
        both.call(None, "classify", text="red", url=url)
    assert unexpected.value.status == 200
    with raw_server(noise) as url, pytest.raises(ConnectionFailed, match="the connection broke"):
        both.call(None, "classify", text="red", url=url, retries=ONCE)


@pytest.mark.parametrize("url", ["", "service:8000", "ftp://service", "http://", "http://service/?a=b", "http:///x"])
def test_an_invalid_address_is_rejected(both, url):
    with pytest.raises(ValueError, match=r"url: .*allowed: http://HOST:PORT"):
        both.kind(url)


@pytest.mark.parametrize("key", ["", "with space", "ä", "a\r\nX-Evil: 1", "k" * 300])
def test_an_invalid_key_is_rejected_without_repeating_it(both, key):
    with pytest.raises(ValueError, match="api_key: not a key") as rejected:
        both.kind("http://service", api_key=key)
    assert not key or key not in str(rejected.value)
