"""Attempts, pauses and errors of a call, without a connection, on a clock that the test sets."""

import json

import pytest

from polymodal_client import (
    ConnectionFailed,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Item,
    Overloaded,
    Retries,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from polymodal_client.calls import classify, health, pack
from polymodal_client.exchange import Exchange, Lost, Pause, Reply, Send
from tests.client.toy_service import ANSWER
from tests.clock import Clock

RED = classify().call(Item(text="red"))


def reply(status=200, document=ANSWER, **headers):
    fields = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Reply(status, fields, document if isinstance(document, bytes) else json.dumps(document).encode())


def problem(status, code, **headers):
    return reply(
        status, {"type": f"urn:{code}", "title": code, "status": status, "detail": "why", "code": code}, **headers
    )


def run(steps, replies, clock=None):
    """Run the steps; return what was sent, the pauses, and the answer or the error."""
    sent, pauses, received, left = [], [], None, list(replies)
    try:
        while True:
            step = steps.send(received)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                received = None
                if clock:
                    clock.now += step.seconds
            else:
                assert isinstance(step, Send)
                sent.append(step)
                received = left.pop(0)
    except StopIteration as end:
        result = end.value
    except Exception as error:  # noqa: BLE001 — it is the result
        result = error
    assert not left, "not all replies were used"
    return sent, pauses, result


@pytest.fixture
def clock():
    return Clock(100.0)


@pytest.fixture
def exchange(clock):
    return Exchange(10.0, Retries(attempts=3), {"Authorization": "Bearer k"}, clock)


def test_an_answer_is_typed_and_has_the_id_of_its_request(exchange):
    sent, pauses, answer = run(exchange.perform(RED, "mine-1"), [reply(x_request_id="mine-1")])
    assert (answer.best.label, answer.best.score, answer.request_id) == ("red", 0.5, "mine-1")
    assert sent[0].headers == {
        "Authorization": "Bearer k",
        "X-Request-Id": "mine-1",
        "X-Request-Timeout-Ms": "10000",
    }
    assert not pauses


@pytest.mark.parametrize(
    "busy", [problem(429, "overloaded", retry_after="2"), problem(503, "not_ready", retry_after="2")]
)
def test_a_busy_service_gets_a_retry_after_the_time_that_it_returned(exchange, clock, busy):
    sent, pauses, answer = run(exchange.perform(RED), [busy, busy, reply()], clock)
    assert answer.best.label == "red"
    assert len(pauses) == 2
    assert all(2 <= pause <= 2.5 for pause in pauses)
    assert len({step.headers["X-Request-Id"] for step in sent}) == 1  # one id for all attempts, as in the log
    left = [int(step.headers["X-Request-Timeout-Ms"]) for step in sent]
    assert left[0] == 10_000
    assert left == sorted(left, reverse=True)
    assert left[1] <= 8_000


def test_a_broken_connection_gets_a_retry(exchange):
    sent, pauses, answer = run(exchange.perform(RED), [Lost("no connection", in_time=True), reply()])
    assert answer.best.label == "red"
    assert (len(sent), len(pauses)) == (2, 1)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        pytest.param(problem(400, "malformed_body"), InvalidRequest, id="400"),
        pytest.param(problem(500, "internal_error"), InternalError, id="500"),
        pytest.param(problem(504, "deadline_exceeded"), DeadlineExceeded, id="504"),
        pytest.param(reply(502, b"<html>bad gateway</html>"), UnexpectedAnswer, id="502"),
        pytest.param(Lost("no answer in time", in_time=False), TimedOut, id="time"),
    ],
)
def test_errors_that_would_recur_get_no_retry(exchange, response, error):
    sent, pauses, result = run(exchange.perform(RED, "r1"), [response])
    assert isinstance(result, error)
    assert (len(sent), len(pauses)) == (1, 0)


def test_after_the_last_attempt_its_error_is_raised(exchange):
    sent, _, result = run(exchange.perform(RED), [Lost("no connection", in_time=True)] * 3)
    assert isinstance(result, ConnectionFailed)
    assert str(result) == "POST /v1/classify: no connection"
    assert result.request_id == sent[0].headers["X-Request-Id"]


def test_a_pause_beyond_the_timeout_fails_at_once(exchange):
    sent, pauses, result = run(exchange.perform(RED), [problem(429, "overloaded", retry_after="11")])
    assert isinstance(result, Overloaded)
    assert result.retry_after == 11
    assert (len(sent), pauses) == (1, [])


def test_nothing_is_sent_after_the_timeout(exchange, clock):
    steps = exchange.perform(RED)
    next(steps)
    assert isinstance(steps.send(Lost("no connection", in_time=True)), Pause)
    clock.now += 60
    with pytest.raises(TimedOut, match="no answer within 10 s"):
        steps.send(None)


