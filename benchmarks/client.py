"""HTTP client that checks every response and counts the results: for make chaos and make soak.

Every request has a connection of its own. The client retries a request that no service accepted: one whose connection was
refused, and one whose connection a terminating service closed before it had read the request. The service's log shows the
latter, because it has a line for every request that was read. An accepted request must get a response.
"""

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Any, Final

from benchmarks.bodies import Item
from benchmarks.servers import FORM, HOST

TIMEOUT_S: Final = 30.0
"""For a response; the service itself gives up after 10 s."""
RETRY_S: Final = 0.05
"""Between attempts to connect."""
TOLERANCE: Final = 0.002
"""Of a score: the items of a batch change each other's last digits."""
LOG_S: Final = 0.5
"""Time until a request that was read is in the log."""
MAX_OPEN: Final = 800
"""Concurrent requests; a request that is due beyond them is not sent."""

_numbers = count()


class Result(StrEnum):
    """How a request ended."""

    RIGHT = "right"
    REFUSED = "refused"
    """429 or 503 with Retry-After."""
    FAILED = "failed"
    """500 or 504 with a problem that names this request."""
    LOST = "lost"
    """The connection was established, and no response came."""
    WRONG = "wrong"
    """Any other response."""
    DROPPED = "dropped"
    """Closed by this client on purpose."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A POST request and its expected response."""

    body: bytes
    content_type: str = FORM
    path: str = "/v1/classify"
    scores: Mapping[str, float] = field(default_factory=dict)
    """Expected score by label; empty where only the status is checked."""
    status: int = 200

    def encode(self, request_id: str) -> bytes:
        """Return the bytes of the HTTP message."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        fields = f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        return (head + fields).encode() + self.body

    def check(self, response: Response | None, request_id: str) -> Result:
        """Compare a response, or None for none, with the expected one."""
        if response is None:
            return Result.LOST
        if response.headers.get("x-request-id") != request_id:
            return Result.WRONG
        if response.status == self.status:
            right = not self.scores or _agree(_scores(response.body), self.scores)
            return Result.RIGHT if right else Result.WRONG
        if response.headers.get("content-type") == "application/problem+json":
            if response.status in (429, 503) and "retry-after" in response.headers:
                return Result.REFUSED
            if response.status in (500, 504) and json.loads(response.body)["instance"] == request_id:
                return Result.FAILED
        return Result.WRONG


class _Exchange(asyncio.Protocol):
    """One request and its response; a response that is complete before the connection breaks counts."""

    def __init__(self) -> None:
        self.response: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.responding = asyncio.Event()
        """Set with the first byte, or when the connection ends."""
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.responding.set()
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self.response.done():
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = bytes(self._received[end + 4 :])
        if len(body) >= int(headers.get("content-length", 0)):
            self.response.set_result(Response(int(first.split()[1]), headers, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.responding.set()
        if not self.response.done():
            self.response.set_result(None)


async def exchange(port: int, message: bytes, timeout_s: float = TIMEOUT_S) -> Response | None:
    """Return the response, or None when there is none in time. Raises ConnectionRefusedError."""
    transport, protocol = await asyncio.get_running_loop().create_connection(_Exchange, HOST, port)
    try:
        transport.write(message)
        async with asyncio.timeout(timeout_s):
            return await protocol.response
    except TimeoutError:
        return None
    finally:
        transport.abort()


async def hang_up(port: int, request: Request, rng: random.Random) -> None:
    """Close the connection during the upload, the computation or the first bytes of the response; half of them by a reset."""
    message = request.encode(f"dropped-{next(_numbers)}")
    transport, protocol = await asyncio.get_running_loop().create_connection(_Exchange, HOST, port)
    try:
        moment = rng.choice(("upload", "computing", "response"))
        transport.write(message[: len(message) // 2] if moment == "upload" else message)
        if moment == "response":
            with suppress(TimeoutError):
                await asyncio.wait_for(protocol.responding.wait(), TIMEOUT_S)
        else:
            await asyncio.sleep(rng.uniform(0, 0.03))
        connection = transport.get_extra_info("socket")  # None: the service has closed it
        if rng.random() < 0.5 and connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        transport.abort()


async def get(port: int, path: str) -> Response | None:
    """Return the response to a GET request; None when there is none within 2 s."""
    with suppress(OSError):
        return await exchange(port, f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode(), 2.0)
    return None


@dataclass(slots=True)
class Tally:
    """Results of the requests that were sent during one interval."""

    results: Counter[Result] = field(default_factory=Counter)
    retries: int = 0
    """Attempts that were refused, or that got 503 from a terminating service while there was another one."""
    unread: int = 0
    """Of these: connections that a terminating service closed before it had read a request."""
    not_sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    """Of right responses, from the first attempt."""
    errors: list[str] = field(default_factory=list)
    """A line for each wrong or lost response."""

    @property
    def sent(self) -> int:
        """Number of requests."""
        return self.results.total()


class Client:
    """Sends to the first of its ports; retries at the next one after a refused connection, or after 503 if there is another."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        self.terminating: dict[int, Callable[[], bytes]] = {}
        """Reads the log of each service that got SIGTERM, by port."""
        self.tally = Tally()
        self.open = 0

    async def send(self, request: Request) -> Result:
        """Send one request; it is counted in the tally that was current when it was sent."""
        tally, started, self.open = self.tally, time.perf_counter(), self.open + 1
        request_id = f"sent-{next(_numbers)}"
        try:
            response = await self._response(request, request_id, tally)
        finally:
            self.open -= 1
        result = request.check(response, request_id)
        tally.results[result] += 1
        elapsed_s = time.perf_counter() - started
        if result is Result.RIGHT:
            tally.latencies_s.append(elapsed_s)
        elif result in (Result.WRONG, Result.LOST):
            summary = "no answer" if response is None else f"{response.status} {response.body[:300]!r}"
            tally.errors.append(f"{request_id}, after {elapsed_s:.2f} s: {summary}")
        return result

    async def _response(self, request: Request, request_id: str, tally: Tally) -> Response | None:
        message, deadline = request.encode(request_id), time.perf_counter() + TIMEOUT_S
        attempts = 0
        while time.perf_counter() < deadline:
            ports = self.ports
            port = ports[attempts % len(ports)]
            try:
                response = await exchange(port, message)
            except ConnectionRefusedError:
                await asyncio.sleep(RETRY_S)
            else:
                if response is None:
                    if not await self._unread(port, request_id):
                        return None
                    tally.unread += 1
                elif response.status != 503 or len(ports) == 1:
                    return response
            attempts += 1
            tally.retries += 1
        return None

    async def _unread(self, port: int, request_id: str) -> bool:
        """Whether the service at this port is terminating and has never read this request."""
        await asyncio.sleep(LOG_S)
        read_log = self.terminating.get(port)
        return read_log is not None and f'"{request_id}"'.encode() not in read_log()

    async def drop(self, request: Request, rng: random.Random) -> None:
        """Send one request and hang up."""
        tally = self.tally
        with suppress(OSError):
            await hang_up(self.ports[0], request, rng)
        tally.results[Result.DROPPED] += 1


