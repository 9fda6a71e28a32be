"""A client that offers an upgrade to another protocol gets the same answers as without the offer, wherever packets end."""

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.hostile.conversations import AMBIGUOUS, MODELS, OFFERS, TUNNELS, conversation
from tests.packets import answers_to

JAVA = Path(__file__).with_name("JavaClient.java")


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_answers_are_those_without_the_offer_wherever_packets_end(offer):
    expected = await answers_to(conversation(b""))
    answers = [json.loads(line) for line in re.findall(rb"\[.*?\](?=HTTP|$)", expected)]
    assert [path for _, path, _, _ in answers] == ["/length", "/none", "/get", "/chunked", "/waits", "/last"]
    assert [body for *_, body in answers][::3] == [MODELS.decode(), MODELS.decode() + "abc"]
    assert expected.count(b"100 Continue") == 1
    sent = conversation(offer)
    assert await answers_to(sent) == expected
    assert await answers_to(*(sent[at : at + 1] for at in range(len(sent)))) == expected
    for at in range(1, len(sent)):
        assert await answers_to(sent[:at], sent[at:]) == expected, sent[:at]


@pytest.mark.parametrize("offer", [b"", OFFERS["h2c"]], ids=["no-offer", "h2c"])
@pytest.mark.parametrize("message", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_an_ambiguous_message_ends_the_connection_and_nothing_after_it_is_read(message, offer):
    sent = b"POST / HTTP/1.1\r\nHost: x\r\n" + offer + message + MODELS
    for pieces in ((sent,), (sent[:-60], sent[-60:]), [sent[at : at + 1] for at in range(len(sent))]):
        received = await answers_to(*pieces)
        assert received.count(b"HTTP/1.1 ") == 1
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"malformed_request"' in received


@pytest.mark.parametrize("tunnel", TUNNELS.values(), ids=TUNNELS)
async def test_no_tunnel_is_opened_and_earlier_requests_are_answered_first(tunnel):
    for sent in (tunnel + MODELS, MODELS + tunnel + MODELS):
        before = sent.count(MODELS) - 1
        for pieces in ((sent,), [sent[at : at + 1] for at in range(len(sent))]):
            received = await answers_to(*pieces)
            assert received.count(b"HTTP/1.1 200 OK") == before
            assert received.count(b"HTTP/1.1 400 ") == received.count(b"HTTP/1.1 4") == 1
            assert received.index(b"HTTP/1.1 400 ") >= received.rfind(b"HTTP/1.1 200 OK")


async def test_a_head_with_an_offer_has_the_limit_of_other_heads():
    offer = b"Connection: Upgrade\r\nUpgrade: %s\r\n" % (b"x" * 5000)
    received = await answers_to(b"GET / HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
    assert received.startswith(b"HTTP/1.1 431 ")


def test_a_body_that_looks_like_a_request_is_not_answered_as_one(listening, eventually):
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(
        MODELS
    )
    with listening() as service, socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(head + OFFERS["h2c"] + b"\r\n")
        eventually(lambda: service.app.state.service.inside == 1)
        connection.sendall(MODELS + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"400", b"200"]
    assert b'"code":"malformed_body"' in received
    assert b'"default":"toy"' not in received


# --- clients that offer an upgrade by default ---


def has_http2() -> bool:
    curl = shutil.which("curl")
    return (
        bool(curl) and "HTTP2" in subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
    )


@pytest.mark.skipif(not has_http2(), reason="no curl that speaks HTTP/2 is installed")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(["-H", "Content-Type: application/json", "-d", '{"text": "blue"}'], id="json"),
        pytest.param(
            ["-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "-d", '{"text": "blue"}'],
            id="chunked",
        ),
        pytest.param(["-H", "Expect: 100-continue", "-F", "text=blue"], id="form"),
    ],
)
def test_curl_with_http2_gets_its_answers_on_one_connection(listening, body):
    with listening() as service:
        url = f"{service.url}/v1/classify"
        shown = ["-w", "\n%{http_code} %{http_version} %{num_connects}\n"]
        command = ["curl", "-q", "--noproxy", "*", "-s", "-m", "20", "--http2", *shown, *body, url, url]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [json.loads(line)["labels"][0]["label"] for line in lines[::2]] == ["blue", "blue"]
    assert lines[1::2] == ["200 1.1 1", "200 1.1 0"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java is installed")
def test_the_http_client_of_java_gets_its_answers(listening):
    with listening() as service:
        process = subprocess.run(
            ["java", str(JAVA), service.url], capture_output=True, text=True, check=False, timeout=120
        )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split(" ", 3)[:3] for line in lines] == [
        [name, "HTTP_1_1", "200"] for name in ("json", "form", "models", "chunked")
    ]
    answers = [json.loads(line.split(" ", 3)[3]) for line in lines]
    assert [answer["labels"][0]["label"] for answer in (answers[0], answers[1], answers[3])] == ["blue", "green", "red"]
    assert answers[2]["default"] == "toy"
