"""`polymodal doctor`: checks of installations, machines, bundles, ports and services, working and broken."""

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.servers import free_port
from polymodal.app.access.keys import digest, make_record, new_key, write_keys
from polymodal.app.api.connections import OTHER_DESCRIPTORS, affordable
from polymodal.app.doctor import bundle, installation, machine, port, service
from polymodal.app.doctor.result import State
from polymodal.app.settings import BundleSource, Settings
from polymodal.model import load_bundle, processor
from tests.app.conftest import (  # noqa: F401 — fixtures
    listening,
    logs,
    make,
    predictor,
    runtime,
    settings,
    write_toy_index,
)
from tests.command_line import polymodal


def by_check(results):
    return {result.check: result for result in results}


def printed_results(result):
    """Return the check results that `polymodal doctor --json` printed."""
    return json.loads(result.stdout)["findings"]


# --- the command ---


def test_a_healthy_machine_has_no_failures(tiny_bundle):
    result = polymodal("doctor", tiny_bundle, "--json", POLYMODAL_PORT=str(free_port()))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ok"]
    rows = printed_results(result)
    assert {row["area"] for row in rows} == {
        "installation",
        "settings",
        "machine",
        f"bundle {tiny_bundle.name}",
        "port",
    }
    assert all(row["advice"] for row in rows if row["state"] != "ok")


def test_indexes_are_checked_against_the_bundles(aligned_bundle, tmp_path):
    index = write_toy_index(tmp_path / "things", load_bundle(aligned_bundle, threads=1))
    stale = write_toy_index(tmp_path / "stale")
    broken = write_toy_index(tmp_path / "broken")
    (broken.path / "items.jsonl").unlink()
    environment = {"POLYMODAL_PORT": str(free_port()), "POLYMODAL_INDEXES": f"{index.path},{stale.path},{broken.path}"}
    rows = printed_results(polymodal("doctor", aligned_bundle, "--json", **environment))
    states = {(row["area"], row["check"]): row for row in rows if row["area"].startswith("index ")}
    assert {key: row["state"] for key, row in states.items()} == {
        ("index things", "files"): "ok",
        ("index things", "version"): "ok",
        ("index stale", "files"): "ok",
        ("index stale", "version"): "warn",
        ("index broken", "files"): "fail",
    }
    assert "3 items of 16 numbers" in states["index things", "files"]["found"]
    assert f"--out {stale.path} --bundle BUNDLE --restart" in states["index stale", "version"]["advice"]


def test_a_failure_is_in_the_table_with_advice_and_in_the_exit_code(tmp_path):
    result = polymodal("doctor", tmp_path, POLYMODAL_PORT=str(free_port()), POLYMODAL_QEUE_LIMIT="3")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "POLYMODAL_QEUE_LIMIT: no such setting; did you mean POLYMODAL_QUEUE_LIMIT?" in result.stdout
    assert "SHA256SUMS is missing" in result.stdout
    assert "→ copy it again" in result.stdout
    assert result.stdout.rstrip().endswith("2 fail")


def test_a_service_that_holds_the_port_is_checked_too(listening, tiny_bundle):  # noqa: F811
    with listening() as running:
        result = polymodal("doctor", tiny_bundle, "--json", POLYMODAL_PORT=str(running.port))
    rows = printed_results(result)
    (held,) = [row for row in rows if row["area"] == "port"]
    assert held["state"] == "ok"
    assert "a Polymodal service" in held["found"]
    assert {"/livez", "/readyz", "/startupz", "version"} <= {row["check"] for row in rows}


def test_the_admin_port_is_checked_too(tmp_path):
    port, admin_port = free_port(), free_port()
    result = polymodal("doctor", tmp_path, "--json", POLYMODAL_PORT=str(port), POLYMODAL_ADMIN_PORT=str(admin_port))
    checks = [row["check"] for row in printed_results(result) if row["area"] == "port"]
    assert checks == [f"127.0.0.1:{port}", f"127.0.0.1:{admin_port}"]


# --- installation, settings, machine ---


