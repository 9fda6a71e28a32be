"""`polymodal serve`: options have precedence over the environment, and start-up errors are reported."""

import os
import socket

import pytest

from polymodal.app import main
from tests.command_line import polymodal
from tests.serving import SERVE, Service, running


@pytest.fixture
def served(monkeypatch):
    """Settings that `serve` was called with; nothing is served."""
    settings = []
    monkeypatch.setattr(main, "serve", settings.append)
    return settings


def test_options_have_precedence_over_the_environment(served, tiny_bundle):
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


def test_all_wrong_options_and_settings_are_reported_by_their_names(served, tmp_path):
    environment = {"POLYMODAL_RUNTIME": "abacus", "POLYMODAL_PORT": "99999", "POLYMODAL_QEUE_LIMIT": "3"}
    result = polymodal("serve", "--bundle", tmp_path / "nowhere", "--host", "localhost", **environment)
    assert result.exit_code == 1
    assert not served
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for start in (
        f"--bundle {tmp_path / 'nowhere'}: ",
        "POLYMODAL_RUNTIME=abacus: ",
        "POLYMODAL_PORT",
        "POLYMODAL_QEUE",
    ):
        assert any(line.startswith(f"polymodal: {start}") for line in lines), start


def test_a_folder_that_is_not_a_bundle_is_reported(tmp_path):
    with Service(*SERVE, "--bundle", f"mine={tmp_path}", "--port", "0", "--workers", "1") as service:
        assert service.wait() == 1
        (line,) = service.log.splitlines()
    assert "SHA256SUMS is missing" in line


def test_a_port_that_is_in_use_is_reported_with_its_process(tiny_bundle):
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
