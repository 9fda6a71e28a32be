"""Both clients under one interface, scripted answers, and the fixtures of the real service."""

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
    """Call a method of either client, and wait for its answer."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def call(self, transport, method, *arguments, url="http://service", **options):
        """Call a method of a new client over a MockTransport, or over the network if `transport` is None."""
        of_client = {name: options.pop(name) for name in ("api_key", "timeout", "retries") if name in options}

        async def call() -> object:
            async with AsyncClient(url, transport=transport, **of_client) as client:
                return await getattr(client, method)(*arguments, **options)

        if self.kind is AsyncClient:
            return asyncio.run(call())
        with Client(url, transport=transport, **of_client) as client:
            return getattr(client, method)(*arguments, **options)


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def both(request) -> Both:
    return Both(request.param)


@pytest.fixture
def scripted():
    """Return a function from answers to a transport, which returns each once and the last one for ever; `.seen`: its requests."""

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
