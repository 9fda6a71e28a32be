"""Metrics of all workers, whichever of them is asked: each answers the others over a local socket with what it has measured."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S: Final = 1.0  # with a worker that is starting, or hangs

log = structlog.get_logger(__name__)


class Siblings:
    """What one of several workers knows of the others."""

    def __init__(self, family: int, number: int, count: int) -> None:
        """`family` is the parent's process id, `number` this worker's own, of `count`."""
        self._own = _address(family, number)
        self._others = [_address(family, each) for each in range(count) if each != number]

    @asynccontextmanager
    async def answering(self, registry: CollectorRegistry) -> AsyncIterator[None]:
        """Answer the others until the block ends."""

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(generate_latest(registry))
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, sock=_bound(self._own))
        try:
            yield
        finally:
            server.close()

    async def gathered(self) -> list[str]:
        """What each of the others has measured, in Prometheus' text format; of one that doesn't answer in time, nothing."""
        asked = await asyncio.gather(*(self._ask(each) for each in self._others), return_exceptions=True)
        for each in asked:
            if isinstance(each, BaseException):
                log.warning("worker_not_measured", problem=repr(each))
        return [each for each in asked if isinstance(each, str)]

    async def _ask(self, address: str) -> str:
        async with asyncio.timeout(PATIENCE_S):
            calling = socket.socket(socket.AF_UNIX)
            calling.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(calling, address)
            except BaseException:  # refused, or the wait was ended
                calling.close()
                raise
            reader, writer = await asyncio.open_unix_connection(sock=calling)
            try:
                return (await reader.read(-1)).decode()
            finally:
                writer.close()


def _bound(address: str) -> socket.socket:
    if not address.startswith("\0"):
        Path(address).unlink(missing_ok=True)  # an earlier life's
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(address)
    return bound


def merged(texts: Sequence[str]) -> bytes:
    """Several workers' metrics as one: sums, but of what is the same in all (…_info) and of times of creation, the earliest."""
    return generate_latest(_Merged(texts))  # it needs nothing but `collect`


class _Merged:
    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for family in _families(self._texts):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            found = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                found[key] = _together(sample.name, found[key], sample.value) if key in found else sample.value
        for name, metric in families.items():
            for (sample_name, labels), value in values[name].items():
                metric.add_sample(sample_name, dict(labels), value)
            yield metric


def _families(texts: Sequence[str]) -> Iterator[Metric]:
    for text in texts:
        yield from text_string_to_metric_families(text)


def _together(name: str, first: float, second: float) -> float:
    if name.endswith("_info"):
        return max(first, second)
    return min(first, second) if name.endswith("_created") else first + second


def _address(family: int, number: int) -> str:
    name = f"polymodal-{family}-{number}"
    # Linux has names for sockets that are no files, and so need no folder that can be written.
    return f"\0{name}" if sys.platform == "linux" else str(Path(tempfile.gettempdir()) / name)
