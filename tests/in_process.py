"""The real application on a real bundle, in this process."""

from contextlib import asynccontextmanager

import httpx

from polymodal.app.main import create_app
from polymodal.app.settings import Settings


@asynccontextmanager
async def serving(bundle, name=None, **options):
    """Yield an httpx client of an application that serves a bundle, under its folder's name unless another is passed."""
    fixed = {"workers": 0, "inference_threads": 1, "request_timeout_ms": 60_000}
    app = create_app(Settings(bundles=f"{name or bundle.name}={bundle}", **{**fixed, **options}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client
