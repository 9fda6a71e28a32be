"""Files that the service ships for browsers."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

REVALIDATE: Final = "no-cache"
"""Cached, but revalidated by ETag each time, so that a page never loads files of two releases."""


def shipped(folder: str) -> Path:
    """Return the path of a folder below app/."""
    return Path(str(files("polymodal.app"))) / folder


class ShippedFiles(StaticFiles):
    """The files of a folder below app/, which browsers cache until they change."""

    def __init__(self, folder: str) -> None:
        super().__init__(directory=shipped(folder))

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = REVALIDATE
        return response
