"""GET /: the page for people, from the files in app/web. It loads nothing from other sites."""

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_WEB = Path(str(files("polymodal.app"))) / "web"
_REVALIDATE = "no-cache"
"""Files are cached, but revalidated by ETag each time, so that a page never loads modules of two releases."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": _REVALIDATE,
}

_LINK = re.compile(r' *<a href="([^"]+)">[^<]*</a>\n')


class PageFiles(StaticFiles):
    """The page's files, which browsers cache until they change."""

    def __init__(self) -> None:
        super().__init__(directory=_WEB)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _REVALIDATE
        return response


def router_for(links: Collection[str]) -> APIRouter:
    """Return the route of the page. Of its links to other routes, only these stay."""
    router = APIRouter(include_in_schema=False)
    html = (_WEB / "index.html").read_text(encoding="utf-8")
    body = _LINK.sub(lambda link: link[0] if link[1] in links else "", html)

    @router.get("/")
    async def page() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(body, headers=_HEADERS)

    return router
