"""Behaviour that only a real connection or a real process shows."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from polymodal.app.access.keys import digest
from tests.serving import PROJECT, SERVE_TOY, Service, get, post

BODY = b'{"text": "blue"}'
HALF = len(BODY) // 2
VIEWER = "/docs/files/swagger-ui.css"


def half_sent(port: int) -> socket.socket:
    """Return a connection over which a request came, but only half of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
    connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + BODY[:HALF])
    return connection


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def inside(url: str) -> float:
    """Return the number of requests in the service."""
    (line,) = re.findall(r"^polymodal_requests_inside (\S+)$", get(f"{url}/metrics").text, re.MULTILINE)
    return float(line)


def test_after_sigterm_accepted_requests_are_answered_and_new_ones_refused(start_toy, eventually):
    service = start_toy(drain_timeout_s=10)
    with half_sent(service.port) as connection:
        eventually(lambda: inside(service.url) == 1)
        service.process.terminate()
        not_ready = eventually(lambda: (probe := service.get("/readyz")).status_code == 503 and probe)
        assert not_ready.json()["detail"].startswith("the service is draining")
        assert service.get("/livez").status_code == 200
        late = service.classify()
        assert (late.status_code, late.headers["Retry-After"]) == (503, "10")
        connection.sendall(BODY[HALF:])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"label":"blue"' in answer
    assert service.wait() == 0


def test_a_second_sigterm_stops_at_once_and_the_abandoned_request_is_logged(start_toy, eventually):
    service = start_toy(drain_timeout_s=60)
    with half_sent(service.port):
        eventually(lambda: inside(service.url) == 1)
        service.process.terminate()
        eventually(lambda: service.get("/readyz").status_code == 503)
        service.stop(code=1)
    (event,) = service.events("drain_ended_early")
    assert event["abandoned"] == 1


def test_the_exit_code_is_1_when_a_request_is_abandoned_at_the_drain_timeout(start_toy, eventually):
    service = start_toy(drain_timeout_s=0)
    with half_sent(service.port):
        eventually(lambda: inside(service.url) == 1)
        service.stop(code=1)


def test_the_admin_port_has_the_routes_of_operators_and_the_main_port_lacks_them(start_toy):
    service = start_toy(admin_port=0)
    main, admin = service.url, service.admin_url
    statuses = {
        path: (get(main + path).status_code, get(admin + path).status_code)
        for path in ("/livez", "/readyz", "/metrics", "/docs", VIEWER, "/openapi.json", "/", "/v1/models")
    }
    both, only_main, only_admin = (200, 200), (200, 404), (404, 200)
    assert statuses == {
        **dict.fromkeys(("/livez", "/readyz"), both),
        **dict.fromkeys(("/", "/v1/models"), only_main),
        **dict.fromkeys(("/metrics", "/docs", VIEWER, "/openapi.json"), only_admin),
    }
    assert "/v1/classify" in get(f"{admin}/openapi.json").json()["paths"]
    service.stop()


def test_both_ports_drain_after_one_signal(start_toy, eventually):
    service = start_toy(admin_port=0, drain_timeout_s=10)
    admin = service.admin_url
    with half_sent(service.port) as connection:
        eventually(lambda: inside(admin) == 1)
        service.process.terminate()
        eventually(lambda: get(f"{admin}/readyz").status_code == 503)
        assert get(f"{admin}/livez").status_code == 200
        connection.sendall(BODY[HALF:])
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")
    assert service.wait() == 0


@pytest.mark.parametrize("setting", ["port", "admin_port"])
def test_a_port_in_use_ends_the_process_with_a_line_that_names_the_reason(setting):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with Service(*SERVE_TOY, **{setting: port}) as service:
            assert service.wait() != 0
            assert "address already in use" in service.log.lower()


# --- keys ---


