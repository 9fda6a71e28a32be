"""The service behind nginx as in docs/operations.md: prefix, TLS, clients' addresses, large bodies, offers to upgrade."""

import re
import shutil
import socket
import ssl
import subprocess
from contextlib import closing
from ipaddress import ip_network
from urllib.parse import urljoin

import httpx
import pytest

from benchmarks.servers import free_port
from polymodal.app.access.rates import Rate
from polymodal_client import Client
from tests.documents.blocks import read_blocks

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
if not NGINX or not shutil.which("openssl"):
    pytest.skip("nginx or openssl is not installed (Debian: apt-get install nginx openssl)", allow_module_level=True)

CONFIGURATION = """
daemon off; master_process off; pid nginx.pid; error_log nginx.log;
events {}
http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path a; uwsgi_temp_path b; scgi_temp_path c;
%s
}
"""
PREFIX = "/polymodal/"
LIMIT = 12
"""Requests of one address per day."""
KEPT = 'proxy_set_header Connection "";'
PASSED_ON = 'proxy_set_header Connection "Upgrade, HTTP2-Settings"; proxy_set_header Upgrade $http_upgrade;'


def documented(service_port: int, port: int, connection: str) -> str:
    """Return the document's example with other ports, another certificate, and these header fields for the service."""
    (example,) = [block.text for block in read_blocks("docs/operations.md") if block.language == "nginx"]
    for before, after in (
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{service_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/site.example.pem", "certificate.pem"),
        ("/etc/ssl/site.example.key", "key.pem"),
        (KEPT, connection),
    ):
        assert example.count(before) == 1
        example = example.replace(before, after)
    return CONFIGURATION % example


@pytest.fixture
def proxied(request, listening, tmp_path, eventually):
    """A client of the proxy in front of a service that limits addresses."""
    names = ["-subj", "/CN=site.example", "-addext", "subjectAltName=DNS:site.example,IP:127.0.0.1"]
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ]
    subprocess.run(["openssl", "req", "-x509", *key, *names], cwd=tmp_path, check=True, capture_output=True)
    port = free_port()
    trusted = {"trusted_proxies": (ip_network("127.0.0.1"),), "rate_limit_per_address": Rate(LIMIT, 86_400)}
    with listening(**trusted) as service:
        (tmp_path / "nginx.conf").write_text(documented(service.port, port, getattr(request, "param", KEPT)))
        command = [NGINX, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "nginx.log"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as nginx:
            try:
                eventually(lambda: nginx.poll() is not None or reachable(port))
                assert nginx.poll() is None, nginx.stderr.read()
                trust = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
                with httpx.Client(
                    base_url=f"https://127.0.0.1:{port}{PREFIX}", verify=trust, trust_env=False
                ) as client:
                    yield client
            finally:
                nginx.terminate()


def reachable(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_all_links_stay_below_the_prefix(proxied):
    moved = proxied.get(str(proxied.base_url).rstrip("/"))
    assert (moved.status_code, moved.headers["Location"]) == (301, str(proxied.base_url))
    page = proxied.get("")
    links = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    viewer = proxied.get("docs")
    links += re.findall(r"url: '([^']+)'", viewer.text)
    assert {"web/main.js", "docs", "openapi.json", "v1/models"} <= set(links)
    statuses = {address: proxied.get(urljoin(str(page.url), address)).status_code for address in links}
    assert statuses == dict.fromkeys(links, 200)
    assert proxied.head("v1/models").status_code == 200


def test_the_server_in_openapi_is_the_address_of_the_routes(proxied):
    answer = proxied.get("openapi.json")
    (server,) = answer.json()["servers"]
    base = urljoin(str(answer.url), server["url"]).rstrip("/")
    assert base == str(proxied.base_url).rstrip("/")
    assert proxied.get(f"{base}/readyz").status_code == 200
    assert proxied.post(f"{base}/v1/classify", json={"text": "blue"}).json()["labels"][0]["label"] == "blue"
    client = Client(str(proxied.base_url), transport=proxied._transport)
    assert client.classify(text="blue").labels[0].label == "blue"
    without_the_proxy = "http://127.0.0.1:8000/openapi.json"
    assert urljoin(without_the_proxy, server["url"]).rstrip("/") == "http://127.0.0.1:8000"


def test_each_client_has_its_own_limit(proxied):
    def classify(forwarded: str | None = None) -> httpx.Response:
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        return proxied.post("v1/classify", json={"text": "red"}, headers=headers)

    assert [classify("192.0.2.1").status_code for _ in range(LIMIT + 1)] == [200] * LIMIT + [429], (
        "the proxy is trusted, so the forwarded address counts"
    )
    assert classify("192.0.2.2").status_code == 200
    assert classify("192.0.2.3, 192.0.2.1").status_code == 429, "the last address that is not a trusted proxy's"


@pytest.mark.parametrize("proxied", [KEPT, PASSED_ON], indirect=True, ids=["as-documented", "offer-forwarded"])
def test_a_large_body_and_offers_to_upgrade_pass(proxied):
    offer = {
        "Content-Type": "application/json",
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "",
    }
    for padding in (0, 0, 10 << 20):
        answer = proxied.post("v1/classify", content=b'{"text": "blue"}' + b" " * padding, headers=offer)
        assert (answer.status_code, answer.json()["labels"][0]["label"]) == (200, "blue")
