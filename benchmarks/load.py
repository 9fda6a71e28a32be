"""Load from outside the measured process: closed loop by wrk, open loop by a client of our own, as wrk has none."""

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import uvloop

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
CONNECTIONS: Final = 512  # at most, of the open loop; a service that needs more is far behind


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and what they hold."""

    host: str
    port: int
    path: str
    content_type: str
    bodies: Sequence[bytes]


def closed_loop(target: Target, connections: int, seconds: float, *, new_texts: bool = False) -> dict[str, float]:
    """Every connection sends its next request when it has its answer; latencies in ms. Raises RuntimeError."""
    with TemporaryDirectory() as folder:
        for number, body in enumerate(target.bodies):
            (Path(folder) / str(number)).write_bytes(body)
        settings = {
            "BODIES": folder,
            "COUNT": str(len(target.bodies)),
            "CONTENT_TYPE": target.content_type,
            "NEW_TEXTS": "1" if new_texts else "",
        }
        address = f"http://{target.host}:{target.port}{target.path}"
        options = ["-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s", "-s", str(SCRIPT)]
        command = ["wrk", *options, address]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    told = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if told is None:
        raise RuntimeError(f"wrk said no result: {done.stdout} {done.stderr}")
    result: dict[str, float] = json.loads(told.removeprefix("RESULT "))
    result["per_s"] = (result["requests"] - result["refused"] - result["wrong"]) / result["seconds"]
    return result


@dataclass
class _Record:
    latencies: dict[int, list[float]] = field(default_factory=dict)
    """Seconds from when a request was due to its answer, by status; 0: the connection broke."""

    def add(self, status: int, seconds: float) -> None:
        self.latencies.setdefault(status, []).append(seconds)


class _Connection(asyncio.Protocol):
    """One request at a time over one connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 — asyncio's own signature is wider
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self._answer is None:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        if len(body) >= length:
            self._received.clear()
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> int:
        """The status of the answer; 0 when there was none."""
        if self._transport is None:
            return 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def open_loop(target: Target, per_s: float, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Requests are due at random moments (Poisson), whatever becomes of earlier ones; latencies in ms from when they were due."""
    return uvloop.run(_open_loop(target, per_s, seconds, seed))


async def _open_loop(target: Target, per_s: float, seconds: float, seed: int) -> dict[str, Any]:
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: {target.content_type}\r\n"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in target.bodies]
    chance, record = random.Random(seed), _Record()
    idle: list[_Connection] = []
    running: set[asyncio.Task[None]] = set()

    async def connected() -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, target.host, target.port)
        return connection

    async def one(request: bytes, due: float) -> None:
        while idle and not idle[-1].usable:
            idle.pop()
        try:
            connection = idle.pop() if idle else await connected()
        except OSError:
            record.add(0, time.perf_counter() - due)
            return
        status = await connection.ask(request)
        record.add(status, time.perf_counter() - due)
        if status:
            idle.append(connection)

    due = started = time.perf_counter()
    sent = late = 0
    while (due := due + chance.expovariate(per_s)) < started + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if len(running) >= CONNECTIONS:
            late += 1
            record.add(0, 0.0)
            continue
        task = asyncio.create_task(one(requests[sent % len(requests)], due))
        running.add(task)
        task.add_done_callback(running.discard)
        sent += 1
    if running:
        await asyncio.wait(running, timeout=30)
    counts = {str(status): len(each) for status, each in sorted(record.latencies.items())}
    return {
        "offered_per_s": per_s,
        "sent": sent,
        "not_sent": late,
        "answers": counts,
        "goodput_per_s": counts.get("200", 0) / seconds,
        "ok_ms": _percentiles(record.latencies.get(200, [])),
        "refused_ms": _percentiles(record.latencies.get(429, []) + record.latencies.get(503, [])),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{each}": 1000 * float(np.percentile(seconds, each)) for each in (50, 95, 99)}
