"""The client of make chaos and make soak: what it calls right, refused, failed, lost and wrong."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from benchmarks.asking import Client, Fate, Question

RIGHT = {"red": 0.7, "green": 0.3}


def answer(status: int, content: object, request_id: str, **headers: str) -> bytes:
    body = json.dumps(content).encode()
    kind = "application/json" if status == 200 else "application/problem+json"
    told = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Request-Id": request_id} | headers
    lines = [f"HTTP/1.1 {status} -", *(f"{name.replace('_', '-')}: {value}" for name, value in told.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def scores(red: float, request_id: str) -> bytes:
    labels = [{"label": "red", "score": red}, {"label": "green", "score": round(1 - red, 6)}]
    return answer(200, {"labels": labels}, request_id)


def problem(status: int, request_id: str, instance: str | None = None, **headers: str) -> bytes:
    return answer(status, {"instance": instance or request_id}, request_id, **headers)


@asynccontextmanager
async def listening(respond):
    """A port whose every connection is answered with what `respond` makes of a request's id, and closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request_id = head.decode().partition("X-Request-Id: ")[2].partition("\r\n")[0]
        await reader.readexactly(len(b"question"))
        writer.write(respond(request_id))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("respond", "fate"),
    [
        pytest.param(lambda name: scores(0.7, name), Fate.RIGHT, id="right"),
        pytest.param(lambda name: scores(0.7005, name), Fate.RIGHT, id="last-digits-of-a-batch"),
        pytest.param(lambda name: scores(0.6, name), Fate.WRONG, id="scores-of-another-body"),
        pytest.param(lambda name: scores(0.7, "another"), Fate.WRONG, id="answer-to-another-request"),
        pytest.param(lambda name: problem(429, name, Retry_After="1"), Fate.REFUSED, id="overloaded"),
        pytest.param(lambda name: problem(503, name, Retry_After="1"), Fate.REFUSED, id="not-ready"),
        pytest.param(lambda name: problem(503, name), Fate.WRONG, id="refused-without-saying-when-to-come-back"),
        pytest.param(lambda name: problem(500, name), Fate.FAILED, id="failed"),
        pytest.param(lambda name: problem(504, name), Fate.FAILED, id="too-late"),
        pytest.param(lambda name: problem(500, name, "another"), Fate.WRONG, id="problem-of-another-request"),
        pytest.param(lambda name: problem(422, name), Fate.WRONG, id="good-body-called-bad"),
        pytest.param(lambda name: b"", Fate.LOST, id="no-answer"),
        pytest.param(lambda name: scores(0.7, name)[:-5], Fate.LOST, id="half-an-answer"),
    ],
)
async def test_every_answer_has_its_name(respond, fate):
    async with listening(respond) as port:
        client = Client([port])
        assert await client.ask(Question(b"question", right=RIGHT)) is fate
    assert client.tally.fates == {fate: 1}
    assert bool(client.tally.odd) == (fate in (Fate.LOST, Fate.WRONG))


async def test_who_refuses_or_is_leaving_is_left_for_another_one():
    async with (
        listening(lambda name: problem(503, name, Retry_After="20")) as leaving,
        listening(lambda name: scores(0.7, name)) as staying,
    ):
        async with listening(lambda name: b"") as gone:
            pass
        client = Client([gone, leaving, staying])
        assert await client.ask(Question(b"question", right=RIGHT)) is Fate.RIGHT
    assert client.tally.retries == 2


@pytest.mark.parametrize(
    ("log", "fate"), [("", Fate.RIGHT), ('{{"request_id": "{}"}}', Fate.LOST)], ids=["unread", "read"]
)
async def test_what_a_leaving_service_never_read_may_be_asked_again_but_nothing_else(log, fate):
    seen: list[str] = []
    async with (
        listening(lambda name: seen.append(name) or b"") as leaving,
        listening(lambda name: scores(0.7, name)) as staying,
    ):
        client = Client([leaving, staying])
        client.leaving[leaving] = lambda: log.format(seen[0]).encode()
        assert await client.ask(Question(b"question", right=RIGHT)) is fate
    assert client.tally.unread == (fate is Fate.RIGHT)
