"""`polymodal serve`: its options count more than the environment, and a port that is taken is reported with its process."""

import os
import socket

import pytest
from typer.testing import CliRunner

from polymodal.app import main
from polymodal.app.cli import app
from tests.serving import SERVE, Service, running


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
        options = ["--bundle", str(tiny_bundle), "--port", str(port), "--workers", "0"]
        with Service(*SERVE, *options) as service:
            assert service.wait() == 1
            assert "Traceback" not in service.log
            assert f"polymodal: 127.0.0.1:{port}: held by process {os.getpid()}" in service.log


def test_a_service_is_served_until_sigterm(tiny_bundle):
    with running(*SERVE, "--bundle", str(tiny_bundle), "--port", "0", "--workers", "0") as service:
        service.stop()
