"""Images of the sources: validation, trimming and fingerprints."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops

from polymodal.model.digest import file_sha256
from polymodal.model.modalities.image.near_duplicates import Fingerprint, fingerprint_of_image

MAX_PIXELS: Final = 50_000_000
"""Checked in the header, before anything is decoded: Open Clip Art has images of 168 and 623 megapixels."""
MIN_SIDE: Final = 8  # px
RENDERED_SIDE: Final = 512  # px, at most, of a rendered SVG

CONTENT_TOLERANCE: Final = 8  # of 255: nearer to white is canvas

FINGERPRINT_VERSION: Final = 1  # increase it when `fingerprint` changes, so that cached ones are computed again


class UnusableImage(Exception):
    """An image that is left out, with the reason; caught by `assemble`."""


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of an image file. Raises UnusableImage."""
    return fingerprint_of_image(_content(_open(path)))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnusableImage(f"too large: {width} × {height} px; allowed: {MAX_PIXELS:,} pixels")
            if min(width, height) < MIN_SIDE:
                raise UnusableImage(f"too small: {width} × {height} px; allowed: sides from {MIN_SIDE} px")
            return image.convert("RGBA")
    except Image.DecompressionBombError as error:  # Pillow's own guard, at about 179 megapixels
        raise UnusableImage(f"too large: {error}") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's decoders raise any of these
        raise UnusableImage(f"undecodable: {error}") from None


def _content(image: Image.Image) -> Image.Image:
    """Return the drawing on white without the empty canvas around it; white strokes on transparency are put on black."""
    for colour in ((255, 255, 255), (0, 0, 0)):
        canvas = Image.new("RGBA", image.size, (*colour, 255))
        canvas.alpha_composite(image)
        flat = canvas.convert("RGB")
        difference = ImageChops.difference(flat, Image.new("RGB", flat.size, colour)).convert("L")
        box = difference.point([0] * CONTENT_TOLERANCE + [255] * (256 - CONTENT_TOLERANCE)).getbbox()
        if box:
            return flat.crop(box)
    return flat


class Fingerprints:
    """Fingerprints by the SHA-256 of the file's bytes, stored so that an image is decoded once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[object]] = {}
        try:
            stored = json.loads(file.read_bytes())
            if stored["version"] == FINGERPRINT_VERSION:
                self._known = stored["fingerprints"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no file yet, or of another version: fingerprints are computed again

    def of(self, paths: Sequence[Path], workers: int = 2) -> Iterator[Fingerprint | UnusableImage]:
        """Yield a fingerprint for each path, in their order; threads help because Pillow releases the interpreter's lock."""
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(self._one, paths)

    def save(self) -> None:
        """Write the file atomically."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"version": FINGERPRINT_VERSION, "fingerprints": self._known}))
        partial.replace(self._file)

    def _one(self, path: Path) -> Fingerprint | UnusableImage:
        key = file_sha256(path)
        match self._known.get(key):
            case [int(bits), str(thumb), int() | float() as aspect]:
                return Fingerprint(bits, bytes.fromhex(thumb), float(aspect))
            case [str(problem)]:
                return UnusableImage(problem)
        try:
            result = fingerprint(path)
        except UnusableImage as problem:
            self._known[key] = [str(problem)]
            return problem
        self._known[key] = [result.bits, result.thumb.hex(), result.aspect]
        return result


def svg_renderer() -> str | None:
    """Return the program that renders SVG (Debian: librsvg2-bin), or None."""
    return shutil.which("rsvg-convert")


def render_svg(program: str, source: Path, target: Path) -> None:
    """Render to a PNG of at most RENDERED_SIDE px, unless `target` exists. Raises UnusableImage."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    side = str(RENDERED_SIDE)
    command = [program, "--width", side, "--height", side, "--keep-aspect-ratio", "--format", "png"]
    try:
        subprocess.run([*command, "--output", str(partial), str(source)], check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise UnusableImage(f"cannot be rendered: {error}") from None
    partial.replace(target)
