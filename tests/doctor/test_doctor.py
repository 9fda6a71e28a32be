"""`polymodal doctor`: what it says of installations, machines, bundles, ports and services, good and bad."""

import json
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from polymodal.app.access.keys import digest, make_record, new_key, write_keys
from polymodal.app.api.connections import OTHER_DESCRIPTORS, affordable
from polymodal.app.cli import app
from polymodal.app.doctor import bundle, installation, machine, port, service
from polymodal.app.doctor.result import State
from polymodal.app.settings import BundleSource, Settings
from polymodal.model import load_bundle, processor
from tests.app.conftest import listening, logs, make, predictor, runtime, settings  # noqa: F401 — fixtures


def by_check(findings):
    return {each.check: each for each in findings}


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


@contextmanager
def nobody():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = listener.getsockname()[1]
    yield found


# --- the command ---


def test_a_healthy_place_has_nothing_that_fails(tiny_bundle):
    with nobody() as free:
        result = polymodal("doctor", tiny_bundle, "--json", POLYMODAL_PORT=str(free))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"]
    areas = {each["area"] for each in found["findings"]}
    assert areas == {"installation", "settings", "machine", f"bundle {tiny_bundle.name}", "port"}
    assert all(each["advice"] for each in found["findings"] if each["state"] != "ok")


def test_what_fails_is_in_the_table_with_what_to_do_and_in_the_exit_code(tmp_path):
    with nobody() as free:
        result = polymodal("doctor", tmp_path, POLYMODAL_PORT=str(free), POLYMODAL_QEUE_LIMIT="3")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "POLYMODAL_QEUE_LIMIT: no such setting; did you mean POLYMODAL_QUEUE_LIMIT?" in result.stdout
    assert "SHA256SUMS is missing" in result.stdout
    assert "→ copy it again" in result.stdout
    assert result.stdout.rstrip().endswith("2 fail")


def test_a_service_that_holds_the_port_is_asked_by_itself(listening, tiny_bundle):  # noqa: F811
    with listening() as running:
        result = polymodal("doctor", tiny_bundle, "--json", POLYMODAL_PORT=str(running.port))
    found = json.loads(result.stdout)["findings"]
    (held,) = [each for each in found if each["area"] == "port"]
    assert held["state"] == "ok"
    assert "a Polymodal service" in held["found"]
    assert {"/livez", "/readyz", "/startupz", "version"} <= {each["check"] for each in found}


def test_a_second_port_is_looked_at_too(tmp_path):
    with nobody() as first, nobody() as second:
        result = polymodal("doctor", tmp_path, "--json", POLYMODAL_PORT=str(first), POLYMODAL_ADMIN_PORT=str(second))
    looked = [each["check"] for each in json.loads(result.stdout)["findings"] if each["area"] == "port"]
    assert looked == [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]


# --- installation, settings, machine ---


def test_an_installation_is_looked_at_package_by_package(monkeypatch):
    found = by_check(installation.check())
    assert {name: each.state for name, each in found.items()} == dict.fromkeys(found, State.OK)
    real = installation.version
    monkeypatch.setattr(installation, "version", lambda name: "0.1.1" if name == "fastapi" else real(name))
    assert by_check(installation.check())["serving"].found == "fastapi is 0.1.1, older than 0.115"

    def without(name):
        if name in ("accelerate", "onnx"):
            raise installation.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(installation, "version", without)
    training = by_check(installation.check())["training"]
    assert (training.state, training.found) == (State.WARN, "accelerate is missing, onnx is missing")
    assert "pip install 'polymodal[train]'" in training.advice


def test_every_wrong_setting_is_a_finding_of_its_own():
    environment = {"POLYMODAL_PORT": "99999", "POLYMODAL_RUNTIM": "onnx", "PATH": "/bin"}
    settings, findings = installation.read_settings(environment)  # noqa: F811
    assert settings.port == Settings(workers=0).port
    assert {each.check for each in findings} == {"POLYMODAL_PORT", "POLYMODAL_RUNTIM"}
    assert {each.state for each in findings} == {State.FAIL}
    _, (fine,) = installation.read_settings({"POLYMODAL_PORT": "1234"})
    assert (fine.state, fine.found) == (State.OK, "POLYMODAL_PORT")


