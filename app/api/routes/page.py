"""GET /: the page for people, from the files in app/web. It loads nothing from other sites."""

import re
from collections.abc import Collection

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.routing import Mount

from polymodal.app.api.files import REVALIDATE, ShippedFiles, shipped

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": REVALIDATE,
}

_LINK = re.compile(r' *<a href="([^"]+)">[^<]*</a>\n')


def router_for(links: Collection[str]) -> APIRouter:
    """Return the route of the page. Of its links to other routes, only these stay."""
    router = APIRouter(include_in_schema=False)
    html = (shipped("web") / "index.html").read_text(encoding="utf-8")
    body = _LINK.sub(lambda link: link[0] if link[1] in links else "", html)

    @router.get("/")
    async def page() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(body, headers=_HEADERS)

    return router


def page_files() -> Mount:
    """Return the route of the page's files."""
    return Mount("/web", ShippedFiles("web"))
