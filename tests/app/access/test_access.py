"""Access: keys in headers, scopes of routes, and the responses to requests without a valid key."""

import base64
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Route
from typer.testing import CliRunner

from polymodal.app.access.keys import Unauthorized, digest, presented_key
from polymodal.app.access.rates import Rate
from polymodal.app.access.scopes import scopes
from polymodal.app.api.routing import Routes
from polymodal.app.cli import app as commands
from polymodal.app.probes import PROBES
from tests.app.conftest import write_toy_index
from tests.speech_models import scripted, tone, wav, write_speech

KEY = "pm_a-key-of-the-shop"
ROBOT = "pm_a-key-of-the-robot"
EXPIRED = "pm_a-key-that-has-expired"


def record(key: str, name: str, *scopes: str, **more) -> dict:
    return {"name": name, "sha256": digest(key), "scopes": scopes, "created": "2026-01-01", **more}


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.json"
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    records = [
        record(KEY, "shop", "classify", "embed", "transcribe", "search", "models"),
        record(ROBOT, "robot", "metrics", "docs"),
        record(EXPIRED, "expired", "classify", expires=yesterday),
    ]
    path.write_text(json.dumps({"keys": records}))
    path.chmod(0o600)
    return path


@pytest.fixture
def guarded(serving, keys_file):
    """A service that requires keys."""
    return lambda **changed: serving(**{"api_keys_file": keys_file, **changed})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def classify(client, headers=None):
    return await client.post("/v1/classify", json={"text": "red"}, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Authorization": f"Bearer {KEY}"}, id="bearer"),
        pytest.param({"Authorization": f"bearer  {KEY} "}, id="bearer-in-lower-case"),
        pytest.param({"X-API-Key": KEY}, id="x-api-key"),
        pytest.param({"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"}, id="both-the-same"),
        pytest.param({"X-API-Key": KEY, "Authorization": "Basic dTpw"}, id="with-another-scheme"),
    ],
)
async def test_a_key_is_accepted_in_either_header(guarded, headers):
    async with guarded() as client:
        assert (await classify(client, headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        pytest.param({}, "none", id="none"),
        pytest.param({"Authorization": "Basic dTpw"}, "none", id="another-scheme"),
        pytest.param({"Authorization": KEY}, "none", id="no-scheme"),
        pytest.param(bearer(""), "one that is malformed", id="empty"),
        pytest.param(bearer("ä"), "one that is malformed", id="not-ascii"),
        pytest.param(bearer("x" * 257), "one that is malformed", id="too-long"),
        pytest.param(bearer(KEY + "x"), "one that is unknown", id="unknown"),
        pytest.param(bearer(digest(KEY)), "one that is unknown", id="the-hash-is-no-key"),
        pytest.param(bearer(EXPIRED), "one that has expired", id="expired"),
        pytest.param({**bearer(KEY), "X-API-Key": ROBOT}, "several that differ", id="two"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/classify/batch", "/v1/models"])
async def test_without_a_valid_key_a_request_is_rejected_with_the_reason(guarded, path, headers, presented):
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    async with guarded() as client:
        answer = await client.request("GET" if path.endswith("models") else "POST", path, headers=sent)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    problem = answer.json()
    assert (problem["code"], problem["found"]) == ("unauthorized", presented)
    assert problem["allowed"] == "Authorization: Bearer KEY, or X-API-Key: KEY"


ROUTES = [
    ("POST", "/v1/classify", "classify"),
    ("POST", "/v1/classify/batch", "classify"),
    ("POST", "/v1/embed", "embed"),
    ("POST", "/v1/embed/batch", "embed"),
    ("POST", "/v1/similarity", "embed"),
    ("POST", "/v1/embeddings", "embed"),
    *(("POST", f"{prefix}/rerank", "embed") for prefix in ("", "/v1", "/v2")),
    *(("POST", f"/v1/{path}", "transcribe") for path in ("transcribe", "transcribe/batch")),
    *(("POST", f"/v1/audio/{path}", "transcribe") for path in ("transcriptions", "translations")),
    ("POST", "/v1/search", "search"),
    ("GET", "/v1/indexes", "search"),
    ("GET", "/v1/models", "models"),
    ("GET", "/v1/models/toy", "models"),
    ("GET", "/metrics", "metrics"),
    ("GET", "/docs", "docs"),
    ("GET", "/openapi.json", "docs"),
]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES, ids=lambda value: value.strip("/"))
async def test_a_key_may_use_only_the_routes_of_its_scopes(guarded, make, tmp_path, method, path, scope):
    allowed, other = (ROBOT, KEY) if scope in ("metrics", "docs") else (KEY, ROBOT)
    bodies = {
        "batch": {"items": [{"text": "red"}]},
        "similarity": {"query": {"text": "red"}, "candidates": [{"text": "red"}]},
        "search": {"query": {"text": "red"}},
        "embeddings": {"input": "red"},
        "rerank": {"query": "red", "texts": ["red"], "raw_scores": True},
    }
    body = {"json": bodies.get(path.rpartition("/")[2], {"text": "red"})} if method == "POST" else {}
    if scope == "transcribe":
        spoken = wav(tone(1))
        body = {"files": {"file" if "audio" in path else "audio": spoken}}
        if path.endswith("batch"):
            body = {"json": {"items": [{"audio": base64.b64encode(spoken).decode()}]}}
    index = write_toy_index(tmp_path / "things")
    speech = scripted(write_speech(tmp_path / "speech", golden=()))
    async with guarded(indexes=(index,), predictors={"toy": make(aligned=True), "speech": speech}) as client:
        admitted = await client.request(method, path, headers=bearer(allowed), **body)
        refused = await client.request(method, path, headers=bearer(other), **body)
    assert admitted.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert refused.json()["allowed"] == f"a key with the scope {scope}"


async def test_every_other_path_needs_a_key_even_if_it_does_not_exist(guarded):
    async with guarded() as client:
        for path in [
            "/v1",
            "/v1/",
            "/v2/secret",
            "/v1/classify/",
            "/V1/models",
            "//v1/models",
            "/web",
            "/livez/",
            "/openapi.yaml",
        ]:
            assert (await client.get(path)).status_code == 401, path
            assert (await client.get(path, headers=bearer(KEY))).status_code in (404, 405), path


def test_every_described_route_is_open_or_has_a_scope(client):
    paths = client._transport.app.openapi()["paths"]
    assert {path.replace("{name}", "toy") for path in paths} - {*PROBES} <= {path for _, path, _ in ROUTES}
    assert {scope for _, _, scope in ROUTES} == set(scopes())


@pytest.fixture
def all_scopes(keys_file):
    """A key with all scopes."""
    keys_file.write_text(json.dumps({"keys": [record(KEY, "all", *scopes())]}))
    return bearer(KEY)


async def test_a_route_without_a_scope_is_closed_to_every_key(guarded, all_scopes):
    async with guarded() as client:

        @client._transport.app.get("/v1/new")
        async def new() -> str:
            return "a secret"

        assert (await client.get("/v1/new")).status_code == 401
        answer = await client.get("/v1/new", headers=all_scopes)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_route_cannot_need_an_unknown_scope():
    with pytest.raises(ValueError, match="'all'"):
        Routes(FastAPI()).include(APIRouter(routes=[Route("/v1/new", print)]), needs="all")


async def test_options_of_the_whole_server_need_any_key(guarded):
    async with guarded() as client:
        app, sent = client._transport.app, []
        for headers in ([], [(b"x-api-key", ROBOT.encode())]):
            scope = {"type": "http", "method": "OPTIONS", "path": "*", "headers": headers, "query_string": b""}

            async def send(message):
                sent.append(message.get("status"))

            await app(scope, None, send)
    assert sent[::2] == [401, 204]


async def test_the_name_of_a_key_is_logged_but_not_the_key(guarded, logs):
    async with guarded() as client:
        await classify(client, bearer(KEY))
        await client.get("/v1/models", headers=bearer(ROBOT))
        metrics = (await client.get("/metrics", headers=bearer(ROBOT))).text
    named = [(line["route"], line["status"], line["key"]) for line in logs if "key" in line]
    assert named[:2] == [("/v1/classify", 200, "shop"), ("/v1/models", 403, "robot")]
    assert not any(word in str(logs) + metrics for word in (KEY, ROBOT, digest(KEY), digest(ROBOT)))
    assert "shop" not in metrics  # every name in a label would be a time series


async def test_a_request_without_a_key_is_logged_without_a_name(guarded, logs):
    async with guarded() as client:
        await classify(client)
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["route"], line["code"], "key" in line) == ("/v1/classify", "unauthorized", False)


async def test_without_a_file_of_keys_no_key_is_needed(client):
    assert (await classify(client)).status_code == 200
    assert (await classify(client, bearer("whatever"))).status_code == 200


async def test_with_a_file_without_keys_every_request_is_rejected(serving, tmp_path, logs):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    async with serving(api_keys_file=tmp_path / "keys.json") as client:
        assert (await classify(client)).status_code == 401
        assert (await classify(client, bearer(KEY))).status_code == 401
    assert [entry["next"] for entry in logs if entry["event"] == "no_api_keys"] == ["polymodal keys add"]


async def test_the_limit_per_key_counts_keys_and_not_addresses(guarded, keys_file):
    records = json.loads(keys_file.read_text())["keys"]
    records.append(record("pm_another", "another", "classify"))
    keys_file.write_text(json.dumps({"keys": records}))
    async with guarded(rate_limit_per_key=Rate(1, 86_400)) as client:
        answers = [await classify(client, bearer(key)) for key in (KEY, KEY, "pm_another")]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[0].headers["RateLimit-Policy"] == '"key";q=1;w=86400'


async def test_requests_with_unknown_keys_count_for_their_address(guarded):
    async with guarded(rate_limit_per_address=Rate(2, 86_400)) as client:
        answers = [await classify(client, bearer(f"pm_{number}")) for number in range(3)]
        late = await classify(client, bearer(KEY))
    assert [answer.status_code for answer in [*answers, late]] == [401, 401, 429, 429]


@pytest.mark.parametrize(
    ("changed", "warnings"),
    [
        pytest.param({"host": "192.0.2.1"}, [{"host": "192.0.2.1"}], id="open"),
        pytest.param({"host": "127.0.0.1"}, [], id="loopback"),
        pytest.param({"admin_host": "::", "admin_port": 0}, [{"admin_host": "::"}], id="admin-port"),
        pytest.param({"admin_host": "::"}, [], id="no-admin-port"),
    ],
)
async def test_a_port_that_is_open_to_everyone_is_logged(serving, logs, changed, warnings):
    async with serving(**changed):
        pass
    entries = [entry for entry in logs if entry["event"] == "open_to_everyone"]
    assert [{name: value for name, value in entry.items() if "host" in name} for entry in entries] == warnings
    assert all(entry["log_level"] == "warning" for entry in entries)


def test_a_service_that_requires_keys_does_not_start_without_them():
    environment = {"POLYMODAL_HOST": "192.0.2.1", "POLYMODAL_REQUIRE_API_KEYS": "true"}
    result = CliRunner().invoke(commands, ["serve"], env=environment)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "polymodal: POLYMODAL_REQUIRE_API_KEYS=true, but POLYMODAL_API_KEYS_FILE is not set; allowed:"
    )


