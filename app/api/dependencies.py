"""What routes need: the application's service, settings and metrics, and cancellation when the client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from polymodal.app.api.errors import ClientGone
from polymodal.app.observe.metrics import Metrics
from polymodal.app.serving.search import Indexes
from polymodal.app.serving.service import Service
from polymodal.app.settings import Settings

Value = TypeVar("Value")


def service_of(request: Request) -> Service:
    """Return the application's service."""
    return cast(Service, request.app.state.service)


def indexes_of(request: Request) -> Indexes:
    """Return the application's search indexes."""
    return cast(Indexes, request.app.state.indexes)


def settings_of(request: Request) -> Settings:
    """Return the application's settings."""
    return cast(Settings, request.app.state.settings)


def metrics_of(request: Request) -> Metrics:
    """Return the application's metrics."""
    return cast(Metrics, request.app.state.metrics)


def _dependency(function: Callable[[Request], Value]) -> Callable[[Request], Awaitable[Value]]:
    """Return the function as a coroutine function, because FastAPI runs plain functions on a thread."""

    async def dependency(request: Request) -> Value:
        return function(request)

    return dependency


ServiceDep = Annotated[Service, Depends(_dependency(service_of))]
IndexesDep = Annotated[Indexes, Depends(_dependency(indexes_of))]
SettingsDep = Annotated[Settings, Depends(_dependency(settings_of))]
MetricsDep = Annotated[Metrics, Depends(_dependency(metrics_of))]


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Await the work; cancel it as soon as the client closes its connection, and raise ClientGone.

    The request's body must have been read.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(request))
    watching.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done() and not watching.cancelled():
            raise ClientGone from None
        raise  # the server abandons this request
    finally:
        working.cancel()
        watching.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
