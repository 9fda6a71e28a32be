"""Rates, the counters behind them, and what a client is told."""

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
from tests.clock import Clock

NOW = 1_000_000.0


def run(coroutine):
    """The outcome of what never really waits."""
    return asyncio.run(coroutine)


async def taken(counters, rate, units=1, client="a"):
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
def test_a_rate_is_read(text, rate):
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "600", "600/fortnight", "1.5/second", "1/0seconds", "1/s;2/m"]
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="allowed: for example 600/minute"):
        Rate.parse(text)


# --- counters ---


async def test_so_many_fit_into_a_window_and_no_more():
    clock, rate = Clock(NOW), Rate(3, 60)
    counters = LocalCounters(clock)
    assert [await taken(counters, rate) for _ in range(5)] == [True, True, True, False, False]


async def test_clients_do_not_share_a_counter():
    counters, rate = LocalCounters(Clock(NOW)), Rate(1, 60)
    assert await taken(counters, rate, client="a")
    assert await taken(counters, rate, client="b")


async def test_there_is_no_double_burst_where_two_windows_meet():
    clock, rate = Clock(60.0 * 1000 - 0.1), Rate(10, 60)
    counters = LocalCounters(clock)
    assert all([await taken(counters, rate) for _ in range(10)])
    clock.now += 0.2
    assert not await taken(counters, rate, 2)


async def test_after_two_windows_all_is_forgotten():
    clock, rate = Clock(NOW), Rate(10, 60)
    counters = LocalCounters(clock)
    await taken(counters, rate, 10)
    clock.now += 120
    assert await taken(counters, rate, 10)


async def test_memory_is_bounded_and_who_was_not_seen_for_longest_is_forgotten():
    counters, rate = LocalCounters(Clock(NOW), max_counters=100), Rate(1, 60)
    await taken(counters, rate, client="busy")
    for number in range(1000):
        await taken(counters, rate, client=str(number))
        assert not await taken(counters, rate, client="busy")
    assert len(counters) == 100
    assert await taken(counters, rate, client="0")


async def test_counting_starts_no_thread_and_no_task():
    counters, rate = LocalCounters(), Rate(1000, 60)
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for number in range(100):
        await taken(counters, rate, client=str(number))
    assert (threading.active_count(), len(asyncio.all_tasks())) == (threads, tasks)


STEPS = st.lists(st.tuples(st.floats(0, 90), st.integers(1, 5)), max_size=40)


@given(st.integers(5, 20), st.integers(1, 60), STEPS)
def test_who_waits_as_long_as_told_is_served_and_who_waits_a_second_less_is_not(units, seconds, steps):
    async def play():
        clock, rate = Clock(NOW), Rate(units, seconds)
        counters = LocalCounters(clock)
        for pause, cost in steps:
            clock.now += pause
            if await taken(counters, rate, cost):
                continue
            before = clock.now
            wait = wait_s(await counters.get_sliding_window("a", seconds), rate, cost)
            assert 1 <= wait <= 2 * seconds
            clock.now = before + wait - 1
            assert wait == 1 or not await taken(counters, rate, cost)
            clock.now = before + wait
            assert await taken(counters, rate, cost)

    run(play())


