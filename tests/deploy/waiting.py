"""Helpers of tests that wait for a started service."""

import time

import httpx


def wait_for(condition, seconds=60):
    """Return the first true value of the condition; the long default is for busy machines."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.25)
    return value


def is_ok(url):
    """Whether a GET request returns 200 now."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