def test_missing_and_outdated_packages_are_reported(monkeypatch):
    assert {result.state for result in installation.check()} == {State.OK}
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


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        pytest.param(
            {},
            "av is missing, soxr is missing: only for models that take it, pip install 'polymodal[audio]'",
            id="none",
        ),
        pytest.param({"av": "18.1.0", "soxr": "1.1.0"}, "av 18.1.0, soxr 1.1.0", id="both"),
        pytest.param(
            {"av": "9.0", "soxr": "1.1.0"},
            "av is 9.0, older than 14.0: only for models that take it, pip install 'polymodal[audio]'",
            id="outdated",
        ),
    ],
)
def test_the_decoders_of_a_modality_with_an_extra_are_reported_and_may_be_missing(monkeypatch, installed, words):
    def version(name):
        if name in ("av", "soxr") and name not in installed:
            raise installation.PackageNotFoundError(name)
        return installed.get(name) or real(name)

    real = installation.version
    monkeypatch.setattr(installation, "version", version)
    needed = ["numpy>=2", "torch>=2", 'av>=14.0; extra == "audio"', 'soxr>=0.5; extra == "audio"', 'x; extra == "y"']
    monkeypatch.setattr(installation, "requires", lambda _: needed)
    result = by_check(installation.check())["audio"]
    assert (result.state, result.found) == (State.OK, words)


def test_every_wrong_setting_has_its_own_result():
    environment = {"POLYMODAL_PORT": "99999", "POLYMODAL_RUNTIM": "onnx", "PATH": "/bin"}
    defaults, results = installation.read_settings(environment)
    assert defaults.port == Settings(workers=0).port
    assert {result.check for result in results} == {"POLYMODAL_PORT", "POLYMODAL_RUNTIM"}
    assert {result.state for result in results} == {State.FAIL}
    _, (result,) = installation.read_settings({"POLYMODAL_PORT": "1234"})
    assert (result.state, result.found) == (State.OK, "POLYMODAL_PORT")


@pytest.mark.parametrize(
    ("cpuinfo", "state", "message"),
    [
        pytest.param("model name\t: Xeon\nflags\t\t: fpu avx512_vnni sse\n", State.OK, "AVX-512 VNNI", id="vnni"),
        pytest.param("Features\t: fp asimd asimddp i8mm\n", State.OK, "i8mm and dot products", id="arm"),
        pytest.param("model name\t: EPYC\nflags\t\t: fpu avx2\n", State.WARN, "EPYC, without VNNI", id="without"),
        pytest.param(None, State.OK, "on Linux only", id="not-on-linux"),
    ],
)
def test_a_processor_is_judged_by_its_instructions(tmp_path, cpuinfo, state, message):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo, encoding="utf-8")
    result = machine._processor(processor(file))
    assert result.state is state
    assert message in result.found


def test_more_threads_than_cores_get_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "available_cpus", lambda: 2)
    many = by_check(machine.check(Settings(workers=4, inference_threads=2), {"OMP_NUM_THREADS": "64"}))
    assert (many["workers"].state, many["libraries"].state) == (State.WARN, State.WARN)
    assert "at most 2" in many["workers"].advice
    few = by_check(machine.check(Settings(workers=1, inference_threads=2), {"OMP_NUM_THREADS": "1"}))
    assert few["workers"].state is State.OK
    assert "libraries" not in few


@pytest.mark.parametrize("spare", [0, 64, OTHER_DESCRIPTORS - 1, OTHER_DESCRIPTORS])
def test_open_files_get_a_warning_if_the_service_would_lower_its_connections(monkeypatch, spare):
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 1000 + spare))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    result = by_check(machine.check(Settings(max_connections=1000), {}))["open files"]
    assert (result.state is State.WARN) == (affordable(1000) < 1000)


def test_memory_must_suffice_for_the_models_of_every_worker(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 500 * machine.MIB)
    settings = Settings(workers=2, inference_threads=1)  # noqa: F811
    assert machine.memory(settings, 100 * machine.MIB).state is State.OK
    short = machine.memory(settings, 300 * machine.MIB)
    assert short.state is State.WARN
    assert short.found == "about 900 MiB for 2 workers and the service, 500 MiB are free"


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


def test_a_bundle_is_loaded_and_its_golden_inputs_and_one_answer_are_computed(tiny_bundle):
    loaded = []
    settings = Settings(workers=1, inference_threads=1)  # noqa: F811
    results = by_check(bundle.check(BundleSource("mine", tiny_bundle), settings, loaded))
    assert [description.name for description in loaded] == ["mine"]
    assert {result.state for result in results.values()} == {State.OK}
    assert loaded[0].digest[:12] in results["files"].found
    assert "ms for image and text" in results["one answer"].found


def test_an_altered_bundle_fails_with_the_name_of_the_file(bundle_copy):
    (bundle_copy / "README.md").write_text("another card", encoding="utf-8")
    loaded = []
    (result,) = bundle.check(BundleSource("mine", bundle_copy), Settings(workers=1), loaded)
    assert (result.state, loaded) == (State.FAIL, [])
    assert "README.md" in result.found


