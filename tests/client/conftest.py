"""The real service, in this process for the async client and behind a port for the other one."""

import asyncio
import inspect

import httpx
import pytest

from polymodal_client import AsyncClient, Client
from tests.app.conftest import (  # noqa: F401 — fixtures
    listening,
    logs,
    make,
    predictor,
    runtime,
    serving,
    settings,
    solid,
)


class Both:
    """Calls a method of either client, and waits for its answer."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def ask(self, transport, method, *arguments, url="http://service", **options):
        """On a client of its own, over a transport that both kinds have: a MockTransport, or None for the network."""
        told = {name: options.pop(name) for name in ("api_key", "timeout", "retries") if name in options}

        async def ask() -> object:
            async with AsyncClient(url, transport=transport, **told) as client:
                return await getattr(client, method)(*arguments, **options)

        if self.kind is AsyncClient:
            return asyncio.run(ask())
        with Client(url, transport=transport, **told) as client:
            return getattr(client, method)(*arguments, **options)


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def both(request) -> Both:
    return Both(request.param)


@pytest.fixture
def scripted():
    """`scripted(answers)`: a transport that gives them one by one, the last for ever, and keeps the requests in `.seen`."""

    def script(*answers):
        seen: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            answer = answers[min(len(seen), len(answers) - 1)]
            seen.append(request)
            if isinstance(answer, Exception):
                raise answer
            return answer(request) if inspect.isfunction(answer) else answer

        transport = httpx.MockTransport(handle)
        transport.seen = seen
        return transport

    return script
