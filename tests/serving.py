"""Start a real service in a process of its own, and stop it."""

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import psutil

from polymodal.app.settings import PREFIX, variable

PROJECT = Path(__file__).parents[1]
SERVE = (sys.executable, "-m", "polymodal", "serve")
TOY_SCRIPT = """
import os
from polymodal.app.main import serve
from polymodal.app.settings import load_settings
from tests.app.conftest import make_predictor
serve(load_settings(os.environ), {"toy": make_predictor()})
"""
SERVE_TOY = (sys.executable, "-c", TOY_SCRIPT)
"""Serves the toy model of tests/app/conftest.py, in a thread of the service."""


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates of authorities, which httpx would otherwise load for every request, in 30 ms."""
get = partial(httpx.get, trust_env=False, verify=NO_TLS, timeout=60)
post = partial(httpx.post, trust_env=False, verify=NO_TLS, timeout=60)


class Service:
    """A service in a process of its own; `with Service(...)` kills it at the end of the block unless it has ended."""

    def __init__(self, *command: str, port=0, env=None, stdout=None, cwd=PROJECT, **settings) -> None:
        """`command` is `polymodal serve` by default; `env` adds variables; `stdout` replaces the log, which stderr always goes to.

        Port 0 takes a free one and reads it from the log; a service whose log is lost needs another port.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        variables = {variable(field): str(value) for field, value in {"port": port, **settings}.items()}
        self.url = f"http://127.0.0.1:{port}" if port else ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 — closed in __exit__
        self.process = subprocess.Popen(
            command or SERVE,
            cwd=cwd,
            env=inherited | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"} | variables | (env or {}),
            stdout=self._log if stdout is None else stdout,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        """Everything that it has written to stdout and stderr."""
        return os.pread(self._log.fileno(), 2**24, 0).decode()

    def events(self, name: str) -> list[dict]:
        """Return the log entries of one event."""
        lines = [line for line in self.log.splitlines() if f'"event": "{name}"' in line]
        return [json.loads(line) for line in lines]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def admin_url(self) -> str:
        return re.search(r'"second_port": "(.+?)"', self.log)[1]

    def wait_until_ready(self, seconds=60.0) -> None:
        """Wait until /readyz returns 200; raise AssertionError with the log when the process ends before."""
        until = time.monotonic() + seconds
        while not self._is_ready():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        if not self.url and (match := re.search(r"running on (http://127\.0\.0\.1:\d+)", self.log)):
            self.url = match[1]
        with suppress(httpx.TransportError):
            return bool(self.url) and get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def get(self, path: str) -> httpx.Response:
        return get(self.url + path)

    def classify(self, text="red", **options) -> httpx.Response:
        return post(f"{self.url}/v1/classify", json={"text": text}, **options)

    def metric(self, name: str) -> float:
        """Return the value of a metric; `name` is a pattern with its labels."""
        return float(re.search(rf"^{name} (\S+)$", self.get("/metrics").text, re.MULTILINE)[1])

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self, code=0) -> None:
        """Send SIGTERM, and check the exit code."""
        self.process.terminate()
        assert self.wait() == code, self.log

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        return self.process.wait(60)


@contextmanager
def running(*command: str, **options) -> Iterator[Service]:
    """Start a service and wait until it is ready; arguments as of Service."""
    with Service(*command, **options) as service:
        service.wait_until_ready()
        yield service
