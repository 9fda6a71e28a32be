"""Load generators outside the measured process: closed loop by wrk, open loop by a client of our own, because wrk has none."""

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import uvloop

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
MAX_CONNECTIONS: Final = 512  # of the open loop; a service that needs more is far behind
DRAIN_S: Final = 30.0  # time for the last responses


@dataclass(frozen=True, slots=True)
class Target:
    """Address and bodies of the requests."""

    host: str
    port: int
    path: str
    content_type: str
    bodies: Sequence[bytes]


def closed_loop(target: Target, connections: int, seconds: float, *, new_texts: bool = False) -> dict[str, float]:
    """Run wrk: each connection sends its next request after its response. Latencies are in ms. Raises RuntimeError."""
    with TemporaryDirectory() as folder:
        for number, body in enumerate(target.bodies):
            (Path(folder) / str(number)).write_bytes(body)
        settings = {
            "BODIES": folder,
            "COUNT": str(len(target.bodies)),
            "CONTENT_TYPE": target.content_type,
            "NEW_TEXTS": "1" if new_texts else "",
        }
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s", "-s", str(SCRIPT)]
        command.append(f"http://{target.host}:{target.port}{target.path}")
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk printed no result: {done.stdout} {done.stderr}")
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    result["per_s"] = (result["requests"] - result["refused"] - result["wrong"]) / result["seconds"]
    return result


class _Connection(asyncio.Protocol):
    """One request at a time over one connection; callbacks only, because the client shares its cores with the service."""

    def __init__(self, client: "_Client") -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._due: float | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 — asyncio's own signature is wider
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request; the client counts its response or its failure."""
        if self._transport is None:
            self._client.finish(0, due)
            return
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._due is None:
            return
        at = self._received.lower().index(b"content-length:", 0, end) + 15
        length = int(self._received[at : self._received.index(b"\r", at)])
        if len(self._received) >= end + 4 + length:
            status, due = int(self._received[9:12]), self._due
            self._received.clear()
            self._due = None
            self._client.finish(status, due)
            self._client.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._due is not None:
            self._client.finish(0, self._due)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()


class _Client:
    """All connections of an open loop, and the latencies of its responses."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.idle: list[_Connection] = []
        self.waiting = 0
        self.latencies: dict[int, list[float]] = {}
        """Seconds from when a request was due to its response, by status; 0: the connection broke."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Future[None] | None = None

    def send(self, request: bytes, due: float) -> None:
        """Send over an idle connection, or over a new one."""
        self.waiting += 1
        while self.idle:
            if (connection := self.idle.pop()).usable:
                connection.send(request, due)
                return
        task = asyncio.create_task(self._send_on_new(request, due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _send_on_new(self, request: bytes, due: float) -> None:
        loop, target = asyncio.get_running_loop(), self._target
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), target.host, target.port)
        except OSError:
            self.finish(0, due)
        else:
            connection.send(request, due)

    async def drain(self) -> None:
        """Wait for the responses to all requests; nothing may be sent meanwhile."""
        self._drained = asyncio.get_running_loop().create_future()
        if self.waiting:
            await self._drained

    def finish(self, status: int, due: float) -> None:
        """Count a response, or status 0 for a broken connection."""
        self.waiting -= 1
        if not self.waiting and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.latencies.setdefault(status, []).append(time.perf_counter() - due)


def open_loop(target: Target, per_s: float, seconds: float, *, regular: bool = False, seed: int = 0) -> dict[str, Any]:
    """Send requests at random moments (Poisson) or regular ones, without waiting for responses; latencies in ms from then."""
    return uvloop.run(_open_loop(target, per_s, seconds, regular, seed))


async def _open_loop(target: Target, per_s: float, seconds: float, regular: bool, seed: int) -> dict[str, Any]:
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: {target.content_type}\r\n"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in target.bodies]
    rng, client = random.Random(seed), _Client(target)
    due = started = time.perf_counter()
    sent = not_sent = 0
    while (due := due + (1 / per_s if regular else rng.expovariate(per_s))) < started + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if client.waiting >= MAX_CONNECTIONS:
            not_sent += 1
            continue
        client.send(requests[sent % len(requests)], due)
        sent += 1
    with suppress(TimeoutError):
        await asyncio.wait_for(client.drain(), DRAIN_S)
    latencies = client.latencies
    if client.waiting:
        latencies[0] = latencies.get(0, []) + [DRAIN_S] * client.waiting
    counts = {str(status): len(times) for status, times in sorted(latencies.items())}
    return {
        "offered_per_s": per_s,
        "sent": sent,
        "not_sent": not_sent,
        "answers": counts,
        "goodput_per_s": counts.get("200", 0) / seconds,
        "ok_ms": _percentiles(latencies.get(200, [])),
        "refused_ms": _percentiles(latencies.get(429, []) + latencies.get(503, [])),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{percent}": 1000 * float(np.percentile(seconds, percent)) for percent in (50, 95, 99)}
