"""The bodies of all requests have a common limit; their bytes are released however a request ends."""

import asyncio
import json
import socket

import pytest

JSON = {"Content-Type": "application/json"}
SMALL = {"max_body_bytes": 1000, "max_inflight_bytes": 1000}


def body_of(size: int) -> bytes:
    """Return JSON of this many bytes with the text red."""
    return json.dumps({"text": "red"}).encode().ljust(size)


class Slow:
    """A body that is sent in two halves; the second waits for `may_go`."""

    def __init__(self, size: int) -> None:
        self.size, self.read = size, 0
        self.may_go = asyncio.Event()

    async def __aiter__(self):
        content = body_of(self.size)
        self.read = self.size // 2
        yield content[: self.read]
        await self.may_go.wait()
        self.read = self.size
        yield content[self.size // 2 :]


def declared(size: int) -> dict[str, str]:
    return {**JSON, "Content-Length": str(size)}


def inflight(client) -> int:
    return client._transport.app.state.service.inflight_bytes


async def wait_for_bytes(client, size: int) -> None:
    """Wait until the bodies in the service have this size in all."""
    for _ in range(1000):
        if inflight(client) == size:
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"{inflight(client)} bytes instead of {size}")


async def test_a_declared_length_counts_before_the_body_arrives(serving):
    async with serving(**SMALL) as client:
        first, second = Slow(600), Slow(500)
        reading = asyncio.create_task(client.post("/v1/classify", content=first, headers=declared(600)))
        await wait_for_bytes(client, 600)
        refused = await client.post("/v1/classify", content=second, headers=declared(500))
        assert second.read == 0
        small = await client.post("/v1/embed", content=body_of(400), headers=JSON)
        first.may_go.set()
        answers = [await reading, await client.post("/v1/classify", content=body_of(500), headers=JSON)]
        assert inflight(client) == 0
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert "allowed: 1000 bytes" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert [answer.status_code for answer in (small, *answers)] == [200] * 3


@pytest.mark.parametrize("route", ["/v1/classify", "/v1/classify/batch", "/v1/embed"])
async def test_a_body_without_a_length_counts_as_it_arrives(serving, route):
    async with serving(**SMALL) as client:
        first, second = Slow(900), Slow(600)
        reading = asyncio.create_task(client.post("/v1/classify", content=first, headers=JSON))
        await wait_for_bytes(client, 450)
        late = asyncio.create_task(client.post(route, content=second, headers=JSON))
        await wait_for_bytes(client, 750)
        second.may_go.set()
        refused = await late
        await wait_for_bytes(client, 450)
        first.may_go.set()
        answer = await reading
        assert inflight(client) == 0
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert refused.headers["Retry-After"]
    assert answer.status_code == 200


async def test_a_body_of_the_limit_is_accepted_when_it_is_the_only_one(serving):
    async with serving(**SMALL) as client:
        for headers in (JSON, declared(1000)):
            slow = Slow(1000)
            slow.may_go.set()
            assert (await client.post("/v1/classify", content=slow, headers=headers)).status_code == 200
            assert inflight(client) == 0


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(body_of(100), JSON, 200, id="answered"),
        pytest.param(b"{", JSON, 400, id="malformed"),
        pytest.param(body_of(1001), JSON, 413, id="too-large"),
        pytest.param(b'{"text": "red red red red red"}', JSON, 500, id="failed"),
        pytest.param(body_of(100), {**JSON, "X-Request-Timeout-Ms": "x"}, 422, id="rejected-before-reading"),
    ],
)
async def test_bytes_are_released_after_every_answer(serving, content, headers, status):
    async with serving(**SMALL) as client:
        for _ in range(3):
            assert (await client.post("/v1/classify", content=content, headers=headers)).status_code == status
            assert inflight(client) == 0


def test_bytes_are_released_when_a_client_disconnects(listening, runtime, eventually):
    with listening(**SMALL) as service:
        state = service.app.state.service
        head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 800\r\n\r\n"
        for sent in (b"", body_of(800)[:300], body_of(800)):
            runtime.may_go.clear()
            with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
                connection.sendall(head + sent)
                eventually(lambda: state.inflight_bytes == 800)
            eventually(lambda: state.inflight_bytes == state.inside == 0)
            runtime.may_go.set()


async def test_the_bytes_are_a_metric(serving):
    async with serving(**SMALL) as client:
        slow = Slow(600)
        reading = asyncio.create_task(client.post("/v1/classify", content=slow, headers=declared(600)))
        await wait_for_bytes(client, 600)
        assert "\npolymodal_inflight_bytes 600.0\n" in (await client.get("/metrics")).text
        slow.may_go.set()
        await reading
        assert "\npolymodal_inflight_bytes 0.0\n" in (await client.get("/metrics")).text
