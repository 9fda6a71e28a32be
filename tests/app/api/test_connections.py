"""Slow and misbehaving clients over real sockets: they get an error or are disconnected, and other clients are not affected."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from polymodal.app.api import errors
from polymodal.app.api.connections import MOST_AHEAD, ConnectionLimits, Connections
from tests.packets import answers_to

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def post(text: str, *fields: bytes) -> bytes:
    body = json.dumps({"text": text}).encode()
    return POST + b"\r\n".join((*fields, b"Content-Length: %d" % len(body), b"", body))


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


@contextmanager
def connected(service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """Return all bytes until the other side closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:  # closed with something unread
        pass
    return received


def problem_in(received: bytes) -> tuple[int, str]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Connection: close" in head
    problem = json.loads(body)
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code"}
    return int(head.split()[1]), problem["code"]


def closed_for(service, reason: str) -> bool:
    return f'polymodal_connections_closed_total{{reason="{reason}"}}' in httpx.get(f"{service.url}/metrics").text


def drip(connection: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send piece by piece until the other side responds or closes."""
    connection.settimeout(0.05)
    for piece in pieces:
        try:
            connection.sendall(piece)
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    connection.settimeout(10)


@pytest.mark.parametrize("line_ends", [0, 200])
def test_a_connection_without_a_request_is_closed(listening, line_ends):
    with listening(head_timeout_ms=200) as service, connected(service) as connection:
        drip(connection, iter([b"\r\n"] * line_ends))
        assert all_of(connection) == b""
        assert closed_for(service, "no_request")


def test_a_head_that_never_ends_is_rejected_after_the_timeout(listening):
    with listening(head_timeout_ms=300) as service, connected(service) as connection:
        connection.sendall(GET[:-2])
        drip(connection, (b"x-%d: y\r\n" % number for number in range(200)))
        assert problem_in(all_of(connection)) == (408, "head_too_slow")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET[:-2] + b"x: " + b"y" * 40_000 + b"\r\n\r\n", id="a-long-field"),
        pytest.param(GET[:-2] + b"".join(b"x%d: y\r\n" % number for number in range(6000)) + b"\r\n", id="many-fields"),
        pytest.param(b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a-long-address"),
        pytest.param(GET[:-2] + b"x: " + b"y" * 400_000, id="an-endless-field"),
    ],
)
def test_a_head_above_the_limit_is_rejected(listening, head):
    with listening() as service, connected(service) as connection:
        connection.sendall(head)
        assert problem_in(all_of(connection)) == (431, "head_too_large")


def test_a_head_in_many_packets_has_the_same_limit(listening):
    with listening(max_head_bytes=1024) as service, connected(service) as connection:
        connection.sendall(GET[:-2])
        drip(connection, (b"x-%d: %s\r\n" % (number, b"y" * 100) for number in range(200)))
        assert problem_in(all_of(connection)) == (431, "head_too_large")


def test_a_long_body_does_not_count_for_the_limit_of_the_next_head(listening):
    body = b'{"text": "blue"}' + b" " * 200_000
    with listening(max_head_bytes=1024) as service, connected(service) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + GET[:10])
        connection.sendall(GET[10:-2] + b"Connection: close\r\n\r\n")
        assert all_of(connection).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(b"what?\r\n\r\n", id="words"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", id="bytes-in-an-address"),
        pytest.param(GET[:-2] + b"a b: c\r\n\r\n", id="a-space-in-a-name"),
        pytest.param(POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two-lengths"),
        pytest.param(POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", id="one-length-twice"),
        pytest.param(b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no-chunk"),
    ],
)
def test_bytes_that_are_not_http_are_rejected(listening, sent):
    with listening() as service, connected(service) as connection:
        connection.sendall(sent)
        assert b'"code":"malformed_request"' in all_of(connection)
        assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_pipelined_requests_are_answered_in_order(listening):
    paths = [f"/nowhere/{number}" for number in range(MOST_AHEAD)]
    with listening() as service, connected(service) as connection:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode() for path in paths))
        connection.sendall(GET[:-2] + b"Connection: close\r\n\r\n")
        received = all_of(connection).decode()
    places = [received.index(f'"found":"{path}"') for path in paths]
    assert places == sorted(places)
    assert "200 OK" in received


def test_too_many_pipelined_requests_are_rejected(listening):
    with listening() as service, connected(service) as connection:
        connection.sendall(GET * 5000)
        assert b'"code":"too_far_ahead"' in all_of(connection)
        assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_at_the_limit_the_connection_that_has_been_idle_longest_is_closed(listening):
    with listening(max_connections=3) as service, ExitStack() as stack:
        first, *others = [stack.enter_context(connected(service)) for _ in range(4)]
        assert first.recv(1) == b""
        for connection in others:
            connection.sendall(GET)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_at_the_limit_without_an_idle_connection_a_new_one_is_rejected(listening, runtime, eventually):
    with listening(max_connections=2) as service, connected(service) as first, connected(service) as second:
        runtime.may_go.clear()
        for connection in (first, second):
            connection.sendall(post("blue"))
        eventually(lambda: service.app.state.service.inside == 2)
        with connected(service) as third:
            received = all_of(third)
        assert problem_in(received) == (503, "too_many_connections")
        assert b"Retry-After: 1" in received
        runtime.may_go.set()
        for connection in (first, second):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_many_idle_connections_do_not_block_a_request(listening):
    with listening(max_connections=100) as service, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(service))
        answer = httpx.post(f"{service.url}/v1/classify", json={"text": "red"})
        assert answer.json()["labels"][0]["label"] == "red"
        assert closed_for(service, "evicted")


def test_a_client_that_disconnects_within_a_body_is_counted_as_gone(listening, eventually):
    with listening() as service:
        with connected(service) as connection:
            connection.sendall(POST + b'Content-Length: 1000\r\n\r\n{"text": ')
            eventually(lambda: service.app.state.service.inside == 1)
        eventually(lambda: service.app.state.service.inside == 0)
        labels = 'error_type="client_gone",http_request_method="POST",http_response_status_code="499",http_route="/v1/classify"'
        gone = f"http_server_request_duration_seconds_count{{{labels}}} 1.0"
        assert gone in httpx.get(f"{service.url}/metrics").text


def test_a_body_that_continues_after_its_answer_is_not_read_to_its_end(listening):
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with listening() as service, connected(service) as connection:
        connection.sendall(head)
        received = b""
        while not received.endswith(b"}"):
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 404")
        drip(connection, (b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(400)))
        assert all_of(connection) == b""
        assert closed_for(service, "body_after_answer")


def test_a_connection_is_kept_after_an_error_for_a_whole_request(listening):
    with listening() as service, connected(service) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + GET)
        received = b""
        while b"200 OK" not in received:
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(GET, [200], id="a-probe"),
        pytest.param(post("blue"), [200], id="a-classification"),
        pytest.param(post("blue", b"Connection: close"), [200], id="with-close"),
        pytest.param(post("blue").replace(b"1.1", b"1.0", 1), [200], id="http-1.0"),
        pytest.param(post("blue", b"Expect: 100-continue"), [100, 200], id="with-expect-100"),
        pytest.param(post("blue", b"Connection: Upgrade", b"Upgrade: h2c"), [200], id="with-an-upgrade-offer"),
        pytest.param(post("blue") + post("red") + GET, [200, 200, 200], id="three-requests"),
        pytest.param(GET + post("blue") + GET[:-4], [200, 200], id="with-half-a-head"),
        pytest.param(GET + post("blue") + post("red")[:-4], [200, 200], id="with-half-a-body"),
        pytest.param(post("blue") + b"what?\r\n\r\n", [200, 400], id="with-bytes-that-are-not-http"),
        pytest.param(post("red red red red red"), [500], id="a-failing-model"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(GET[:-4], [], id="half-a-head"),
        pytest.param(post("blue")[:-4], [], id="half-a-body"),
    ],
)
def test_a_client_that_has_stopped_sending_gets_the_answers_to_its_whole_requests(
    listening, runtime, eventually, sent, expected
):
    with listening() as service:
        for computes in (False, True):
            with connected(service) as connection:
                if computes:
                    runtime.may_go.clear()
                connection.sendall(sent)
                if computes and b"POST" in sent:
                    eventually(lambda: service.app.state.service.inside)
                connection.shutdown(socket.SHUT_WR)
                threading.Timer(0.2, runtime.may_go.set).start()
                assert statuses(all_of(connection)) == expected
        eventually(lambda: not service.app.state.service.inside)


def test_the_work_for_a_client_that_disconnects_is_dropped(listening, runtime, eventually):
    with listening() as service:
        runtime.may_go.clear()
        with connected(service) as first:
            first.sendall(post("blue"))
            eventually(lambda: service.app.state.service.busy_s)
            with connected(service) as second:
                second.sendall(post("red") + post("green"))
                eventually(lambda: service.app.state.service.waiting == 1)
            eventually(lambda: service.app.state.service.inside == 1)
            runtime.may_go.set()
            assert first.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_refusal_comes_after_the_answers_to_earlier_requests(listening, runtime, eventually):
    with listening() as service, connected(service) as connection:
        runtime.may_go.clear()
        connection.sendall(post("blue") + b"what?\r\n\r\n" + GET)
        eventually(lambda: service.app.state.service.busy_s)
        connection.sendall(GET * 2000)
        runtime.may_go.set()
        assert statuses(all_of(connection)) == [200, 400]


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"1;x=" + b"y" * 9000, id="chunk-extension"),
        pytest.param(b"0\r\nX-Trailer: " + b"y" * 9000, id="trailer-field"),
        pytest.param(b"0\r\n" + b"X-Trailer: y\r\n" * 700, id="trailer-fields"),
    ],
)
def test_chunk_extensions_and_trailer_fields_have_the_limit_of_a_head(listening, endless):
    with listening(max_head_bytes=4096) as service, connected(service) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        drip(connection, (endless[at : at + 1000] for at in range(0, len(endless), 1000)))
        assert problem_in(all_of(connection)) == (431, "head_too_large")


def test_a_trailer_field_is_not_used_as_a_header_field(listening):
    """Proxies that check header fields may forward any trailer field."""
    body = b"10\r\n" + b'{"text": "blue"}' + b"\r\n0\r\nX-Request-Id: from-the-trailer\r\n\r\n"
    with listening() as service, connected(service) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body)
        received = all_of(connection)
    assert statuses(received) == [200]
    assert b"from-the-trailer" not in received


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        pytest.param(b"GET /a?b=c", "/a", "b=c", id="origin"),
        pytest.param(b"GET //x/a", "//x/a", "", id="origin-with-two-slashes"),
        pytest.param(b"GET /http://x/a", "/http://x/a", "", id="an-address-as-a-path"),
        pytest.param(b"GET http://x/a?b=c", "/a", "b=c", id="absolute"),
        pytest.param(b"GET http://x", "/", "", id="no-path"),
        pytest.param(b"POST http://x", "/", "", id="post-without-a-path"),
        pytest.param(b"GET HTTP://X", "/", "", id="capitals"),
        pytest.param(b"GET https://x", "/", "", id="https"),
        pytest.param(b"GET http://x?", "/", "", id="empty-query"),
        pytest.param(b"GET http://x?b=c", "/", "b=c", id="query-without-a-path"),
        pytest.param(b"GET http://x?/a", "/", "/a", id="a-path-in-the-query"),
        pytest.param(b"GET http://x//a", "//a", "", id="two-slashes"),
        pytest.param(b"GET http://elsewhere.example:8000/a", "/a", "", id="another-host"),
        pytest.param(b"GET http://user:word@x", "/", "", id="user"),
        pytest.param(b"GET http://@x:", "/", "", id="empty-user-and-port"),
        pytest.param(b"GET http://a_b/a", "/a", "", id="underscore"),
        pytest.param(b"GET http://%61.b/a", "/a", "", id="percent"),
        pytest.param(b"GET http://[::1]:80", "/", "", id="ipv6"),
        pytest.param(b"GET http://127.0.0.1/a", "/a", "", id="ipv4"),
        pytest.param(b"OPTIONS *", "*", "", id="options"),
        pytest.param(b"OPTIONS http://x", "*", "", id="options-without-a-path"),
        pytest.param(b"OPTIONS http://x/", "/", "", id="options-with-a-path"),
        pytest.param(b"OPTIONS http://x?b", "/", "b", id="options-with-a-query"),
    ],
)
async def test_all_forms_of_a_target_are_parsed(line, path, query):
    received = await answers_to(line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert json.loads(received.partition(b"\r\n\r\n")[2])[1:3] == [path, query]


@pytest.mark.parametrize(
    "target", ["http://", "http:///a", "http://:80/a", "http://u@/a", "http:/a", "x:80", "a", "", "http://x#a"]
)
async def test_an_invalid_target_is_rejected(target):
    received = await answers_to(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode())
    assert problem_in(received) == (400, "malformed_request")


async def test_a_client_that_does_not_read_its_answer_is_disconnected():
    async def large_response(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    reasons = []
    limits = ConnectionLimits(connections=10, head_bytes=1024, head_s=10, answer_s=0.1)
    connections = Connections(limits, errors.raw_response_to, reasons.append)
    config = uvicorn.Config(large_response, log_config=None, ws="none", http="httptools")
    state = ServerState()
    protocol = partial(connections.protocol, config=config, server_state=state, app_state={})
    ours, theirs = socket.socketpair()
    watching = asyncio.create_task(connections.watch())
    with ours:
        await asyncio.get_running_loop().connect_accepted_socket(protocol, theirs)
        ours.sendall(GET)
        async with asyncio.timeout(10):
            while connections.open:  # noqa: ASYNC110 — no event announces the end of a connection
                await asyncio.sleep(0.02)
    watching.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)
    assert reasons == ["answer_not_taken"]


def test_a_low_limit_of_open_files_lowers_the_number_of_connections():
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300));"
        "from polymodal.app.api.connections import affordable; print(affordable(1000), affordable(10))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "150 10"
    assert "fewer_connections" in process.stdout
