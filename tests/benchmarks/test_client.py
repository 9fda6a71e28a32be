"""Which result the client of make chaos and make soak reports for a response."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from benchmarks.client import Client, Request, Result

REQUEST = Request(b"body", scores={"red": 0.7, "green": 0.3})


def response(status: int, content: object, request_id: str, **headers: str) -> bytes:
    body = json.dumps(content).encode()
    media_type = "application/json" if status == 200 else "application/problem+json"
    headers = {"Content-Type": media_type, "Content-Length": str(len(body)), "X-Request-Id": request_id} | headers
    lines = [f"HTTP/1.1 {status} -", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def scores(red: float, request_id: str) -> bytes:
    labels = [{"label": "red", "score": red}, {"label": "green", "score": round(1 - red, 6)}]
    return response(200, {"labels": labels}, request_id)


def problem(status: int, request_id: str, instance: str | None = None, **headers: str) -> bytes:
    return response(status, {"instance": instance or request_id}, request_id, **headers)


@asynccontextmanager
async def listening(respond):
    """Yield the port of a server that writes `respond(request_id)` to every connection and closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request_id = head.decode().partition("X-Request-Id: ")[2].partition("\r\n")[0]
        await reader.readexactly(len(REQUEST.body))
        writer.write(respond(request_id))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("respond", "result"),
    [
        pytest.param(lambda name: scores(0.7, name), Result.RIGHT, id="right"),
        pytest.param(lambda name: scores(0.7005, name), Result.RIGHT, id="last-digits-of-a-batch"),
        pytest.param(lambda name: scores(0.6, name), Result.WRONG, id="scores-of-another-body"),
        pytest.param(lambda name: scores(0.7, "another"), Result.WRONG, id="id-of-another-request"),
        pytest.param(lambda name: problem(429, name, Retry_After="1"), Result.REFUSED, id="overloaded"),
        pytest.param(lambda name: problem(503, name, Retry_After="1"), Result.REFUSED, id="not-ready"),
        pytest.param(lambda name: problem(503, name), Result.WRONG, id="no-retry-after"),
        pytest.param(lambda name: problem(500, name), Result.FAILED, id="failed"),
        pytest.param(lambda name: problem(504, name), Result.FAILED, id="too-late"),
        pytest.param(lambda name: problem(500, name, "another"), Result.WRONG, id="problem-of-another-request"),
        pytest.param(lambda name: problem(422, name), Result.WRONG, id="good-body-rejected"),
        pytest.param(lambda name: b"", Result.LOST, id="no-response"),
        pytest.param(lambda name: scores(0.7, name)[:-5], Result.LOST, id="half-a-response"),
    ],
)
async def test_a_response_has_its_result(respond, result):
    async with listening(respond) as port:
        client = Client([port])
        assert await client.send(REQUEST) is result
    assert client.tally.results == {result: 1}
    assert bool(client.tally.errors) == (result in (Result.LOST, Result.WRONG))


async def test_a_refused_or_terminating_port_is_skipped_for_the_next_one():
    async with (
        listening(lambda name: problem(503, name, Retry_After="20")) as terminating,
        listening(lambda name: scores(0.7, name)) as staying,
    ):
        async with listening(lambda name: b"") as closed:
            pass
        client = Client([closed, terminating, staying])
        assert await client.send(REQUEST) is Result.RIGHT
    assert client.tally.retries == 2


@pytest.mark.parametrize(
    ("log", "result"), [("", Result.RIGHT), ('{{"request_id": "{}"}}', Result.LOST)], ids=["unread", "read"]
)
async def test_only_a_request_that_a_terminating_service_never_read_is_sent_again(log, result):
    seen: list[str] = []
    async with (
        listening(lambda name: seen.append(name) or b"") as terminating,
        listening(lambda name: scores(0.7, name)) as staying,
    ):
        client = Client([terminating, staying])
        client.terminating[terminating] = lambda: log.format(seen[0]).encode()
        assert await client.send(REQUEST) is result
    assert client.tally.unread == (result is Result.RIGHT)
