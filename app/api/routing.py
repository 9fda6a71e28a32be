"""Routes with the scopes that they need; a route that is not registered is closed to every key."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send

from polymodal.app.access.scopes import ANY_KEY, OPEN, scopes

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class WholeServer(BaseRoute):
    """Route of OPTIONS *, which concerns the whole server (RFC 9110, 9.3.7)."""

    path = "*"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match OPTIONS *."""
        full = scope["type"] == "http" and scope["path"] == "*" and scope["method"] == "OPTIONS"
        return (Match.FULL if full else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with the methods of all routes."""
        await Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS, POST"})(scope, receive, send)


class DialectRoute(Route):
    """A route whose problems have the form of a dialect (`app.api.dialects`); None for our own form."""

    dialect: str | None = None


class Plain:
    """An endpoint as an ASGI application, without Starlette's layers for exceptions."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        response = await self._endpoint(Request(scope, receive))
        await response(scope, receive, send)


class Routes:
    """The routes of one application, with the scopes that they need.

    FastAPI serves included routes. Plain routes, for frequent requests, are matched before FastAPI and its layers.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._registered: list[tuple[BaseRoute, str]] = []
        self.needs: dict[str, str] = {}
        """The needed scope by path; paths are written as in OpenAPI."""
        self.dialects: dict[str, str] = {}
        """The dialect by path, of routes that have one."""
        self.described: list[BaseRoute] = []
        """Routes for OpenAPI in addition to FastAPI's own."""
        self.application = Router(redirect_slashes=False, default=app.build_middleware_stack())
        """Serves plain routes, and everything else with FastAPI."""
        self.include_route(WholeServer(), needs=ANY_KEY)

    def include_plain(self, router: APIRouter, needs: str, dialect: str | None = None) -> None:
        """Serve the endpoints of a router, which return responses, by plain routes; OpenAPI describes the router's own routes."""
        for route in router.routes:
            if isinstance(route, Route):
                plain = DialectRoute(route.path, Plain(route.endpoint), methods=route.methods)
                if dialect:
                    plain.dialect = self.dialects[route.path] = dialect
                self._register(plain, needs)
                self.application.routes.append(plain)
                self.described.append(route)

    def include(self, router: APIRouter, needs: str) -> None:
        """Register the routes of a router; FastAPI serves them."""
        for route in router.routes:
            self._register(route, needs)
        self._app.include_router(router)

    def include_route(self, route: BaseRoute, needs: str) -> None:
        """Register a route that FastAPI's routers can't contain; FastAPI serves it."""
        self._register(route, needs)
        self._app.router.routes.append(route)

    def _register(self, route: BaseRoute, needs: str) -> None:
        if needs not in (allowed := (OPEN, ANY_KEY, *scopes())):
            raise ValueError(f"scope: {needs!r}; allowed: {', '.join(allowed)}")
        self._registered.append((route, needs))
        self.needs[route.path] = needs  # type: ignore[attr-defined]

    def resolve(self, scope: Scope) -> tuple[BaseRoute, str] | None:
        """Return the registered route of a request with the scope that it needs; None without one.

        A route with another method is returned only if no route has both the path and the method.
        """
        partial = None
        for entry in self._registered:
            match, _ = entry[0].matches(scope)
            if match is Match.FULL:
                return entry
            if match is Match.PARTIAL and partial is None:
                partial = entry
        return partial
