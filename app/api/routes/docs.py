"""GET /docs and /openapi.json: the documentation of the API for people and for programs."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from polymodal.app.api.headers import policy_for


def router_for(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes of a document and its viewer; the document may be another application's."""
    router = APIRouter(include_in_schema=False)
    viewer = bytes(get_swagger_ui_html(openapi_url="openapi.json", title="Polymodal").body).decode()
    headers = {"Content-Security-Policy": policy_for(viewer)}

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        """Return the viewer, whose files come from a public CDN."""
        return HTMLResponse(viewer, headers=headers)

    @router.get("/openapi.json")
    async def openapi() -> JSONResponse:
        """Return the document."""
        return JSONResponse(document())

    return router
