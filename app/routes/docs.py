"""GET /docs and /openapi.json: what the service offers, for people and for programs."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from app.headers import policy_for


def install(app: FastAPI, document: Callable[[], dict[str, Any]]) -> None:
    """Serve a document, which need not be this application's own, and its viewer."""
    viewer = bytes(get_swagger_ui_html(openapi_url="openapi.json", title="Polymodal").body).decode()
    headers = {"Content-Security-Policy": policy_for(viewer)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The viewer, whose files come from a public CDN."""
        return HTMLResponse(viewer, headers=headers)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        """The document."""
        return JSONResponse(document())
