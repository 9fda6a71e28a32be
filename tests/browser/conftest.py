"""The page in a real browser with a real service. `make test-browser` runs these tests; `make test` skips them.

Every test fails on an error in the console, a breach of the content security policy, or a request to another site.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from polymodal.app.api.server import server_for
from polymodal.app.main import create_app
from polymodal.app.settings import Settings, embedded_bundle
from polymodal.model import load_bundle
from scripts.screenshots import ARGUMENTS, chromium
from tests.app.conftest import make_predictor

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples"
HERE = Path(__file__).parent
FAILED_REQUEST = "Failed to load resource"
"""Beginning of Chromium's console message about an answer that is a problem, which is no error of the page."""


def pytest_collection_modifyitems(items):
    reason = None
    if not os.environ.get("BROWSER_TESTS"):
        reason = "BROWSER_TESTS is not set: make test-browser"
    elif chromium() is None:
        reason = "chromium is not installed: apt-get install chromium"
    browser_tests = [item for item in items if item.path.is_relative_to(HERE)]
    if len(browser_tests) < len(items):  # Playwright occupies the thread's event loop, which asynchronous tests need
        reason = reason or "they need a run of their own: make test-browser"
    for item in browser_tests:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@contextmanager
def serving(predictors, **changed) -> Iterator[str]:
    """Serve on a free port, in a thread; yields the page's address."""
    app = create_app(Settings(workers=0).model_copy(update={"port": 0, **changed}), predictors)
    server = server_for(app)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await server.serve()

    def begin() -> None:
        import asyncio

        asyncio.run(run())

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def illustrations():
    return load_bundle(embedded_bundle("illustrations").path, threads=1)


@pytest.fixture(scope="session")
def address(illustrations) -> Iterator[str]:
    """The page of a service with the embedded model."""
    with serving({"illustrations": illustrations}) as address:
        yield address


@pytest.fixture
def toys():
    """`toys("multi-label", …)`: the page of a service with a tiny model for each target; `aligned` ones compare."""
    with ExitStack() as services:

        def start(*targets, aligned=False, **changed):
            predictors = {target: make_predictor(target, task=target, aligned=aligned) for target in targets}
            return services.enter_context(serving(predictors, **changed))

        yield start


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """`open_page(address, **options)`: a page in a new browser context, once the element `ready` is there."""
    contexts, errors = [], []

    def start(address, ready=".example img", **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page, home = context.new_page(), "/".join(address.split("/")[:3]) + "/"
        page.set_default_timeout(10_000)
        page.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: request.url.startswith((home, "blob:")) or errors.append(request.url))
        page.goto(address)
        page.wait_for_selector(ready, state="attached")
        return page

    yield start
    for context in contexts:
        context.close()
    assert [message for message in errors if FAILED_REQUEST not in message] == []


@pytest.fixture
def page(open_page, address):
    """The page of the embedded model, as on a first visit."""
    return open_page(address, ready="#answer .chip")


@pytest.fixture(scope="session")
def change_models():
    """`change_models(page, address, change)`: open an address for which `change` edits each description of a model."""

    def start(page, address, change):
        def edit(route):
            body = route.fetch().json()
            for model in body.get("models", [body]):
                change(model)
            route.fulfill(json=body)

        page.route(re.compile("/v1/models"), edit)
        page.goto(address)

    return start


@pytest.fixture(scope="session")
def bring():
    """`bring(page, event, *files)`: files as if dropped on the page or pasted into it."""

    def dispatch(page, event, *files):
        contents = [{"name": path.name, "bytes": list(path.read_bytes())} for path in files]
        page.evaluate(
            """([event, files]) => {
                const data = new DataTransfer();
                for (const { name, bytes } of files) {
                    const type = name.endsWith(".csv") ? "text/csv" : "image/png";
                    data.items.add(new File([new Uint8Array(bytes)], name, { type }));
                }
                const options = { bubbles: true, cancelable: true };
                const events = event === "paste"
                    ? [new ClipboardEvent("paste", { clipboardData: data, ...options })]
                    : ["dragenter", "dragover", "drop"].map((kind) => new DragEvent(kind, { dataTransfer: data, ...options }));
                for (const dispatched of events) document.body.dispatchEvent(dispatched);
            }""",
            [event, contents],
        )

    return dispatch