@given(st.integers(5, 20), st.integers(1, 60), STEPS)
def test_in_no_time_of_a_window_are_there_more_than_twice_and_in_aligned_ones_more_than_once_the_limit(
    units, seconds, steps
):
    async def play():
        clock, rate = Clock(NOW), Rate(units, seconds)
        counters = LocalCounters(clock)
        served: list[tuple[float, int]] = []
        for pause, cost in steps:
            clock.now += pause
            if await taken(counters, rate, cost):
                served.append((clock.now, cost))
        for start, _ in served:
            aligned = sum(cost for at, cost in served if at // seconds == start // seconds)
            assert aligned <= units
            assert sum(cost for at, cost in served if start <= at < start + seconds) <= 2 * units

    run(play())


@given(st.integers(5, 20), st.integers(1, 60), STEPS)
def test_what_is_left_can_be_taken_at_once_and_one_more_cannot(units, seconds, steps):
    async def play():
        clock, rate = Clock(NOW), Rate(units, seconds)
        counters = LocalCounters(clock)
        for pause, cost in steps:
            clock.now += pause
            await taken(counters, rate, cost)
            rest = left(await counters.get_sliding_window("a", seconds), rate)
            if rest < units:
                assert not await taken(counters, rate, rest + 1)
        if rest := left(await counters.get_sliding_window("a", seconds), rate):
            assert await taken(counters, rate, rest)

    run(play())


# --- what a client is told ---


async def test_the_fields_name_each_policy_what_is_left_and_when_all_of_it_is():
    allowance = Allowance(LocalCounters(Clock(60.0 * 1000)))
    await allowance.join("address", Rate(100, 60), "192.0.2.1")
    await allowance.join("key", Rate(5, 3600), "shop")
    fields = allowance.fields()
    assert fields[b"ratelimit-policy"] == b'"address";q=100;w=60, "key";q=5;w=3600'
    assert re.fullmatch(rb'"address";r=99;t=\d+, "key";r=4;t=\d+', fields[b"ratelimit"])


async def test_a_refusal_says_when_to_come_back():
    allowance = Allowance(LocalCounters(Clock(60.0 * 1000)))
    await allowance.join("key", Rate(1, 60), "shop")
    with pytest.raises(RateLimited, match="key: more than 1 in 60 s; allowed: again in") as refused:
        await allowance.take(1)
    assert 60 <= refused.value.retry_after_s <= 121


async def test_a_batch_that_comes_back_when_told_is_served_whole():
    clock, rate = Clock(60.0 * 1000), Rate(5, 60)
    counters = LocalCounters(clock)

    async def ask(items: int) -> None:
        allowance = Allowance(counters)
        await allowance.join("key", rate, "shop")
        await allowance.take(items - 1)

    await ask(2)
    with pytest.raises(RateLimited) as refused:
        await ask(4)
    clock.now += refused.value.retry_after_s
    await ask(4)


# --- over HTTP ---


@pytest.fixture
def limited(serving):
    """A service that lets one address ask three times a day."""
    return lambda **changed: serving(**{"rate_limit_per_address": Rate(3, 86_400), **changed})


async def ask(client, **headers):
    return await client.post("/v1/classify", json={"text": "red"}, headers=headers)


async def test_over_the_limit_a_client_gets_429_with_a_time_and_what_holds(limited):
    async with limited() as client:
        answers = [await ask(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"address";q=3;w=86400'}
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 172_800
    assert f"again in {int(refused.headers['Retry-After']):,} s" in refused.json()["detail"]


async def test_a_refusal_reaches_log_and_metrics_under_its_route(limited, logs):
    async with limited() as client:
        for _ in range(4):
            await ask(client)
        measured = (await client.get("/livez")).status_code, client._transport.app.state.metrics
    (line,) = [entry for entry in logs if entry.get("status") == 429]
    assert (line["route"], line["code"]) == ("/v1/classify", "rate_limited")
    assert measured[0] == 200
    labels = {"http_request_method": "POST", "http_route": "/v1/classify"}
    labels |= {"http_response_status_code": "429", "error_type": "rate_limited"}
    assert measured[1].registry.get_sample_value("http_server_request_duration_seconds_count", labels) == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/healthz", "/", "/web/main.js"])
async def test_probes_and_the_page_are_never_limited(limited, path):
    async with limited(rate_limit_per_address=Rate(1, 86_400)) as client:
        answers = [await client.get(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "RateLimit" not in answers[0].headers


async def test_each_item_of_a_batch_counts(limited):
    async with limited(rate_limit_per_address=Rate(5, 86_400)) as client:
        two = {"items": [{"text": "red"}] * 2}
        answers = [await client.post("/v1/classify/batch", json=two) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=3", "r=1", "r=0"]


async def test_a_batch_that_no_waiting_would_let_pass_is_told_so(limited):
    async with limited() as client:
        answer = await client.post("/v1/classify/batch", json={"items": [{"text": "red"}] * 4})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
    assert answer.json()["allowed"] == "at most 3, this client's rate limit"


@asynccontextmanager
async def clients(settings, predictor, **changed):
    """Makes clients of one service that have addresses of their own."""
    app = create_app(settings.model_copy(update=changed), {"toy": predictor})

    def client(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://service")

    async with app.router.lifespan_context(app):
        yield client


async def test_addresses_count_apart_and_a_64_together(settings, predictor):
    async with clients(settings, predictor, rate_limit_per_address=Rate(1, 86_400)) as client:
        statuses = [
            (await ask(client(address))).status_code
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
        ]
    assert statuses == [200, 429, 200, 200, 429, 200]


async def test_what_a_client_forwards_counts_only_behind_a_trusted_proxy(settings, predictor):
    limit = {"rate_limit_per_address": Rate(1, 86_400)}
    forwarded = [{"X-Forwarded-For": address} for address in ("198.51.100.1", "198.51.100.2", "198.51.100.2")]
    async with clients(settings, predictor, **limit) as client:
        untrusted = [(await ask(client("10.0.0.1"), **each)).status_code for each in forwarded]
    async with clients(settings, predictor, **limit, trusted_proxies=parse_networks("10.0.0.1")) as client:
        trusted = [(await ask(client("10.0.0.1"), **each)).status_code for each in forwarded]
    assert untrusted == [200, 429, 429]
    assert trusted == [200, 200, 429]


# --- a Redis that isn't there ---


async def test_without_redis_the_limits_hold_in_this_process_and_log_and_metrics_say_so(limited, logs):
    pytest.importorskip("redis")
    async with limited(rate_limit_storage=f"redis://:secret-password@127.0.0.1:{closed_port()}/0") as client:
        answers = [await ask(client) for _ in range(4)]
        registry = client._transport.app.state.metrics.registry
        failures = registry.get_sample_value("polymodal_rate_limit_storage_failures_total")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert failures == 1  # the others didn't wait for it
    (entry,) = [each for each in logs if each["event"] == "rate_limits_without_redis"]
    assert entry["log_level"] == "error"
    assert "secret-password" not in str(logs)


async def test_a_redis_that_never_answers_holds_one_request_up_and_only_for_a_moment(limited, logs):
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with limited(rate_limit_storage=f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as client:
            answers = [await ask(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert len([each for each in logs if each["event"] == "rate_limits_without_redis"]) == 1


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
