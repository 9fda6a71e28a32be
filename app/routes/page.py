"""GET /: the page for trying the service by hand; plain files in app/web, nothing from other addresses."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

_WEB = Path(str(files("app"))) / "web"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter()
assets = Mount("/web", StaticFiles(directory=_WEB), name="web")


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def page() -> FileResponse:
    """Drop a picture, type a caption, see the scores."""
    return FileResponse(_WEB / "index.html", media_type="text/html", headers=_HEADERS)
