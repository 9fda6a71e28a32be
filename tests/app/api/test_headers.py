"""Header fields for browsers: security fields, and which other sites may read answers."""

import re

import httpx
import pytest

from polymodal.app.access.rates import Rate

ORIGIN = "https://app.example"


async def answers_of(client) -> dict[str, httpx.Response]:
    """Return an answer of every kind."""
    return {
        "probe": await client.get("/livez"),
        "classification": await client.post("/v1/classify", json={"text": "red"}),
        "batch": await client.post("/v1/classify/batch", json={"items": [{"text": "red"}]}),
        "models": await client.get("/v1/models"),
        "metrics": await client.get("/metrics"),
        "bad-input": await client.post("/v1/classify", json={"text": ""}),
        "not-found": await client.get("/nowhere"),
        "wrong-method": await client.get("/v1/classify"),
        "failure": await client.post("/v1/classify", json={"text": "red red red red red"}),
    }


async def test_answers_of_the_api_have_all_security_fields(client):
    for kind, answer in (await answers_of(client)).items():
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'", kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff", kind
        assert answer.headers["Referrer-Policy"] == "no-referrer", kind
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", kind
        assert answer.headers["Cache-Control"] == "no-store", kind


async def test_no_header_field_is_repeated(client):
    for answer in [*(await answers_of(client)).values(), await client.get("/"), await client.get("/docs")]:
        names = [name.lower() for name, _ in answer.headers.multi_items()]
        assert len(names) == len(set(names))


async def test_the_page_loads_its_own_files_and_is_revalidated(client):
    page, script = await client.get("/"), await client.get("/web/main.js")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-cache"
    assert script.headers["Cache-Control"] == "no-cache"
    assert script.headers["X-Content-Type-Options"] == "nosniff"


async def test_other_sites_may_not_read_answers_by_default(client):
    answer = await client.post("/v1/classify", json={"text": "red"}, headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def preflight(client, origin=ORIGIN):
    fields = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return await client.options("/v1/classify", headers={"Origin": origin, **fields})


async def test_an_allowed_site_may_read_all_answers_including_problems(serving):
    async with serving(cors_origins=(ORIGIN,)) as client:
        client.headers["Origin"] = ORIGIN
        answers = await answers_of(client)
    assert answers["failure"].status_code == 500
    for kind, answer in answers.items():
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN, kind
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"], kind
        assert "Origin" in answer.headers["Vary"], kind
        assert answer.headers["X-Request-Id"], kind


async def test_a_site_that_is_not_allowed_may_not_read_answers(serving):
    async with serving(cors_origins=(ORIGIN,)) as client:
        answer = await client.get("/v1/models", headers={"Origin": "https://evil.example"})
        refused = await preflight(client, "https://evil.example")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert refused.status_code == 400


async def test_a_preflight_needs_no_key_and_refusals_are_readable(serving, tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    limits = {"rate_limit_per_address": Rate(1, 86_400), "api_keys_file": tmp_path / "keys.json"}
    async with serving(cors_origins=(ORIGIN,), **limits) as client:
        preflights = [await preflight(client) for _ in range(3)]
        refused = [await client.post("/v1/classify", headers={"Origin": ORIGIN}) for _ in range(2)]
    assert [answer.status_code for answer in preflights] == [200] * 3
    assert preflights[0].headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in preflights[0].headers["Access-Control-Allow-Headers"]
    assert preflights[0].headers["X-Request-Id"]
    assert [answer.status_code for answer in refused] == [401, 429]
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in refused} == {ORIGIN}


async def test_a_star_allows_every_site_but_no_cookies(serving):
    async with serving(cors_origins=("*",)) as client:
        answer = await client.get("/v1/models", headers={"Origin": "https://any.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("changed", "links"),
    [
        pytest.param({}, {"docs", "openapi.json", "v1/models", "metrics"}, id="all"),
        pytest.param({"docs": False}, {"v1/models", "metrics"}, id="without-docs"),
        pytest.param({"admin_port": 0}, {"v1/models"}, id="admin-port"),
    ],
)
async def test_the_page_links_only_to_existing_routes(serving, changed, links):
    async with serving(**changed) as client:
        page = (await client.get("/")).text
        assert set(re.findall(r'<a href="([^"#]+)"', page)) == links
        for route in ("docs", "openapi.json", "v1/models", "metrics"):
            assert (await client.get(f"/{route}")).status_code == (200 if route in links else 404)