# --- port ---


def test_a_port_is_free_or_the_process_that_holds_it_is_named():
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
def test_an_address_of_another_machine_is_reported(host):
    result = port.check(host, 8000)
    assert result.state is State.FAIL
    assert "POLYMODAL_HOST" in result.advice


def test_a_service_on_all_networks_is_reached_on_the_loopback_address():
    assert port.address_of("0.0.0.0", 1) == "http://127.0.0.1:1"  # noqa: S104
    assert port.address_of("::", 1) == "http://[::1]:1"
    assert port.address_of("labels.example", 1) == "http://labels.example:1"


# --- service ---


def test_all_checks_of_a_running_service_pass(listening, tiny_bundle):  # noqa: F811
    local = load_bundle(tiny_bundle, threads=1)
    with listening({"shapes": local}) as running:
        results = by_check(service.check(running.url, None, [local.description]))
    assert {result.state for result in results.values()} == {State.OK}
    assert set(results) == {"/livez", "/startupz", "/readyz", "version", "keys", "shapes", "one answer"}
    assert "as here" in results["shapes"].found


def test_another_version_and_a_missing_model_get_a_warning(listening, predictor, tiny_bundle):  # noqa: F811
    local = [load_bundle(tiny_bundle, name=name, threads=1).description for name in ("toy", "missing")]
    with listening({"toy": predictor}) as running:
        results = by_check(service.check(running.url, None, local))
    assert results["toy"].state is results["missing"].state is State.WARN
    assert "and here is" in results["toy"].found
    assert results["missing"].found == "not served; it serves toy"


def test_missing_wrong_and_narrow_keys_are_reported(listening, tmp_path):  # noqa: F811
    key, narrow = new_key(), new_key()
    scopes = {"all": (key, ["classify", "models"]), "narrow": (narrow, ["models"])}
    records = [make_record(name, digest(value), names, None) for name, (value, names) in scopes.items()]
    write_keys(tmp_path / "keys.json", records)
    with listening(api_keys_file=tmp_path / "keys.json") as running:
        results = [by_check(service.check(running.url, value, [])) for value in (None, "pm_wrong", narrow, key)]
        result = polymodal("doctor", "illustrations", "--url", running.url, "--json", PM_API_KEY=key)
    assert [checks["keys"].state for checks in results] == [State.WARN, State.FAIL, State.FAIL, State.OK]
    assert results[-1]["one answer"].state is State.OK
    assert "this key is valid" in result.stdout
    assert key not in result.output


def test_a_closed_port_is_reported():
    (result,) = service.check(f"http://127.0.0.1:{free_port()}", None, [])
    assert (result.state, result.found) == (State.FAIL, "no process listens there")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[", "http://host:port"])
def test_an_invalid_address_is_reported(url):
    (result,) = service.check(url, None, [])
    assert result.state is State.FAIL
    assert result.advice == "polymodal doctor --url http://127.0.0.1:8000"


@pytest.mark.parametrize("key", ["", "pm_ä", "pm_a\nX-Evil: 1"])
def test_an_invalid_key_is_reported_without_repeating_it(key):
    (result,) = service.check("http://127.0.0.1:1", key, [])
    assert result.found == "the key is none; allowed: one of `polymodal keys add`"


def test_an_address_with_a_path_is_reported(listening):  # noqa: F811
    with listening() as running:
        (result,) = service.check(f"{running.url}/v1/models", None, [])
    assert result.state is State.FAIL
    assert "without a path" in result.advice


def html(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>")


def json_of_another_service(connection, over):
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
        pytest.param(json_of_another_service, "application/json, from something else", id="another-service"),
        pytest.param(noise, "something else than HTTP", id="noise"),
        pytest.param(hang, "no answer within 0.3 s", id="hangs"),
        pytest.param(drip, "no answer within 0.3 s", id="drips"),
    ],
)
def test_a_server_that_is_not_polymodal_is_named(raw_server, talk, message):
    with raw_server(talk) as url:
        (result,) = service.check(url, None, [], timeout_s=0.3)
        assert not service.is_polymodal(url) or talk in (hang, drip)
    assert result.state is State.FAIL
    assert message in result.found


def test_the_documentation_has_every_area():
    documentation = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    for area in ("installation", "settings", "machine", "bundle", "port", "service"):
        assert f"| {area} |" in documentation
