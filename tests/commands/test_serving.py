"""`polymodal serve`: its options count more than the environment, and a port that is taken is reported with its process."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polymodal.app import main
from polymodal.app.cli import app

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def served(monkeypatch):
    """What would have been served."""
    taken = []
    monkeypatch.setattr(main, "serve", taken.append)
    return taken


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def test_options_count_more_than_the_environment(served, tiny_bundle):
    environment = {
        "POLYMODAL_PORT": "1",
        "POLYMODAL_HOST": "::1",
        "POLYMODAL_WORKERS": "7",
        "POLYMODAL_QUEUE_LIMIT": "9",
    }
    options = ["--port", "8123", "--workers", "0", "--bundle", f"mine={tiny_bundle}", "--bundle", "illustrations"]
    result = polymodal("serve", *options, **environment)
    assert result.exit_code == 0, result.output
    (settings,) = served
    assert (settings.port, settings.host, settings.workers, settings.queue_limit) == (8123, "::1", 0, 9)
    assert [source.name for source in settings.bundles] == ["mine", "illustrations"]


def test_a_wrong_option_is_reported_by_its_own_name(served, tmp_path):
    result = polymodal("serve", "--bundle", tmp_path / "nowhere", "--host", "localhost", POLYMODAL_RUNTIME="abacus")
    assert result.exit_code == 1
    assert not served
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert any(line.startswith(f"polymodal: --bundle {tmp_path / 'nowhere'}: ") for line in lines)
    assert any(line.startswith("polymodal: POLYMODAL_RUNTIME=abacus: ") for line in lines)


def test_a_port_that_is_taken_is_reported_with_its_process(tiny_bundle):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        command = ["-m", "polymodal", "serve", "--bundle", str(tiny_bundle), "--port", str(port)]
        done = subprocess.run(
            [sys.executable, *command, "--workers", "0"], cwd=PROJECT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"polymodal: 127.0.0.1:{port}: held by process {os.getpid()}" in done.stderr


def test_a_service_is_served_until_it_is_told_to_stop(tiny_bundle):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "polymodal", "serve", "--bundle", str(tiny_bundle), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, *command, "--workers", "0"], cwd=PROJECT, stdout=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                        assert answer.status == 200
                        break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
