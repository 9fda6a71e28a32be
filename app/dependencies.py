"""What routes are given: the application's parts, and a way to stop when the client hangs up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from app.metrics import Metrics
from app.service import Service
from app.settings import Settings
from app.telemetry import ClientGone

Value = TypeVar("Value")


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request itself and makes its own Response.

    What FastAPI and Starlette do around an endpoint (layers, routing, dependencies, checking and serialising what comes back) costs
    as much as all that the two busiest routes do beside their model's work. Requests to them come here directly (app.main), and
    FastAPI only describes them in OpenAPI, and answers other methods.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint alone."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def service_of(request: Request) -> Service:
    """The application's service."""
    return cast(Service, request.app.state.service)


def settings_of(request: Request) -> Settings:
    """The application's settings."""
    return cast(Settings, request.app.state.settings)


def metrics_of(request: Request) -> Metrics:
    """The application's measurements."""
    return cast(Metrics, request.app.state.metrics)


# Coroutines, because FastAPI sends plain functions to a thread of their own.
async def _service(request: Request) -> Service:
    return service_of(request)


async def _settings(request: Request) -> Settings:
    return settings_of(request)


async def _metrics(request: Request) -> Metrics:
    return metrics_of(request)


ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Await the work, or cancel it as soon as the client hangs up. The request's body must have been read."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_hung_up(request))
    watching.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done() and not watching.cancelled():
            raise ClientGone from None
        raise  # the server gives this request up
    finally:
        working.cancel()
        watching.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
