"""GET /docs and /openapi.json: the documentation of the API for people and for programs."""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount

from polymodal.app.api.files import ShippedFiles

_FILES: Final = "docs/files"


def router_for(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes of a document and its viewer; the document may be another application's."""
    router = APIRouter(include_in_schema=False)
    viewer = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Polymodal",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},  # by default, a public service that validates the document
    )
    html = bytes(viewer.body).decode()
    headers = {"Content-Security-Policy": _policy_for(html)}

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        """Return the viewer."""
        return HTMLResponse(html, headers=headers)

    @router.get("/openapi.json")
    async def openapi() -> JSONResponse:
        """Return the document."""
        return JSONResponse(document())

    return router


def viewer_files() -> Mount:
    """Return the route of the viewer's files."""
    return Mount(f"/{_FILES}", ShippedFiles("vendor/swagger-ui"))


def _policy_for(html: str) -> str:
    """Return a content security policy that allows the service's own files, and scripts in the page by their digests."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *digests)),
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
