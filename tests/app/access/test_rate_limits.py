"""Rate limits: rates, counters, header fields, and responses over HTTP."""

import asyncio
import re
import socket
import threading
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.app.access.addresses import parse_networks
from polymodal.app.access.counters import LocalCounters
from polymodal.app.access.rates import Allowance, Rate, RateLimited, left, wait_s
from polymodal.app.main import create_app
from polymodal.app.probes import PROBES
from tests.clock import Clock

NOW = 1_000_000.0


async def take(counters, rate, units=1, client="a"):
    return await counters.acquire_sliding_window_entry(client, rate.units, rate.seconds, units)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("600/minute", Rate(600, 60)),
        ("1 / second", Rate(1, 1)),
        ("100/10seconds", Rate(100, 10)),
        ("10000/Day", Rate(10_000, 86_400)),
        ("5/2 hours", Rate(5, 7200)),
    ],
)
def test_a_rate_is_parsed(text, rate):
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "600", "600/fortnight", "1.5/second", "1/0seconds", "1/s;2/m"]
)
def test_an_invalid_rate_is_rejected(text):
    with pytest.raises(ValueError, match="allowed: for example 600/minute"):
        Rate.parse(text)


# --- counters ---


async def test_a_window_admits_the_limit_and_no_more():
    counters, rate = LocalCounters(Clock(NOW)), Rate(3, 60)
    assert [await take(counters, rate) for _ in range(5)] == [True, True, True, False, False]


async def test_clients_have_separate_counters():
    counters, rate = LocalCounters(Clock(NOW)), Rate(1, 60)
    assert await take(counters, rate, client="a")
    assert await take(counters, rate, client="b")


async def test_a_burst_where_two_windows_meet_does_not_double_the_limit():
    clock, rate = Clock(NOW), Rate(10, 60)
    counters = LocalCounters(clock)
    assert await take(counters, rate)
    clock.now += 59.9
    assert all([await take(counters, rate) for _ in range(9)])
    clock.now += 0.2
    assert not await take(counters, rate, 2)


@given(st.floats(0, 7200), st.floats(0, 3599))
async def test_a_limit_of_one_is_exact_at_any_time_of_the_clock(now, pause):
    clock, rate = Clock(now), Rate(1, 3600)
    counters = LocalCounters(clock)
    assert await take(counters, rate)
    clock.now += pause
    assert not await take(counters, rate)
    clock.now = now + 3601
    assert await take(counters, rate)


async def test_counts_expire_after_two_windows():
    clock, rate = Clock(NOW), Rate(10, 60)
    counters = LocalCounters(clock)
    await take(counters, rate, 10)
    clock.now += 120
    assert await take(counters, rate, 10)


async def test_memory_is_bounded_and_the_least_recently_seen_client_is_dropped():
    counters, rate = LocalCounters(Clock(NOW), max_counters=100), Rate(1, 60)
    await take(counters, rate, client="busy")
    for number in range(1000):
        await take(counters, rate, client=str(number))
        assert not await take(counters, rate, client="busy")
    assert len(counters) == 100
    assert await take(counters, rate, client="0")


async def test_counting_starts_no_thread_and_no_task():
    counters, rate = LocalCounters(), Rate(1000, 60)
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for number in range(100):
        await take(counters, rate, client=str(number))
    assert (threading.active_count(), len(asyncio.all_tasks())) == (threads, tasks)


RATES = st.builds(Rate, units=st.integers(5, 20), seconds=st.integers(1, 60))
STEPS = st.lists(st.tuples(st.floats(0, 90), st.integers(1, 5)), max_size=40)
"""Requests of a client: seconds since the one before it, and units."""


@given(RATES, STEPS)
async def test_a_request_is_admitted_after_the_returned_wait_and_not_a_second_earlier(rate, steps):
    clock = Clock(NOW)
    counters = LocalCounters(clock)
    for pause, units in steps:
        clock.now += pause
        if await take(counters, rate, units):
            continue
        rejected = clock.now
        wait = wait_s(await counters.get_sliding_window("a", rate.seconds), rate, units)
        assert 1 <= wait <= 2 * rate.seconds
        clock.now = rejected + wait - 1
        assert wait == 1 or not await take(counters, rate, units)
        clock.now = rejected + wait
        assert await take(counters, rate, units)


@given(RATES, STEPS)
async def test_any_window_admits_at_most_twice_the_limit_and_the_first_one_the_limit(rate, steps):
    clock = Clock(NOW)
    counters = LocalCounters(clock)
    admitted: list[tuple[float, int]] = []
    for pause, units in steps:
        clock.now += pause
        if await take(counters, rate, units):
            admitted.append((clock.now, units))
    totals = [sum(units for time, units in admitted if start <= time < start + rate.seconds) for start, _ in admitted]
    assert all(total <= 2 * rate.units for total in totals)
    assert all(total <= rate.units for total in totals[:1])


@given(RATES, STEPS)
async def test_the_units_that_are_left_can_be_taken_but_not_one_more(rate, steps):
    clock = Clock(NOW)
    counters = LocalCounters(clock)
    for pause, units in steps:
        clock.now += pause
        await take(counters, rate, units)
        rest = left(await counters.get_sliding_window("a", rate.seconds), rate)
        if rest < rate.units:
            assert not await take(counters, rate, rest + 1)
    if rest := left(await counters.get_sliding_window("a", rate.seconds), rate):
        assert await take(counters, rate, rest)


# --- responses ---


