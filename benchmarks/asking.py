"""A client that knows the right answers, and says what became of every request: for make chaos and make soak.

Every request has a connection of its own. One that is refused was never taken by a service, and may be asked elsewhere; so may
one that a service which was told to stop has closed without having read a request from it, as its log shows: every request that
was read has a line there. Whatever was accepted must be answered.
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

PATIENCE_S: Final = 30.0
"""For an answer; the service gives up after 10 s by itself."""
RETRY_S: Final = 0.05
"""Between attempts to connect."""
TOLERANCE: Final = 0.002
"""Of a score: the items of a batch change each other's last digits."""
LOG_S: Final = 0.5
"""After which a request that was read has its line in the log."""
MOST_OPEN: Final = 800
"""Requests at one time; what is due beyond them is not sent."""

_numbers = count()


class Fate(StrEnum):
    """What became of a request."""

    RIGHT = "right"
    REFUSED = "refused"
    """With 429 or 503, and when to come back."""
    FAILED = "failed"
    """With 500 or 504, and a problem that names this request."""
    LOST = "lost"
    """A connection was there, and no answer came."""
    WRONG = "wrong"
    """Any other answer."""
    DROPPED = "dropped"
    """By us."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request's body, and what may be said to it."""

    body: bytes
    content_type: str = FORM
    path: str = "/v1/classify"
    right: Mapping[str, float] = field(default_factory=dict)
    """Score by label; empty where only `status` is known."""
    status: int = 200

    def request(self, request_id: str) -> bytes:
        """All bytes of it."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        return (
            f"{head}Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        )

    def fate(self, reply: "Reply | None", request_id: str) -> Fate:
        """What this reply means."""
        if reply is None:
            return Fate.LOST
        if reply.headers.get("x-request-id") != request_id:
            return Fate.WRONG
        if reply.status == self.status:
            return Fate.RIGHT if not self.right or _agree(_scores(reply.body), self.right) else Fate.WRONG
        problem = reply.headers.get("content-type") == "application/problem+json"
        if reply.status in (429, 503) and "retry-after" in reply.headers and problem:
            return Fate.REFUSED
        if reply.status in (500, 504) and problem and json.loads(reply.body)["instance"] == request_id:
            return Fate.FAILED
        return Fate.WRONG


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Exchange(asyncio.Protocol):
    """One request and its answer; what came before a connection broke counts."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.begun.set()
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self.reply.done():
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = bytes(self._received[end + 4 :])
        if len(body) >= int(headers.get("content-length", 0)):
            self.reply.set_result(Reply(int(first.split()[1]), headers, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.begun.set()
        if not self.reply.done():
            self.reply.set_result(None)


async def exchange(port: int, request: bytes, patience_s: float = PATIENCE_S) -> Reply | None:
    """The answer; None when there was none. Raises ConnectionRefusedError."""
    transport, protocol = await asyncio.get_running_loop().create_connection(_Exchange, HOST, port)
    try:
        transport.write(request)
        async with asyncio.timeout(patience_s):
            return await protocol.reply
    except TimeoutError:
        return None
    finally:
        transport.abort()


async def hang_up(port: int, question: Question, chance: random.Random) -> None:
    """Leave in the middle of the upload, while the answer is computed, or when its first bytes come; with a reset or without."""
    request = question.request(f"dropped-{next(_numbers)}")
    transport, protocol = await asyncio.get_running_loop().create_connection(_Exchange, HOST, port)
    try:
        moment = chance.choice(("upload", "computing", "answer"))
        transport.write(request[: len(request) // 2] if moment == "upload" else request)
        if moment == "answer":
            with suppress(TimeoutError):
                await asyncio.wait_for(protocol.begun.wait(), PATIENCE_S)
        else:
            await asyncio.sleep(chance.uniform(0, 0.03))
        if chance.random() < 0.5 and (
            connection := transport.get_extra_info("socket")
        ):  # none: the service has closed it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        transport.abort()


async def get(port: int, path: str) -> Reply | None:
    """A probe's answer; None when there is none within 2 s."""
    with suppress(OSError):
        return await exchange(port, f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode(), 2.0)
    return None


@dataclass(slots=True)
class Tally:
    """What became of the requests that were sent in one stretch of time."""

    fates: Counter[Fate] = field(default_factory=Counter)
    retries: int = 0
    """Attempts that found nobody listening, or somebody who was leaving while there was another one."""
    unread: int = 0
    """Of these: connections that were closed by a service which was leaving, before it had read a request from them."""
    not_sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    """Of right answers, from the first attempt."""
    odd: list[str] = field(default_factory=list)
    """What was wrong or lost, for a reader."""

    @property
    def sent(self) -> int:
        """All of them."""
        return self.fates.total()


class Client:
    """Asks the first of its ports; those that refuse the connection, or say 503 where there is another port, are tried again."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        self.leaving: dict[int, Callable[[], bytes]] = {}
        """What those say whose end was asked for, by port."""
        self.tally = Tally()
        self.open = 0

    async def ask(self, question: Question) -> Fate:
        """One request; counted where the tally stood when it was sent."""
        tally, began, self.open = self.tally, time.perf_counter(), self.open + 1
        request_id = f"asked-{next(_numbers)}"
        try:
            reply = await self._reply(question, request_id, tally)
        finally:
            self.open -= 1
        fate = question.fate(reply, request_id)
        tally.fates[fate] += 1
        if fate is Fate.RIGHT:
            tally.latencies_s.append(time.perf_counter() - began)
        elif fate in (Fate.WRONG, Fate.LOST):
            said = "no answer" if reply is None else f"{reply.status} {reply.body[:300]!r}"
            tally.odd.append(f"{request_id}, after {time.perf_counter() - began:.2f} s: {said}")
        return fate

    async def _reply(self, question: Question, request_id: str, tally: Tally) -> Reply | None:
        request, until = question.request(request_id), time.perf_counter() + PATIENCE_S
        attempts = 0
        while time.perf_counter() < until:
            ports = self.ports
            port = ports[attempts % len(ports)]
            try:
                reply = await exchange(port, request)
            except ConnectionRefusedError:
                await asyncio.sleep(RETRY_S)
            else:
                if reply is None:
                    if not await self._unread(port, request_id):
                        return None
                    tally.unread += 1
                elif reply.status != 503 or len(ports) == 1:
                    return reply
            attempts += 1
            tally.retries += 1
        return None

    async def _unread(self, port: int, request_id: str) -> bool:
        """Whether the service at this port is leaving and has never read this request."""
        await asyncio.sleep(LOG_S)
        output = self.leaving.get(port)
        return output is not None and f'"{request_id}"'.encode() not in output()

    async def drop(self, question: Question, chance: random.Random) -> None:
        """One request that is left by its client."""
        tally = self.tally
        with suppress(OSError):
            await hang_up(self.ports[0], question, chance)
        tally.fates[Fate.DROPPED] += 1


class Load:
    """Requests at random moments (Poisson), whatever becomes of earlier ones, until it is stopped."""

    def __init__(
        self, client: Client, questions: Sequence[Question], per_s: float, seed: int, drops: float = 0.0
    ) -> None:
        self._client, self._questions, self._per_s, self._drops = client, questions, per_s, drops
        self._chance = random.Random(seed)
        self._asking: set[asyncio.Task[Any]] = set()
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._sending = asyncio.create_task(self._send())

    async def __aexit__(self, *_: object) -> None:
        """Send no more, and wait for every answer."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
        if self._asking:
            await asyncio.wait(self._asking)

    async def _send(self) -> None:
        due = time.perf_counter()
        while True:
            due += self._chance.expovariate(self._per_s)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            question = self._chance.choice(self._questions)
            if self._client.open >= MOST_OPEN:
                self._client.tally.not_sent += 1
                continue
            leaves = self._chance.random() < self._drops
            work = self._client.drop(question, self._chance) if leaves else self._client.ask(question)
            task = asyncio.create_task(work)
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)


async def known(port: int, items: Sequence[Item]) -> list[Question]:
    """Questions that a calm service was asked one by one, and whose answers can be told from each other. Raises RuntimeError."""
    questions: list[Question] = []
    for item in items:
        asked = Question(item.form)
        reply = await exchange(port, asked.request("beforehand"))
        if reply is None or reply.status != 200:
            raise RuntimeError(f"a calm service answers {reply}; allowed: 200")
        right = _scores(reply.body)
        if not any(_agree(right, other.right, 2 * TOLERANCE) for other in questions):
            questions.append(Question(item.form, right=right))
    return questions


async def capacity(client: Client, questions: Sequence[Question], connections: int, seconds: float) -> float:
    """Right answers per second to so many clients that each wait for their answer."""
    client.tally = Tally()
    until = time.perf_counter() + seconds

    async def ask(number: int) -> None:
        for turn in count(number):
            if time.perf_counter() >= until:
                return
            await client.ask(questions[turn * 7 % len(questions)])

    await asyncio.gather(*(ask(number) for number in range(connections)))
    return client.tally.fates[Fate.RIGHT] / seconds


def _scores(body: bytes) -> dict[str, float]:
    return {each["label"]: each["score"] for each in json.loads(body)["labels"]}


def _agree(found: Mapping[str, float], right: Mapping[str, float], tolerance: float = TOLERANCE) -> bool:
    return found.keys() == right.keys() and all(abs(found[label] - right[label]) <= tolerance for label in right)