def test_a_probe_gets_no_retry(exchange):
    sent, _, result = run(exchange.perform(health("ready")), [problem(503, "not_ready", retry_after="1")])
    assert isinstance(result, Unavailable)
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("response", "message"),
    [
        pytest.param(reply(200, b"<html>hello</html>", content_type="text/html"), "<html>hello", id="html"),
        pytest.param(reply(200, b""), "status 200", id="empty"),
        pytest.param(reply(200, []), "status 200", id="a-list"),
        pytest.param(reply(200, {"model": "toy"}), "toy", id="half-an-answer"),
        pytest.param(reply(200, ANSWER | {"labels": 5}), "status 200", id="no-labels"),
        pytest.param(reply(200, b"[" * 100_000), "status 200", id="deep"),
        pytest.param(reply(302, b"", location="https://other.example/"), "https://other.example/", id="redirection"),
        pytest.param(reply(418, b"\xff\x00 teapot"), "teapot", id="teapot"),
    ],
)
def test_an_answer_of_another_service_is_unexpected(exchange, response, message):
    _, _, result = run(exchange.perform(RED), [response])
    assert isinstance(result, UnexpectedAnswer)
    assert message in str(result)
    assert len(str(result)) < 400


@pytest.mark.parametrize("wrong", ["", "with space", "a" * 129, "ä", "a\nb"])
def test_an_id_that_the_service_would_replace_is_rejected(exchange, wrong):
    with pytest.raises(ValueError, match="request_id"):
        next(exchange.perform(RED, wrong))


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_an_impossible_timeout_is_rejected(seconds):
    with pytest.raises(ValueError, match="timeout"):
        Exchange(seconds)


# --- batches ---

ITEMS = [pack(number, Item(text=f"text {number}", id=f"id-{number}")) for number in range(4)]


def answers(*items):
    return reply(200, {"items": [{"index": number, **item} for number, item in enumerate(items)]})


FINE = {"status": 200, "classification": ANSWER}


def bad(status, code):
    return {"status": status, "problem": {"status": status, "code": code, "detail": "why"}}


def texts(step):
    return [item["text"] for item in step.call.json["items"]]


def test_a_batch_that_is_too_large_is_sent_in_halves(exchange):
    sent, _, result = run(
        exchange.perform_batch(classify(top_k=1), ITEMS),
        [
            problem(422, "too_many_items"),
            answers(FINE, FINE),
            problem(413, "too_many_bytes"),
            answers(FINE),
            answers(FINE),
        ],
    )
    assert [texts(step) for step in sent][1:] == [
        ["text 0", "text 1"],
        ["text 2", "text 3"],
        ["text 2"],
        ["text 3"],
    ]
    assert [(answer.index, answer.id) for answer in result] == [(number, f"id-{number}") for number in range(4)]
    assert {step.call.json["top_k"] for step in sent} == {1}


def test_a_single_item_that_is_too_large_is_an_error(exchange):
    _, _, result = run(exchange.perform_batch(classify(), ITEMS[:1]), [problem(413, "too_many_bytes")])
    assert isinstance(result, InvalidRequest)


def test_items_that_were_not_computed_are_retried_once(exchange):
    first = answers(FINE, bad(504, "deadline_exceeded"), bad(422, "undecodable"), bad(503, "stopped"))
    sent, pauses, result = run(
        exchange.perform_batch(classify(), ITEMS), [first, answers(FINE, bad(429, "overloaded"))]
    )
    assert texts(sent[1]) == ["text 1", "text 3"]
    assert len(pauses) == 1
    assert [type(answer.error).__name__ for answer in result] == ["NoneType", "NoneType", "InvalidInput", "Overloaded"]
    assert [answer.index for answer in result] == [0, 1, 2, 3]
    with pytest.raises(Overloaded):
        result[3].result()


def test_items_keep_their_errors_when_the_retry_fails(exchange):
    replies = [answers(FINE, bad(429, "overloaded")), problem(500, "internal_error")]
    _, _, result = run(exchange.perform_batch(classify(), ITEMS[:2]), replies)
    assert [answer.error and answer.error.code for answer in result] == [None, "overloaded"]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([{"index": 0, **FINE}], id="one-is-missing"),
        pytest.param([{"index": 1, **FINE}, {"index": 0, **FINE}], id="another-order"),
        pytest.param([{"index": 0, **FINE}, {"index": 1, "status": 200}], id="neither"),
    ],
)
def test_answers_that_do_not_match_the_items_are_unexpected(exchange, items):
    _, _, result = run(exchange.perform_batch(classify(), ITEMS[:2]), [reply(200, {"items": items})])
    assert isinstance(result, UnexpectedAnswer)
