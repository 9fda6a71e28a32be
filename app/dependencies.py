"""What routes are given: the application's parts, and a way to stop when the client hangs up."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from app.service import Service
from app.settings import Settings
from app.telemetry import ClientGone, Metrics

Value = TypeVar("Value")


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def _metrics(request: Request) -> Metrics:
    return cast(Metrics, request.app.state.metrics)


ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Await the work, or cancel it as soon as the client hangs up. The request's body must have been read."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