class Load:
    """Open-loop load while the context is open: requests at random moments (Poisson), `drops` of them dropped."""

    def __init__(
        self, client: Client, requests: Sequence[Request], per_s: float, seed: int, drops: float = 0.0
    ) -> None:
        self._client, self._requests, self._per_s, self._drops = client, requests, per_s, drops
        self._rng = random.Random(seed)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._sender = asyncio.create_task(self._send())

    async def __aexit__(self, *_: object) -> None:
        """Stop sending, and wait for every response."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait((self._sender,))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self) -> None:
        due = time.perf_counter()
        while True:
            due += self._rng.expovariate(self._per_s)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            request = self._rng.choice(self._requests)
            if self._client.open >= MAX_OPEN:
                self._client.tally.not_sent += 1
                continue
            drop = self._rng.random() < self._drops
            task = asyncio.create_task(self._client.drop(request, self._rng) if drop else self._client.send(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def record_requests(port: int, items: Sequence[Item]) -> list[Request]:
    """Classify items one by one at an idle service; return requests that expect the recorded scores. Raises RuntimeError.

    Items whose scores can't be distinguished from an earlier item's are left out.
    """
    requests: list[Request] = []
    for item in items:
        response = await exchange(port, Request(item.form).encode("recorded"))
        if response is None or response.status != 200:
            raise RuntimeError(f"an idle service answers {response}; allowed: 200")
        scores = _scores(response.body)
        if not any(_agree(scores, other.scores, 2 * TOLERANCE) for other in requests):
            requests.append(Request(item.form, scores=scores))
    return requests


async def capacity(client: Client, requests: Sequence[Request], connections: int, seconds: float) -> float:
    """Right responses per second in a closed loop over this number of connections."""
    client.tally = Tally()
    end = time.perf_counter() + seconds

    async def send(number: int) -> None:
        for turn in count(number):
            if time.perf_counter() >= end:
                return
            await client.send(requests[turn * 7 % len(requests)])

    await asyncio.gather(*(send(number) for number in range(connections)))
    return client.tally.results[Result.RIGHT] / seconds


def _scores(body: bytes) -> dict[str, float]:
    return {label["label"]: label["score"] for label in json.loads(body)["labels"]}


def _agree(scores: Mapping[str, float], expected: Mapping[str, float], tolerance: float = TOLERANCE) -> bool:
    return scores.keys() == expected.keys() and all(
        abs(scores[label] - expected[label]) <= tolerance for label in expected
    )