async def test_with_keys_no_warning_is_logged(guarded, logs):
    async with guarded(host="192.0.2.1"):
        pass
    assert not [entry for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.parametrize(
    ("host", "status"),
    [pytest.param("127.0.0.1", 200, id="loopback"), pytest.param("192.0.2.1", 401, id="another-address")],
)
async def test_the_admin_port_needs_keys_unless_only_this_machine_can_reach_it(guarded, host, status):
    async with guarded(admin_port=0, admin_host=host) as client:
        transport = httpx.ASGITransport(client._transport.app.state.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            assert (await admin.get("/metrics")).status_code == status
            assert (await admin.get("/metrics", headers=bearer(ROBOT))).status_code == 200
            assert (await admin.get("/livez")).status_code == 200


NAMES = st.sampled_from([b"authorization", b"x-api-key", b"cookie"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=4))
@example([(b"authorization", b"Bearer")])
@example([(b"authorization", b"Bearer a b")])
def test_any_headers_have_a_valid_key_or_are_rejected(headers):
    problem = None
    try:
        key = presented_key(headers)
    except Unauthorized as error:
        problem = error.found
    else:
        assert key.isascii()
        assert 1 <= len(key) <= 256
        assert any(key.encode() in value for _, value in headers)
    assert problem in (None, "none", "several that differ", "one that is malformed")


@given(st.text("abcXYZ019._~+/=-", min_size=1, max_size=256), st.sampled_from(["Bearer", "bearer", "BEARER"]))
def test_a_key_is_read_from_its_header(key, scheme):
    assert presented_key([(b"authorization", f"{scheme} {key}".encode())]) == key
    assert presented_key([(b"x-api-key", key.encode())]) == key


async def test_the_page_stores_the_key_only_for_its_tab(guarded):
    async with guarded() as client:
        page, script = (await client.get("/")).text, (await client.get("/web/api.js")).text
    assert '<form id="access" class="panel" hidden>' in page
    assert '<input id="key" type="password" autocomplete="off"' in page
    assert "sessionStorage" in script
    assert "localStorage" not in script
    assert "document.cookie" not in script
