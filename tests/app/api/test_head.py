"""HEAD returns the status and header fields of GET, without a body."""

import socket

import httpx
import pytest

from polymodal.app.access.keys import digest, make_record, write_keys
from polymodal.app.access.rates import Rate
from polymodal.app.main import create_app
from polymodal.app.probes import PROBES
from polymodal.model import TASKS

PAGE = ("/", "/web/page.css", "/web/icon.svg", "/web/main.js", "/web/examples/boat.png")
ADMIN = ("/metrics", "/docs", "/openapi.json")
MODELS = ("/v1/models", "/v1/models/toy")
NO_SUCH_ROUTE = ("/nowhere", "/v1/models/none", "/web/none.css", "/v1/classify", "/v1/classify/batch")
OWN = {"x-request-id", "date", "last-modified"}


async def both(client: httpx.AsyncClient, path: str, **options) -> tuple[httpx.Response, httpx.Response]:
    return await client.get(path, **options), await client.head(path, **options)


def fields(answer: httpx.Response) -> dict[str, str]:
    changing = {*OWN, "content-length"} if answer.url.path == "/metrics" or answer.status_code >= 400 else OWN
    return {name: value for name, value in answer.headers.items() if name not in changing}


@pytest.mark.parametrize("path", [*PAGE, *PROBES, *ADMIN, *MODELS, *NO_SUCH_ROUTE])
async def test_head_is_get_without_the_body(client, path):
    get, head = await both(client, path)
    assert (
        head.status_code
        == get.status_code
        == (200 if path not in NO_SUCH_ROUTE else 405 if "classify" in path else 404)
    )
    assert fields(head) == fields(get)
    assert int(head.headers["Content-Length"]) > 0
    assert head.content == b""
    assert get.content


@pytest.mark.parametrize("path", [*PROBES, *ADMIN])
async def test_the_admin_port_supports_head(settings, predictor, path):
    app = create_app(settings.model_copy(update={"admin_port": 0}), {"toy": predictor})
    transport = httpx.ASGITransport(app.state.admin)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://admin") as admin,
    ):
        get, head = await both(admin, path)
    assert (head.status_code, fields(head), head.content) == (200, fields(get), b"")


async def test_a_failed_probe_also_fails_with_head(client):
    await client._transport.app.state.service.drain(0)
    get, head = await both(client, "/readyz")
    assert (head.status_code, head.headers["Retry-After"]) == (get.status_code, get.headers["Retry-After"])
    assert (head.status_code, head.content) == (503, b"")


def test_no_byte_of_a_body_is_sent_and_the_connection_is_kept(listening):
    with listening() as service, socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for path in ("/", "/v1/models", "/web/page.css", "/nowhere", "/livez"):
            last = b"Connection: close\r\n" if path == "/livez" else b""
            connection.sendall(b"HEAD %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), last))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    *heads, rest = received.split(b"\r\n\r\n")
    assert [head.split(b" ", 2)[1] for head in heads] == [b"200", b"200", b"200", b"404", b"200"]
    assert all(b"\r\ncontent-length: " in head.lower() for head in heads)
    assert rest == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/", "/livez", "/metrics", "/openapi.json", "/docs", "/v1/models", "/v1/models/toy", "/web/page.css"]
)
async def test_allowed_methods_include_head_wherever_get_is_allowed(client, method, path):
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.json()["allowed"] == "GET, HEAD"


async def test_an_unchanged_file_is_not_sent_again(client):
    tag = (await client.head("/web/page.css")).headers["ETag"]
    get, head = await both(client, "/web/page.css", headers={"If-None-Match": tag})
    assert (head.status_code, fields(head)) == (get.status_code, fields(get))
    assert head.status_code == 304


async def test_log_and_metrics_have_the_method_of_the_request(client, logs):
    await client.head("/v1/models")
    line = next(entry for entry in logs if entry["event"] == "request")
    assert {name: line[name] for name in ("method", "route", "status", "response_bytes")} == {
        "method": "HEAD",
        "route": "/v1/models",
        "status": 200,
        "response_bytes": 0,
    }
    assert (
        'http_request_method="HEAD",http_response_status_code="200",http_route="/v1/models"'
        in (await client.get("/metrics")).text
    )


async def test_head_needs_the_same_key_and_has_the_same_limit_as_get(serving, tmp_path):
    keys = tmp_path / "keys.json"
    write_keys(
        keys,
        [make_record("shop", digest("k1"), ["models"], None), make_record("robot", digest("k2"), ["metrics"], None)],
    )
    async with serving(api_keys_file=keys, rate_limit_per_key=Rate(3, 86_400)) as client:
        for path in PAGE + PROBES + ADMIN + MODELS:
            get, head = await both(client, path)
            assert head.status_code == get.status_code == (200 if path in PAGE + PROBES else 401), path
        assert (await client.head("/v1/models", headers={"X-API-Key": "k2"})).status_code == 403
        answers = [await client.head("/v1/models", headers={"X-API-Key": "k1"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


async def test_allowed_sites_may_use_head_with_a_key(serving):
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "HEAD",
        "Access-Control-Request-Headers": "x-api-key",
    }
    async with serving(cors_origins="https://app.example") as client:
        answer = await client.options("/v1/models", headers=preflight)
        assert answer.status_code == 200
        answer = await client.head("/v1/models", headers={"Origin": "https://app.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


async def test_openapi_lists_get_without_head(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {method for item in paths.values() for method in item} == {"get", "post"}
    assert {path.replace("{name}", "toy") for path in paths} == {
        *PROBES,
        "/metrics",
        *MODELS,
        *("/v1/similarity", "/v1/search", "/v1/indexes"),
        *("/v1/audio/transcriptions", "/v1/audio/translations"),
        *("/v1/embeddings", "/rerank", "/v1/rerank", "/v2/rerank"),
        *(f"/v1/{task}{batch}" for task in TASKS for batch in ("", "/batch")),
    }
