"""The bytes of a PIL image. Imported only where there is one, since the client doesn't need Pillow.

An image that `Image.open` returned and whose pixels nothing has read can't have been changed: the bytes of its file are
sent, in the formats that every service reads. Anything else is encoded as it looks.
"""

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import IO, Final

from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile

_SENT_AS_THEY_ARE: Final = frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF"})
_READING: Final = Lock()
"""One image may be in several items, which threads prepare: its file has one position."""
_ORIENTATION: Final = 274  # EXIF 2.32, 4.6.4
_TURNS: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def bytes_of(image: Image.Image, read: Callable[[IO[bytes]], bytes]) -> bytes:
    """Return the bytes of an image's file, by `read`, or its present frame in a file of its own.

    Raises OSError for an image that can't be read.
    """
    with _READING:
        if (file := _untouched_file(image)) is not None:
            position = file.tell()
            file.seek(0)
            try:
                return read(file)
            finally:
                file.seek(position)  # where PIL goes on when it loads the pixels
        try:
            image.load()
        except Exception as problem:
            raise _unreadable(problem) from problem
    try:
        turn = _TURNS.get(_orientation(image))
        return _written(image if turn is None else image.transpose(turn), image.format)
    except Exception as problem:
        raise _unreadable(problem) from problem


def _untouched_file(image: Image.Image) -> IO[bytes] | None:
    """Return the open file of an image that is at its first frame, and whose pixels were not read."""
    if not isinstance(image, ImageFile) or image.format not in _SENT_AS_THEY_ARE:
        return None
    unread = image.tile or image.format == "WEBP"  # which has no tiles before it is loaded, and no file afterwards
    drafted = image.decoderconfig if image.format in ("JPEG", "MPO") else ()  # by `draft`, which may also make it grey
    closed = getattr(image.fp, "closed", True)
    return image.fp if unread and not drafted and not closed and image.tell() == 0 else None


def _unreadable(problem: Exception) -> OSError:
    found = f"a PIL image that can't be read ({type(problem).__name__}: {problem})"
    return OSError(f"image: {found}; allowed: one with pixels, loaded before its file is closed")


def _orientation(image: Image.Image) -> int:
    if not image.info.get("exif") and not {"xmp", "XML:com.adobe.xmp"}.isdisjoint(image.info):
        return 1  # Pillow would look into XMP, which the service, like browsers, does not
    with suppress(Exception):  # broken EXIF says nothing
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _written(image: Image.Image, kind: str | None) -> bytes:
    """`kind`: the format that the image came from, if any."""
    if image.mode in ("I", "F") and kind != "PNG":  # Pillow before 11.3 reads a PNG of 16 bits as I
        return _saved(image, "TIFF")
    if image.mode in ("I;16L", "I;16N"):  # which Pillow writes as nothing
        image = image.convert("I").convert("I;16")
    if image.mode.startswith("I"):
        return _saved(image, "TIFF" if kind == "TIFF" else "PNG")
    return _saved(_shown(image), "PNG")


def _shown(image: Image.Image) -> Image.Image:
    """In a mode that PNG has."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        assert shown is not None  # noqa: S101 — for mypy: it is None only when done in place
        return shown
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    may_have_key = image.mode in ("1", "L", "P", "RGB")  # a colour that counts as transparent
    transparent = image.mode in ("LA", "PA", "RGBA") or (may_have_key and image.has_transparency_data)
    if image.mode in ("1", "L") and not transparent:
        return image
    return image.convert("RGBA" if transparent else "RGB")


def _saved(image: Image.Image, kind: str) -> bytes:
    """Without metadata: the service reads none, and a profile of CMYK doesn't fit RGB."""
    content = io.BytesIO()
    image.save(content, kind, compression="raw", icc_profile=None, transparency=None)
    return content.getvalue()