def keys_file(folder: Path, *keys: str) -> Path:
    records = [
        {"name": f"key-{number}", "sha256": digest(key), "scopes": ["classify", "metrics"], "created": "2026-01-01"}
        for number, key in enumerate(keys)
    ]
    new = folder / "new.json"
    new.write_text(json.dumps({"keys": records}))
    return new.rename(folder / "keys.json")


SECOND = {"X-API-Key": "second"}


def status(url: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return post(f"{url}/v1/classify", json={"text": "red"}, headers=headers).status_code


def test_keys_are_replaced_while_the_service_runs(start_toy, eventually, tmp_path):
    service = start_toy(api_keys_file=keys_file(tmp_path, "first"))
    assert (status(service.url, "first"), status(service.url, "second")) == (200, 401)
    keys_file(tmp_path, "second")
    eventually(lambda: status(service.url, "second") == 200)
    assert status(service.url, "first") == 401
    (tmp_path / "keys.json").write_text("{")
    eventually(lambda: "polymodal_api_keys_stale 1.0" in get(f"{service.url}/metrics", headers=SECOND).text)
    assert status(service.url, "second") == 200
    assert service.events("api_keys_file_refused")


def test_a_large_body_without_a_key_is_refused_before_it_is_read_and_the_connection_stays_open(listening, tmp_path):
    with listening(api_keys_file=keys_file(tmp_path, "first")) as service:
        head = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(head.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        with httpx.Client(base_url=service.url, timeout=30) as client:
            assert client.post("/v1/classify", content=b"x" * 15_000_000).status_code == 401
            assert client.post("/v1/classify", json={"text": "red"}, headers={"X-API-Key": "first"}).status_code == 200


# --- secrets ---

SECRET = "distinctive-7f3a"
KEY = f"pm_{SECRET}"
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=frontier"}
JSON = {"Content-Type": "application/json"}


def form(name: str, filename: str, content: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return b"--frontier\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n--frontier--\r\n"


def responses_to_secrets(url: str, solid) -> list[httpx.Response]:
    """Return responses to good and to failing requests that have the secret wherever a client can put one."""
    image, authorization = solid("red"), {"Authorization": f"Bearer {KEY}"}
    headers = {
        **authorization,
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
    wrong_keys = [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Bearer x{KEY}"},
        {"X-API-Key": f"{KEY} x"},
        {**authorization, "X-API-Key": f"x{KEY}"},
    ]
    return [
        *(post(f"{url}/v1/classify", headers={**headers, **kind}, content=body) for kind, body in bodies),
        post(f"{url}/v1/classify/batch", headers=headers, json={"items": items}),
        *(post(f"{url}/v1/classify", headers=wrong, json={"text": SECRET}) for wrong in wrong_keys),
        get(f"{url}/v1/models", headers=headers),
        get(f"{url}/metrics", headers=headers),
        get(f"{url}/v1/classify", headers=headers, params={"key": KEY}),
        get(f"{url}/livez", headers={**headers, "X-Request-Id": f"{SECRET} with spaces"}),
    ]


def test_no_secret_and_nothing_that_a_client_sent_reaches_the_log_or_a_response(start_toy, tmp_path, solid):
    service = start_toy(api_keys_file=keys_file(tmp_path, KEY), log_level="debug", cors_origins="https://app.example")
    responses = responses_to_secrets(service.url, solid)
    service.stop()
    assert {200, 400, 401, 403, 405, 415, 422, 500} <= {response.status_code for response in responses}
    for response in responses:
        assert SECRET not in response.text + str(response.headers), (response.request, response.text)
        assert not any(internal in response.text for internal in ("Traceback", ".py", str(PROJECT), "passwd"))
    assert service.events("request_failed")
    assert SECRET not in service.log
    assert digest(KEY) not in service.log


# --- the process ---


def test_an_idle_service_stops_at_once(start_toy):
    service = start_toy(drain_timeout_s=100)
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 50


def test_a_hung_computation_does_not_keep_the_process_alive(start_toy):
    service = start_toy(drain_timeout_s=0, request_timeout_ms=100)
    answer = service.classify("blue " * 8)
    assert answer.status_code == 504
    assert "with a worker for 0." in answer.json()["detail"]
    assert "queue;dur=" in answer.headers["Server-Timing"]
    service.stop(code=1)
    assert service.events("inference_abandoned")


def test_every_line_of_the_log_is_json_unless_it_goes_to_a_terminal(start_toy):
    service = start_toy()
    answer = service.classify("red red red red red")
    assert answer.status_code == 500
    service.stop()
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert {"event", "level", "logger", "timestamp"} <= set.intersection(*(set(line) for line in lines))
    (failure,) = service.events("request_failed")
    assert failure["request_id"] == answer.headers["X-Request-Id"]
    assert "secret: /etc/passwd" in failure["exception"]


def test_a_broken_index_ends_the_process_with_one_line_before_the_port_opens(tmp_path):
    with Service(indexes=f"broken={tmp_path}", workers=0) as service:
        assert service.wait() == 1
        (line,) = service.log.splitlines()
    assert line.startswith(f"polymodal: {tmp_path}: index.json is missing; allowed: a folder written by")


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 2}], ids=["thread", "processes"])
def test_a_refused_bundle_ends_the_process_with_one_line_before_the_port_opens(tmp_path, settings):
    with Service(bundles=f"broken={tmp_path}", **settings) as service:
        assert service.wait() == 1
        (line,) = service.log.splitlines()
    assert line.startswith(f"polymodal: {tmp_path}")


# --- connections ---


def test_twenty_clients_at_once_get_their_own_answers(listening):
    colours = ["red", "green", "blue", "red"] * 5
    with listening() as service, ThreadPoolExecutor(20) as clients:
        bodies = [{"text": colour} for colour in colours]
        answers = list(clients.map(lambda body: post(f"{service.url}/v1/classify", json=body), bodies))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert [answer.json()["labels"][0]["label"] for answer in answers] == colours


def test_a_chunked_body_of_50_mb_is_refused_while_it_is_sent_and_the_client_can_go_on(listening):
    def body():
        for _ in range(50):
            yield b"x" * 1_000_000

    with listening() as service, httpx.Client(base_url=service.url, timeout=30) as client:
        answer = client.post("/v1/classify", content=body(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_bytes")
        assert client.post("/v1/classify", json={"text": "red"}).status_code == 200


def test_a_declared_body_of_50_mb_is_refused_before_it_is_sent(listening):
    with listening() as service, socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_the_item_of_a_client_that_disconnects_leaves_the_queue(listening, runtime, eventually):
    with listening() as service:
        inner = service.app.state.service
        runtime.may_go.clear()
        connections = [half_sent(service.port) for _ in range(3)]
        for number, connection in enumerate(connections):
            connection.sendall(BODY[HALF:])
            eventually(lambda number=number: inner.waiting == number and inner.busy_s)
        connections[1].close()
        eventually(lambda: inner.waiting == 1)
        runtime.may_go.set()
        for connection in (connections[0], connections[2]):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.close()


@pytest.mark.parametrize("disconnects", [False, True], ids=["half-closed", "disconnected"])
def test_a_half_closed_connection_gets_its_answer_and_a_disconnected_client_is_noticed(
    start_toy, eventually, disconnects
):
    """With uvloop, as in production."""
    service = start_toy()
    with half_sent(service.port) as connection:
        eventually(lambda: inside(service.url) == 1)
        connection.sendall(BODY[HALF:])
        connection.shutdown(socket.SHUT_WR)
        if not disconnects:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.count(b"HTTP/1.1") == 1
    eventually(lambda: inside(service.url) == 0)


def test_no_header_field_names_the_server_software(listening):
    with listening() as service:
        assert "server" not in get(f"{service.url}/livez").headers
