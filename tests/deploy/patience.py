"""How tests of whole services wait for them."""

import time

import httpx


def soon(condition, seconds=60):
    """What the condition answers as soon as it is true; a busy machine gets its time."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.25)
    return value


def answered(url):
    """Whether it says 200 at this moment."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
