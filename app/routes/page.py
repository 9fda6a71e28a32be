"""GET /: the page for people; plain files in app/web, nothing from other addresses."""

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_WEB = Path(str(files("app"))) / "web"
_ASK_AGAIN = "no-cache"
"""Kept, but asked for again each time, which an ETag makes cheap: modules of two releases must never meet in one page."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": _ASK_AGAIN,
}

_LINK = re.compile(r' *<a href="([^"]+)">[^<]*</a>\n')


class _Files(StaticFiles):
    """The page's files, each kept by browsers until it changes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _ASK_AGAIN
        return response


def install(app: FastAPI, links: Collection[str]) -> None:
    """Serve the page and its files; of its links, those that lead somewhere."""
    html = (_WEB / "index.html").read_text(encoding="utf-8")
    body = _LINK.sub(lambda link: link[0] if link[1] in links else "", html)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """Drop a picture, type a caption, see the scores."""
        return HTMLResponse(body, headers=_HEADERS)

    app.router.routes.append(Mount("/web", _Files(directory=_WEB), name="web"))