@pytest.mark.parametrize(
    ("cpuinfo", "state", "message"),
    [
        pytest.param("model name\t: Xeon\nflags\t\t: fpu avx512_vnni sse\n", State.OK, "AVX-512 VNNI", id="vnni"),
        pytest.param("Features\t: fp asimd asimddp i8mm\n", State.OK, "i8mm and dot products", id="arm"),
        pytest.param("model name\t: EPYC\nflags\t\t: fpu avx2\n", State.WARN, "EPYC, without VNNI", id="without"),
        pytest.param(None, State.OK, "on Linux only", id="elsewhere"),
    ],
)
def test_a_processor_is_known_by_its_instructions(tmp_path, cpuinfo, state, message):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo, encoding="utf-8")
    found = machine._processor(processor(file))
    assert found.state is state
    assert message in found.found


def test_more_threads_than_cores_are_warned_of(monkeypatch):
    monkeypatch.setattr(machine, "available_cpus", lambda: 2)
    many = by_check(machine.check(Settings(workers=4, inference_threads=2), {"OMP_NUM_THREADS": "64"}))
    assert (many["workers"].state, many["libraries"].state) == (State.WARN, State.WARN)
    assert "at most 2" in many["workers"].advice
    few = by_check(machine.check(Settings(workers=1, inference_threads=2), {"OMP_NUM_THREADS": "1"}))
    assert few["workers"].state is State.OK
    assert "libraries" not in few


@pytest.mark.parametrize("spare", [0, 64, OTHER_DESCRIPTORS - 1, OTHER_DESCRIPTORS])
def test_the_doctor_warns_of_open_files_exactly_where_the_service_lowers_its_connections(monkeypatch, spare):
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 1000 + spare))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    found = by_check(machine.check(Settings(max_connections=1000), {}))["open files"]
    assert (found.state is State.WARN) == (affordable(1000) < 1000)


def test_memory_is_what_the_models_took_for_each_worker(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 500 * machine.MIB)
    settings = Settings(workers=2, inference_threads=1)  # noqa: F811
    assert machine.memory(settings, 100 * machine.MIB).state is State.OK
    short = machine.memory(settings, 300 * machine.MIB)
    assert (short.state, short.found) == (
        State.WARN,
        "about 900 MiB for 2 workers and the service, 500 MiB are free",
    )


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=4_000_000))
    monkeypatch.setattr(machine, "control_groups", lambda _: [tmp_path])
    assert machine.available_memory() == 4_000_000
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1000\n", encoding="ascii")
    assert machine.available_memory() == 4_000_000
    (tmp_path / "memory.max").write_text("3000\n", encoding="ascii")
    assert machine.available_memory() == 2000


# --- bundle ---


def test_a_bundle_is_loaded_replayed_and_asked(tiny_bundle):
    loaded = []
    found = by_check(bundle.check(BundleSource("mine", tiny_bundle), Settings(workers=1, inference_threads=1), loaded))
    assert [each.name for each in loaded] == ["mine"]
    assert {each.state for each in found.values()} == {State.OK}
    assert loaded[0].digest[:12] in found["files"].found
    assert "ms for image and text" in found["one answer"].found


def test_an_altered_bundle_is_refused_with_the_file(bundle_copy):
    (bundle_copy / "README.md").write_text("another card", encoding="utf-8")
    loaded = []
    (found,) = bundle.check(BundleSource("mine", bundle_copy), Settings(workers=1), loaded)
    assert (found.state, loaded) == (State.FAIL, [])
    assert "README.md" in found.found


# --- port ---


def test_a_port_is_free_or_its_holder_is_named():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        number = holder.getsockname()[1]
        held = port.check("127.0.0.1", number)
        assert held.state is State.FAIL
        assert f"process {os.getpid()} (" in held.found
        assert "--port" in held.advice
    assert port.check("127.0.0.1", number).state is State.OK
    assert port.holder_of(number) == ""
    assert port.check("127.0.0.1", 0).state is State.OK


@pytest.mark.parametrize("host", ["no such host", "203.0.113.77"])
def test_an_address_that_is_not_of_this_machine_is_reported(host):
    found = port.check(host, 8000)
    assert found.state is State.FAIL
    assert "POLYMODAL_HOST" in found.advice


def test_an_address_of_all_networks_is_asked_on_the_loopback_one():
    assert port.address_of("0.0.0.0", 1) == "http://127.0.0.1:1"  # noqa: S104
    assert port.address_of("::", 1) == "http://[::1]:1"
    assert port.address_of("labels.example", 1) == "http://labels.example:1"