async def test_the_fields_have_each_policy_and_the_units_and_seconds_that_are_left():
    allowance = Allowance(LocalCounters(Clock(60.0 * 1000)))
    await allowance.join("address", Rate(100, 60), "192.0.2.1")
    await allowance.join("key", Rate(5, 3600), "shop")
    fields = allowance.fields()
    assert fields[b"ratelimit-policy"] == b'"address";q=100;w=60, "key";q=5;w=3600'
    assert re.fullmatch(rb'"address";r=99;t=\d+, "key";r=4;t=\d+', fields[b"ratelimit"])


async def test_a_refusal_has_the_time_to_retry():
    allowance = Allowance(LocalCounters(Clock(60.0 * 1000)))
    await allowance.join("key", Rate(1, 60), "shop")
    with pytest.raises(RateLimited, match="key: more than 1 in 60 s; allowed: again in") as refused:
        await allowance.take(1)
    assert 60 <= refused.value.retry_after_s <= 121


async def test_a_batch_is_admitted_after_the_returned_wait():
    clock, rate = Clock(60.0 * 1000), Rate(5, 60)
    counters = LocalCounters(clock)

    async def admit(items: int) -> None:
        allowance = Allowance(counters)
        await allowance.join("key", rate, "shop")
        await allowance.take(items - 1)

    await admit(2)
    with pytest.raises(RateLimited) as refused:
        await admit(4)
    clock.now += refused.value.retry_after_s
    await admit(4)


# --- over HTTP ---


@pytest.fixture
def limited(serving):
    """A service that admits three requests of an address per day."""
    return lambda **changed: serving(**{"rate_limit_per_address": Rate(3, 86_400), **changed})


async def classify(client, **headers):
    return await client.post("/v1/classify", json={"text": "red"}, headers=headers)


async def test_above_the_limit_a_client_gets_429_with_the_limit_and_the_time_to_retry(limited):
    async with limited() as client:
        answers = [await classify(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"address";q=3;w=86400'}
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 172_800
    assert f"again in {int(refused.headers['Retry-After']):,} s" in refused.json()["detail"]


async def test_a_refusal_is_logged_and_counted_with_its_route(limited, logs):
    async with limited() as client:
        for _ in range(4):
            await classify(client)
        registry = client._transport.app.state.metrics.registry
    (line,) = [entry for entry in logs if entry.get("status") == 429]
    assert (line["route"], line["code"]) == ("/v1/classify", "rate_limited")
    labels = {"http_request_method": "POST", "http_route": "/v1/classify"}
    labels |= {"http_response_status_code": "429", "error_type": "rate_limited"}
    assert registry.get_sample_value("http_server_request_duration_seconds_count", labels) == 1


@pytest.mark.parametrize("path", [*PROBES, "/", "/web/main.js"])
async def test_probes_and_the_page_are_never_limited(limited, path):
    async with limited(rate_limit_per_address=Rate(1, 86_400)) as client:
        answers = [await client.get(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "RateLimit" not in answers[0].headers


async def test_every_item_of_a_batch_counts(limited):
    async with limited(rate_limit_per_address=Rate(5, 86_400)) as client:
        two = {"items": [{"text": "red"}] * 2}
        answers = [await client.post("/v1/classify/batch", json=two) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=3", "r=1", "r=0"]


async def test_a_batch_above_the_whole_limit_has_too_many_items(limited):
    async with limited() as client:
        answer = await client.post("/v1/classify/batch", json={"items": [{"text": "red"}] * 4})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
    assert answer.json()["allowed"] == "at most 3, this client's rate limit"


@asynccontextmanager
async def clients(settings, predictor, **changed):
    """Start a service; yield a function that returns a client with an address."""
    app = create_app(settings.model_copy(update=changed), {"toy": predictor})

    def client(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://service")

    async with app.router.lifespan_context(app):
        yield client


async def test_addresses_have_separate_limits_and_a_64_has_one(settings, predictor):
    async with clients(settings, predictor, rate_limit_per_address=Rate(1, 86_400)) as client:
        statuses = [
            (await classify(client(address))).status_code
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
        ]
    assert statuses == [200, 429, 200, 200, 429, 200]


async def test_forwarded_addresses_count_only_behind_a_trusted_proxy(settings, predictor):
    limit = {"rate_limit_per_address": Rate(1, 86_400)}
    forwarded = [{"X-Forwarded-For": address} for address in ("198.51.100.1", "198.51.100.2", "198.51.100.2")]
    async with clients(settings, predictor, **limit) as client:
        untrusted = [(await classify(client("10.0.0.1"), **headers)).status_code for headers in forwarded]
    async with clients(settings, predictor, **limit, trusted_proxies=parse_networks("10.0.0.1")) as client:
        trusted = [(await classify(client("10.0.0.1"), **headers)).status_code for headers in forwarded]
    assert untrusted == [200, 429, 429]
    assert trusted == [200, 200, 429]


# --- without Redis ---


async def test_without_redis_the_process_enforces_the_limits_and_logs_and_counts_the_failure(limited, logs):
    pytest.importorskip("redis")
    async with limited(rate_limit_storage=f"redis://:secret-password@127.0.0.1:{closed_port()}/0") as client:
        answers = [await classify(client) for _ in range(4)]
        registry = client._transport.app.state.metrics.registry
        failures = registry.get_sample_value("polymodal_rate_limit_storage_failures_total")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert failures == 1  # only one request waits for Redis
    (entry,) = [entry for entry in logs if entry["event"] == "rate_limits_without_redis"]
    assert entry["log_level"] == "error"
    assert "secret-password" not in str(logs)


async def test_a_redis_that_never_answers_delays_only_one_request(limited, logs):
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with limited(rate_limit_storage=f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as client:
            answers = [await classify(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert len([entry for entry in logs if entry["event"] == "rate_limits_without_redis"]) == 1


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
