"""Draw docs/images: the page as a user sees it, in a real browser, with the embedded model.

Needs Playwright's Python package, which `make screenshots` brings, and Debian's chromium. Milliseconds differ from run to
run, and so do the files.
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
"""Colours of a picture: the most frequent ones as they are, then each time the one that is furthest from all of them."""
LARGEST: Final = 150_000
"""Bytes of one picture: they are kept in the repository, each version of them."""


def chromium() -> str | None:
    """Where the browser is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Shot(NamedTuple):
    """One picture: how large, in which theme, and what is done before it is taken."""

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


def _card(page: "Page") -> None:
    page.goto(f"{page.url.split('#', maxsplit=1)[0]}#model")
    page.wait_for_selector(".confusion")
    page.evaluate("window.scrollTo(0, document.querySelector('.figures').closest('section').offsetTop - 16)")


SHOTS: Final = (
    Shot("page", (1280, 800), "light", _example(0)),
    Shot("page-dark", (1280, 800), "dark", _example(3)),
    Shot("page-phone", (360, 1240), "light", _example(2)),
    Shot("page-batch", (1280, 800), "light", _batch),
    Shot("page-card", (1280, 1180), "light", _card),
)


@contextmanager
def serving() -> Iterator[str]:
    """The service with the embedded model, in a process of its own; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("polymodal")), "serve"]
    environment = {
        **os.environ,
        "POLYMODAL_PORT": str(port),
        "POLYMODAL_WORKERS": "1",
        "POLYMODAL_BUNDLES": "illustrations",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 — our own address
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.2)


def take(browser: "Browser", address: str, shot: Shot) -> bytes:
    """One picture as a PNG of few colours."""
    width, height = shot.size
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page = context.new_page()
    page.emulate_media(color_scheme="dark" if shot.theme == "dark" else "light", reduced_motion="reduce")
    page.goto(address)
    page.wait_for_selector("#answer .chip")
    shot.prepare(page)
    page.wait_for_timeout(500)
    drawn = page.screenshot()
    context.close()
    small = io.BytesIO()
    with Image.open(io.BytesIO(drawn)) as picture:
        _in_few_colours(picture.convert("RGB")).save(small, "PNG", optimize=True)
    return small.getvalue()


def _in_few_colours(picture: Image.Image) -> Image.Image:
    """Surfaces keep their colours exactly, rare signal colours stay; what is between them takes the nearest."""
    pixels = np.asarray(picture).reshape(-1, 3)
    colours, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    wide = colours.astype(np.int32)
    chosen = [int(index) for index in np.argsort(-counts, kind="stable")[:FREQUENT]]
    distances = np.stack([((wide - wide[index]) ** 2).sum(axis=1) for index in chosen])
    for _ in range(DISTANT):
        furthest = int(distances.min(axis=0).argmax())
        chosen.append(furthest)
        distances = np.concatenate([distances, ((wide - wide[furthest]) ** 2).sum(axis=1)[None]])
    places = distances.argmin(axis=0)[which].astype(np.uint8).reshape(picture.height, picture.width)
    reduced = Image.fromarray(places, "P")
    reduced.putpalette(colours[chosen].tobytes())
    return reduced


def main() -> None:
    """Take all of them."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 — only this word needs it

    IMAGES.mkdir(parents=True, exist_ok=True)
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        for shot in SHOTS:
            content = take(browser, address, shot)
            if len(content) > LARGEST:
                raise SystemExit(f"{shot.name}.png: {len(content):,} bytes; allowed: {LARGEST:,}")
            (IMAGES / f"{shot.name}.png").write_bytes(content)
            sys.stdout.write(f"docs/images/{shot.name}.png {len(content):,} bytes\n")
        browser.close()


if __name__ == "__main__":
    main()