# --- service ---


def test_a_running_service_is_asked_everything(listening, tiny_bundle):  # noqa: F811
    here = load_bundle(tiny_bundle, threads=1)
    with listening({"shapes": here}) as running:
        found = by_check(service.check(running.url, None, [here.description]))
    assert {each.state for each in found.values()} == {State.OK}
    assert set(found) == {"/livez", "/startupz", "/readyz", "version", "keys", "shapes", "one answer"}
    assert "as here" in found["shapes"].found


def test_another_version_of_the_model_is_warned_of(listening, predictor, tiny_bundle):  # noqa: F811
    here = load_bundle(tiny_bundle, name="toy", threads=1)
    with listening({"toy": predictor}) as running:
        found = by_check(service.check(running.url, None, [here.description]))
        other = load_bundle(tiny_bundle, name="lost", threads=1).description
        lost = by_check(service.check(running.url, None, [other]))
    assert found["toy"].state is State.WARN
    assert "and here is" in found["toy"].found
    assert lost["lost"].found == "not served; it serves toy"


def test_keys_that_are_needed_wrong_or_narrow_are_reported(listening, tmp_path):  # noqa: F811
    key, narrow = new_key(), new_key()
    file = tmp_path / "keys.json"
    write_keys(
        file,
        [
            make_record("all", digest(key), ["classify", "models"], None),
            make_record("narrow", digest(narrow), ["models"], None),
        ],
    )
    with listening(api_keys_file=file) as running:
        states = {
            name: by_check(service.check(running.url, each, []))["keys"].state
            for name, each in {"none": None, "right": key, "wrong": "pm_wrong", "narrow": narrow}.items()
        }
        answered = by_check(service.check(running.url, key, []))
        result = polymodal("doctor", "illustrations", "--url", running.url, "--json", PM_API_KEY=key)
    assert states == {"none": State.WARN, "right": State.OK, "wrong": State.FAIL, "narrow": State.FAIL}
    assert answered["one answer"].state is State.OK
    assert "this key is valid" in result.stdout
    assert key not in result.output


def test_a_closed_port_is_reported():
    with nobody() as free:
        (found,) = service.check(f"http://127.0.0.1:{free}", None, [])
    assert (found.state, found.found) == (State.FAIL, "no process listens there")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[", "http://host:port"])
def test_what_is_no_address_is_reported(url):
    (found,) = service.check(url, None, [])
    assert found.state is State.FAIL
    assert found.advice == "polymodal doctor --url http://127.0.0.1:8000"


@pytest.mark.parametrize("key", ["", "pm_ä", "pm_a\nX-Evil: 1"])
def test_what_is_no_key_is_told_and_not_repeated(key):
    (found,) = service.check("http://127.0.0.1:1", key, [])
    assert found.found == "the key is none; allowed: one of `polymodal keys add`"


def test_an_address_with_a_path_is_reported(listening):  # noqa: F811
    with listening() as running:
        (found,) = service.check(f"{running.url}/v1/models", None, [])
    assert found.state is State.FAIL
    assert "without a path" in found.advice


def html(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>")


def json_of_another(connection, over):
    connection.sendall(
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"up"}'
    )


def noise(connection, over):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def hang(connection, over):
    over.wait(10)


def drip(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not over.wait(0.05):
        connection.sendall(b" ")


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        pytest.param(html, "text/html, from something else than Polymodal", id="html"),
        pytest.param(json_of_another, "application/json, from something else", id="another-service"),
        pytest.param(noise, "something else than HTTP", id="noise"),
        pytest.param(hang, "no answer within 0.3 s", id="hangs"),
        pytest.param(drip, "no answer within 0.3 s", id="drips"),
    ],
)
def test_a_server_that_is_not_polymodal_is_named(raw_server, talk, message):
    with raw_server(talk) as url:
        (found,) = service.check(url, None, [], timeout_s=0.3)
        assert not service.is_polymodal(url) or talk in (hang, drip)
    assert found.state is State.FAIL
    assert message in found.found


def test_every_check_is_in_the_documentation():
    documentation = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    for area in ("installation", "settings", "machine", "bundle", "port", "service"):
        assert f"| {area} |" in documentation
