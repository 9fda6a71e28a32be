"""Limits that several services share in a real Redis. Run by `make test-redis`, which needs redis-server."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess

import pytest

from polymodal.app.access.counters import RedisCounters
from polymodal.app.access.rates import Rate, wait_s

if not os.environ.get("REDIS_TESTS"):
    pytest.skip("REDIS_TESTS is not set", allow_module_level=True)


@pytest.fixture
def redis(tmp_path, eventually):
    """A Redis for this test, on a free port."""
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    process.uri = f"redis://127.0.0.1:{port}/0"
    eventually(lambda: accepts(port))
    yield process
    process.kill()
    process.wait()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def status(client) -> int:
    return (await client.post("/v1/classify", json={"text": "red"})).status_code


async def test_two_services_share_one_limit(serving, redis):
    limits = {"rate_limit_per_address": Rate(3, 86_400), "rate_limit_storage": redis.uri}
    async with serving(**limits) as one, serving(**limits) as other:
        assert [await status(client) for client in (one, other, one, other, one)] == [200, 200, 200, 429, 429]


async def test_concurrent_requests_do_not_exceed_the_limit(redis):
    failures = []
    counters = RedisCounters(redis.uri, lambda: failures.append(1))
    admitted = await asyncio.gather(*(counters.acquire_sliding_window_entry("a", 50, 60) for _ in range(200)))
    await counters.aclose()
    assert (sum(admitted), failures) == (50, [])


async def test_a_request_after_the_returned_wait_is_admitted(redis):
    counters, rate = RedisCounters(redis.uri, lambda: None), Rate(3, 1)
    assert [await counters.acquire_sliding_window_entry("a", 3, 1) for _ in range(4)] == [True, True, True, False]
    await asyncio.sleep(wait_s(await counters.get_sliding_window("a", 1), rate, 1))
    assert await counters.acquire_sliding_window_entry("a", 3, 1)
    await counters.aclose()


async def test_a_redis_that_hangs_is_used_again_when_it_answers(serving, redis, logs):
    limits = {"rate_limit_per_address": Rate(2, 86_400), "rate_limit_storage": redis.uri}
    async with serving(**limits) as one, serving(**limits) as other:
        assert [await status(one), await status(other), await status(one)] == [200, 200, 429]
        redis.send_signal(signal.SIGSTOP)
        # Each service counts by itself, from zero.
        assert [await status(one) for _ in range(3)] == [200, 200, 429]
        redis.send_signal(signal.SIGCONT)
        for _ in range(100):
            await status(one)
            if any(entry["event"] == "rate_limits_in_redis_again" for entry in logs):
                break
            await asyncio.sleep(0.05)
        assert await status(one) == 429
    events = [entry["event"] for entry in logs if "redis" in entry["event"]]
    assert events == ["rate_limits_without_redis", "rate_limits_in_redis_again"]
