"""What only a real connection or a real process shows."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from polymodal.app.access.keys import digest

ROOT = Path(__file__).parents[2]
TOY_SERVICE = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
from polymodal.app.main import serve
from polymodal.app.settings import load_settings
class Sleepy(toy.Arithmetic):
    def encode(self, modality, batch):
        if modality == "text" and (batch["ids"] > 1).sum() == 8:  # as many known words as there can be
            time.sleep(60)
        return super().encode(modality, batch)
serve(load_settings(os.environ), {"toy": toy.make_predictor(runtime=Sleepy())})
"""


class Process:
    """A service in a process of its own."""

    def __init__(self, **settings: object) -> None:
        variables = {f"POLYMODAL_{name.upper()}": str(value) for name, value in {"port": 0, **settings}.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POLYMODAL_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", TOY_SERVICE, str(Path(__file__).with_name("conftest.py"))],
            env=inherited | {"PYTHONPATH": str(ROOT)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"running on (http://127.0.0.1:(\d+))", line):
                self.url, self.port = found[1], int(found[2])
                self.second_url = json.loads(line).get("second_port")
                return
        self.wait()
        raise AssertionError("".join(self.lines))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        with self.process:
            self.lines += self.process.communicate(timeout=20)[0].splitlines()
        return self.process.returncode


@pytest.fixture
def start():
    started: list[Process] = []

    def start(**settings) -> Process:
        started.append(Process(**settings))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def half_sent(port: int, body: bytes) -> socket.socket:
    """A connection over which a request came, but only half of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body[: len(body) // 2])
    return connection


def inside(url: str) -> float:
    (line,) = re.findall(r"^polymodal_requests_inside (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(line)


def test_sigterm_finishes_what_was_accepted_refuses_what_is_new_and_exits_with_0(start, eventually):
    service = start(drain_timeout_s=10)
    body = json.dumps({"text": "blue"}).encode()
    with half_sent(service.port, body) as connection:
        eventually(lambda: inside(service.url) == 1)
        service.process.send_signal(signal.SIGTERM)
        refused = eventually(lambda: (probe := httpx.get(f"{service.url}/readyz")).status_code == 503 and probe)
        assert refused.json()["detail"].startswith("the service is draining")
        assert httpx.get(f"{service.url}/livez").status_code == 200
        late = httpx.post(f"{service.url}/v1/classify", json={"text": "red"})
        assert (late.status_code, late.headers["Retry-After"]) == (503, "10")
        connection.sendall(body[len(body) // 2 :])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"label":"blue"' in answer
    assert service.wait() == 0


def test_a_second_sigterm_stops_at_once_and_tells_that_something_was_given_up(start, eventually):
    service = start(drain_timeout_s=60)
    with half_sent(service.port, json.dumps({"text": "blue"}).encode()):
        eventually(lambda: inside(service.url) == 1)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
        assert service.stop() == 1
    assert any("drain_ended_early" in line for line in service.lines)


def test_what_does_not_end_in_time_is_given_up_with_exit_code_1(start, eventually):
    service = start(drain_timeout_s=0)
    with half_sent(service.port, json.dumps({"text": "blue"}).encode()):
        eventually(lambda: inside(service.url) == 1)
        assert service.stop() == 1


def test_a_second_port_has_what_is_not_for_everyone_and_the_first_one_lacks_it(start):
    service = start(admin_port=0)
    first, second = service.url, service.second_url
    statuses = {
        path: (httpx.get(first + path).status_code, httpx.get(second + path).status_code)
        for path in (
            "/livez",
            "/readyz",
            "/metrics",
            "/docs",
            "/docs/files/swagger-ui.css",
            "/openapi.json",
            "/",
            "/v1/models",
        )
    }
    both, only_first, only_second = (200, 200), (200, 404), (404, 200)
    assert statuses == {
        **dict.fromkeys(("/livez", "/readyz"), both),
        **dict.fromkeys(("/", "/v1/models"), only_first),
        **dict.fromkeys(("/metrics", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"), only_second),
    }
    assert "/v1/classify" in httpx.get(f"{second}/openapi.json").json()["paths"]
    assert service.stop() == 0


def test_both_ports_drain_after_one_signal(start, eventually):
    service = start(admin_port=0, drain_timeout_s=10)
    second = service.second_url
    body = json.dumps({"text": "blue"}).encode()
    with half_sent(service.port, body) as connection:
        eventually(lambda: inside(second) == 1)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{second}/readyz").status_code == 503)
        assert httpx.get(f"{second}/livez").status_code == 200
        connection.sendall(body[len(body) // 2 :])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert service.wait() == 0


def test_a_second_port_in_use_ends_the_process_with_a_line_that_says_so(start):
    service = start()
    with pytest.raises(AssertionError, match="Address already in use"):
        start(admin_port=service.port)


def keys_file(folder: Path, *keys: str) -> Path:
    records = [
        {"name": f"key-{number}", "sha256": digest(key), "scopes": ["classify", "metrics"], "created": "2026-01-01"}
        for number, key in enumerate(keys)
    ]
    new = folder / "new.json"
    new.write_text(json.dumps({"keys": records}))
    return new.rename(folder / "keys.json")


def status(url: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/classify", json={"text": "red"}, headers=headers).status_code


def test_keys_are_exchanged_while_the_service_runs(start, eventually, tmp_path):
    service = start(api_keys_file=keys_file(tmp_path, "first"))
    assert (status(service.url, "first"), status(service.url, "second")) == (200, 401)
    keys_file(tmp_path, "second")
    eventually(lambda: status(service.url, "second") == 200)
    assert status(service.url, "first") == 401
    (tmp_path / "keys.json").write_text("{")
    eventually(lambda: "polymodal_api_keys_stale 1.0" in scrape(service.url, "second"))
    assert status(service.url, "second") == 200
    service.stop()
    assert any("api_keys_file_refused" in line for line in service.lines)


def scrape(url: str, key: str) -> str:
    return httpx.get(f"{url}/metrics", headers={"X-API-Key": key}).text


def test_a_large_body_without_a_key_is_refused_before_it_is_read_and_the_connection_goes_on(listening, tmp_path):
    with listening(api_keys_file=keys_file(tmp_path, "first")) as service:
        head = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(head.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        with httpx.Client(base_url=service.url, timeout=30) as client:
            assert client.post("/v1/classify", content=b"x" * 15_000_000).status_code == 401
            assert client.post("/v1/classify", json={"text": "red"}, headers={"X-API-Key": "first"}).status_code == 200


SECRET = "distinctive-7f3a"
KEY = f"pm_{SECRET}"
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=frontier"}
JSON = {"Content-Type": "application/json"}


def form(name: str, filename: str, content: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return b"--frontier\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n--frontier--\r\n"


def secretive(url: str, solid) -> list[httpx.Response]:
    """Answers to good and to failing requests which carry the secret wherever one can be carried."""
    image, known = solid("red"), {"Authorization": f"Bearer {KEY}"}
    carried = {
        **known,
        "Cookie": SECRET,
        "User-Agent": SECRET,
        "Referer": SECRET,
        "X-Forwarded-For": SECRET,
        "Origin": SECRET,
    }
    bodies = [
        (JSON, json.dumps({"text": SECRET}).encode()),
        (JSON, json.dumps({"text": f"red red red red red {SECRET}"}).encode()),  # the model fails
        (JSON, json.dumps({"text": SECRET, "image": SECRET}).encode()),
        (JSON, json.dumps({"text": {SECRET: SECRET}}).encode()),
        (JSON, b'{"text": "' + SECRET.encode()),
        (JSON, b"\xff" + SECRET.encode()),
        (BOUNDARY, form("image", SECRET, image)),
        (BOUNDARY, form("image", f"{SECRET}.png", SECRET.encode())),
        (BOUNDARY, form("image", f"{SECRET}.png", image[:60])),
        (BOUNDARY, form("text", SECRET, SECRET.encode())),
        (BOUNDARY, form("text", SECRET, b"\xff" + SECRET.encode())),
        (BOUNDARY, form("image", SECRET, image)[:-20]),
        ({"Content-Type": "text/plain"}, SECRET.encode()),
        ({}, SECRET.encode()),
    ]
    items = [{"text": SECRET}, {"text": f"red red red red red {SECRET}"}, {"image": SECRET}]
    refused = [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Bearer x{KEY}"},
        {"X-API-Key": f"{KEY} x"},
    ]
    refused.append({**known, "X-API-Key": f"x{KEY}"})
    return [
        *(httpx.post(f"{url}/v1/classify", headers={**carried, **kind}, content=body) for kind, body in bodies),
        httpx.post(f"{url}/v1/classify/batch", headers=carried, json={"items": items}),
        *(httpx.post(f"{url}/v1/classify", headers=headers, json={"text": SECRET}) for headers in refused),
        httpx.get(f"{url}/v1/models", headers=carried),
        httpx.get(f"{url}/metrics", headers=carried),
        httpx.get(f"{url}/v1/classify", headers=carried, params={"key": KEY}),
        httpx.get(f"{url}/livez", headers={**carried, "X-Request-Id": f"{SECRET} with spaces"}),
    ]


def test_no_secret_and_nothing_that_a_client_sent_reaches_the_log_or_another_answer(start, tmp_path, solid):
    service = start(api_keys_file=keys_file(tmp_path, KEY), log_level="debug", cors_origins="https://app.example")
    answers = secretive(service.url, solid)
    service.stop()
    statuses = {answer.status_code for answer in answers}
    assert {200, 400, 401, 403, 405, 415, 422, 500} <= statuses
    for answer in answers:
        assert SECRET not in answer.text + str(answer.headers), (answer.request, answer.text)
        assert not any(inner in answer.text for inner in ("Traceback", ".py", str(ROOT), "passwd"))
    log = "\n".join(service.lines)
    assert "request_failed" in log
    assert SECRET not in log
    assert digest(KEY) not in log


def test_an_idle_service_stops_at_once(start):
    service = start()
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 3


def test_a_hung_computation_does_not_keep_the_process_alive(start):
    service = start(drain_timeout_s=0, request_timeout_ms=100)
    answer = httpx.post(f"{service.url}/v1/classify", json={"text": "blue " * 8})
    assert answer.status_code == 504
    assert "with a worker for 0." in answer.json()["detail"]
    assert "queue;dur=" in answer.headers["Server-Timing"]
    assert service.stop() == 1
    assert any("inference_abandoned" in line for line in service.lines)


def test_every_line_of_the_log_is_json_unless_a_terminal_reads_it(start):
    service = start()
    answer = httpx.post(f"{service.url}/v1/classify", json={"text": "red red red red red"})
    assert answer.status_code == 500
    service.stop()
    lines = [json.loads(line) for line in service.lines]
    assert {"event", "level", "logger", "timestamp"} <= set.intersection(*(set(line) for line in lines))
    (failure,) = [line for line in lines if line["event"] == "request_failed"]
    assert failure["request_id"] == answer.headers["X-Request-Id"]
    assert "secret: /etc/passwd" in failure["exception"]


def run_serve(**settings) -> subprocess.CompletedProcess[str]:
    imports = "import os; from polymodal.app.main import serve; from polymodal.app.settings import load_settings"
    script = f"{imports}; serve(load_settings(os.environ))"
    variables = {f"POLYMODAL_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_refused_bundle_ends_the_process_with_one_clear_line_before_the_port_opens(tmp_path):
    ended = run_serve(bundles=f"broken={tmp_path}", port=0)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"polymodal: {tmp_path}")
    assert "running on" not in ended.stdout


def test_a_port_in_use_ends_the_process_with_a_line_that_says_so(start):
    service = start()
    with socket.create_connection(("127.0.0.1", service.port)):
        pass
    with pytest.raises(AssertionError, match="address already in use"):
        start(port=service.port)


def ask(url: str, text: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/classify", json={"text": text}, timeout=30)


def test_twenty_clients_at_once_get_their_own_answers(listening):
    colours = ["red", "green", "blue", "red"] * 5
    with listening() as service, ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(partial(ask, service.url), colours))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert [answer.json()["labels"][0]["label"] for answer in answers] == colours


def test_50_mb_in_chunks_are_answered_while_they_come_and_harm_nobody(listening):
    def body():
        for _ in range(50):
            yield b"x" * 1_000_000

    with listening() as service, httpx.Client(base_url=service.url, timeout=30) as client:
        answer = client.post("/v1/classify", content=body(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_bytes")
        assert client.post("/v1/classify", json={"text": "red"}).status_code == 200


def test_50_mb_declared_are_answered_before_they_come(listening):
    with listening() as service, socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up_leaves_the_queue(listening, runtime, eventually):
    with listening() as service:
        inner = service.app.state.service
        runtime.may_go.clear()
        connections = [half_sent(service.port, b'{"text": "red"}') for _ in range(3)]
        for number, connection in enumerate(connections):
            connection.sendall(b'{"text": "red"}'[7:])
            eventually(lambda number=number: inner.waiting == number and inner.busy_s)
        connections[1].close()
        eventually(lambda: inner.waiting == 1)
        runtime.may_go.set()
        for connection in (connections[0], connections[2]):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.close()


def test_who_sends_no_more_gets_the_answer_and_who_has_gone_is_noticed_on_the_real_event_loop(start, eventually):
    """uvloop, and a real worker process."""
    service = start()
    for hangs_up in (False, True):
        with half_sent(service.port, b'{"text": "red"}') as connection:
            eventually(lambda: inside(service.url) == 1)
            connection.sendall(b'{"text": "red"}'[7:])
            connection.shutdown(socket.SHUT_WR)
            if not hangs_up:
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 200 OK")
                assert answer.count(b"HTTP/1.1") == 1
        eventually(lambda: inside(service.url) == 0)


def test_a_server_does_not_say_what_it_is(listening):
    with listening() as service:
        assert "server" not in httpx.get(f"{service.url}/livez").headers
