"""Write docs/images: screenshots of the page in a real browser, with the embedded model.

It needs Playwright's Python package, which `make screenshots` installs, and Debian's chromium. The page shows milliseconds,
so the files differ from run to run.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
ARGUMENTS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
START_S: Final = 60
FREQUENT, DISTANT = 160, 96
"""Colours of an image: the most frequent ones, then repeatedly the one that is furthest from all selected ones."""
MAX_BYTES: Final = 150_000
"""Of one image, because the repository keeps every version of them."""


def chromium() -> str | None:
    """Return the path of the browser."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Shot(NamedTuple):
    """A screenshot: its size, its theme, and the actions before it is taken."""

    name: str
    size: tuple[int, int]
    theme: str
    prepare: "Callable[[Page], None]"


def _example(number: int) -> "Callable[[Page], None]":
    def prepare(page: "Page") -> None:
        page.locator(".example").nth(number).click()
        page.wait_for_selector(".scores .bar.only-text")
        page.mouse.move(5, 5)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")

    return prepare


def _batch(page: "Page") -> None:
    page.goto(f"{page.url.split('#', maxsplit=1)[0]}#batch")
    page.click("#batch-examples")
    page.wait_for_selector("#results tbody tr:nth-child(5)")
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur()")


def _compare(page: "Page") -> None:
    page.goto(f"{page.url.split('#', maxsplit=1)[0]}#compare")
    page.wait_for_selector("#by-words-list li")
    page.fill("#query-words", "something to eat")
    page.locator("#query-examples .example").nth(1).click()
    page.fill("#more-words", "a big cat\nthe flag of France")
    for side in ("words", "picture"):
        page.wait_for_selector(f"#by-{side}-list .bar")
    page.wait_for_selector("#by-picture-list li:nth-child(7) .bar")
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def _card(page: "Page") -> None:
    page.goto(f"{page.url.split('#', maxsplit=1)[0]}#model")
    page.wait_for_selector(".confusion")
    page.evaluate("window.scrollTo(0, document.querySelector('.figures').closest('section').offsetTop - 16)")


SHOTS: Final = (
    Shot("page", (1280, 800), "light", _example(0)),
    Shot("page-dark", (1280, 800), "dark", _example(3)),
    Shot("page-phone", (360, 1240), "light", _example(2)),
    Shot("page-batch", (1280, 800), "light", _batch),
    Shot("page-compare", (1280, 1130), "light", _compare),
    Shot("page-card", (1280, 1180), "light", _card),
)


@contextmanager
def serving() -> Iterator[str]:
    """Start the service with the embedded model; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("polymodal")), "serve"]
    settings = {"POLYMODAL_PORT": str(port), "POLYMODAL_WORKERS": "1", "POLYMODAL_BUNDLES": "illustrations"}
    process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 — our own address
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def take(browser: "Browser", address: str, shot: Shot) -> bytes:
    """Return a screenshot as a PNG with a palette."""
    width, height = shot.size
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page = context.new_page()
    page.emulate_media(color_scheme="dark" if shot.theme == "dark" else "light", reduced_motion="reduce")
    page.goto(address)
    page.wait_for_selector("#answer .chip")
    shot.prepare(page)
    page.wait_for_timeout(500)
    screenshot = page.screenshot()
    context.close()
    content = io.BytesIO()
    with Image.open(io.BytesIO(screenshot)) as image:
        _with_palette(image.convert("RGB")).save(content, "PNG", optimize=True)
    return content.getvalue()


def _with_palette(image: Image.Image) -> Image.Image:
    """Reduce the colours: surfaces and rare signal colours stay exact, other pixels take the nearest colour."""
    pixels = np.asarray(image).reshape(-1, 3)
    colours, inverse, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    values = colours.astype(np.int32)
    selected = [int(index) for index in np.argsort(-counts, kind="stable")[:FREQUENT]]
    distances = np.stack([((values - values[index]) ** 2).sum(axis=1) for index in selected])
    for _ in range(DISTANT):
        furthest = int(distances.min(axis=0).argmax())
        selected.append(furthest)
        distances = np.concatenate([distances, ((values - values[furthest]) ** 2).sum(axis=1)[None]])
    indices = distances.argmin(axis=0)[inverse].astype(np.uint8).reshape(image.height, image.width)
    reduced = Image.fromarray(indices, "P")
    reduced.putpalette(colours[selected].tobytes())
    return reduced


def main() -> None:
    """Take all screenshots."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 — only this command needs it

    IMAGES.mkdir(parents=True, exist_ok=True)
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        for shot in SHOTS:
            content = take(browser, address, shot)
            if len(content) > MAX_BYTES:
                raise SystemExit(f"{shot.name}.png: {len(content):,} bytes; allowed: {MAX_BYTES:,}")
            (IMAGES / f"{shot.name}.png").write_bytes(content)
            sys.stdout.write(f"docs/images/{shot.name}.png {len(content):,} bytes\n")
        browser.close()


if __name__ == "__main__":
    main()
