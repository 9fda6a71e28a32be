"""The servers that are compared: how each is started, and the requests that it gets."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import psutil

from benchmarks.bodies import BOUNDARY, Item
from benchmarks.load import Target

PROJECT: Final = Path(__file__).parents[1]
VENVS: Final = PROJECT / "benchmarks" / ".venvs"
FORM: Final = f"multipart/form-data; boundary={BOUNDARY}"
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve the bundle."""

    name: str
    command: Sequence[str]
    """With placeholders {port} and {cores}; the first word is a program in the server's own environment."""
    path: str
    venv: Path = PROJECT / ".venv"
    environ: Mapping[str, str] = field(default_factory=dict)
    packed: bool = False
    """Bodies in msgpack instead of a form."""

    def target(self, port: int, items: Sequence[Item]) -> Target:
        """Return the address and the bodies for this port."""
        if self.packed:
            return Target(HOST, port, self.path, "application/msgpack", [_msgpack(item) for item in items])
        return Target(HOST, port, self.path, FORM, [item.form for item in items])


POLYMODAL: Final = Server("polymodal", ["polymodal", "serve"], "/v1/classify")


def peers(runtime: str) -> list[Server]:
    """Return the peers whose environments are installed, with this runtime."""

    def module(name: str, *arguments: str) -> list[str]:
        return ["python", "-m", f"benchmarks.peers.{name}_server", *arguments]

    uvicorn = ["uvicorn", "benchmarks.peers.fastapi_server:app", "--port", "{port}", "--workers", "{cores}"]
    servers = [
        Server("fastapi", [*uvicorn, "--log-level", "warning"], "/predict"),
        Server("litserve", module("litserve"), "/predict"),
        Server("mosec", module("mosec", "--port", "{port}", "--timeout", "60000"), "/inference", packed=True),
        Server(
            "bentoml",
            ["bentoml", "serve", "benchmarks.peers.bentoml_server:Classifier", "--port", "{port}", "--host", HOST],
            "/predict",
        ),
        Server("ray", module("ray"), "/"),
    ]
    return [
        replace(server, venv=VENVS / server.name, environ={"RUNTIME": runtime})
        for server in servers
        if (VENVS / server.name / "ok").exists()
    ]


@dataclass(frozen=True, slots=True)
class Running:
    """A started server."""

    pid: int
    port: int
    ready_s: float
    """From its start to its first successful response."""
    output: Callable[[], bytes]
    """Reads everything that it has written to stdout and stderr so far."""

    @property
    def workers(self) -> list[int]:
        """Process ids of its descendants."""
        return [process.pid for process in processes(self.pid)[1:]]

    def memory_mib(self) -> float:
        """Proportional set size of the process and all its descendants."""
        return sum(process.memory_full_info().pss for process in processes(self.pid)) / 2**20


def free_port() -> int:
    """Return an unused TCP port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    server: Server, items: Sequence[Item], bundle: Path, cores: int, *, port: int | None = None, **environ: str
) -> Iterator[Running]:
    """Start a server, wait until it answers a complete request, and stop it at the end. Raises RuntimeError."""
    port = port or free_port()
    binary = str(server.venv / "bin" / server.command[0])
    command = [binary, *(word.format(port=port, cores=cores) for word in server.command[1:])]
    settings = {
        **os.environ,
        "PATH": f"{server.venv / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PORT": str(port),
        "CORES": str(cores),
        "BUNDLE": str(bundle),
        "OMP_NUM_THREADS": "1",
        "POLYMODAL_PORT": str(port),
        "POLYMODAL_BUNDLES": f"illustrations={bundle}",
        "BENTOML_DO_NOT_TRACK": "True",
        **server.environ,
        **environ,
    }
    started = time.perf_counter()
    with TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            try:
                _await_response(server.target(port, items[:1]), process, 120)
            except RuntimeError as problem:
                output.seek(0)
                raise RuntimeError(
                    f"{server.name}: {problem}\n{output.read().decode(errors='replace')[-3000:]}"
                ) from None
            ready_s = time.perf_counter() - started
            yield Running(process.pid, port, ready_s, lambda: os.pread(output.fileno(), 2**30, 0))
        finally:
            _stop(process)


def _await_response(target: Target, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    request = urllib.request.Request(
        f"http://{target.host}:{target.port}{target.path}",
        data=target.bodies[0],
        headers={"Content-Type": target.content_type},
        method="POST",
    )
    last = "no answer"
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()
                return
        except urllib.error.HTTPError as problem:
            last = f"{problem.code}: {problem.read()[:300]!r}"
            # Some listen before their routes are registered (404); other clients may fill the queue (429).
            if problem.code < 500 and problem.code not in (404, 429):
                raise RuntimeError(last) from None
        except OSError as problem:
            last = str(problem)
        time.sleep(0.02)
    raise RuntimeError(f"no answer in {seconds} s; last: {last}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop the process and its whole session, because some servers leave children behind."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print(f"{process.args}: did not stop on SIGTERM", file=sys.stderr)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
    time.sleep(0.5)


def processes(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; none when it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _msgpack(item: Item) -> bytes:
    """Encode a map with a byte string and a text, according to the msgpack specification."""
    text = item.text.encode()
    return (
        b"\x82\xa5image\xc6" + len(item.image).to_bytes(4) + item.image
        + b"\xa4text\xd9" + len(text).to_bytes(1) + text
    )  # fmt: skip
