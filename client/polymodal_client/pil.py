"""The bytes of a PIL image. Imported only where there is one, since the client doesn't need Pillow.

Of an image that `Image.open` returned and that was not changed since, the bytes of its file are sent, in the formats that
every service reads. Any other image is encoded as it looks.
"""

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Final, TypeGuard, cast

from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile

_SENT_AS_THEY_ARE: Final = frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF"})
_READING: Final = Lock()
"""One image may be in several items, which threads prepare: its file has one position."""
_ORIENTATION: Final = 274  # EXIF 2.32, 4.6.4
_BITS: Final = 258  # TIFF 6.0: BitsPerSample
_LARGEST: Final = 281  # MaxSampleValue
# PhotometricInterpretation, and the range of the samples: which values are black and white.
_LEVELS: Final = (262, 280, _LARGEST, 340, 341)
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
    """Return the bytes of an unchanged image's file, by `read`, or else its present frame in a file of its own.

    Raises OSError for an image that can't be read.
    """
    with _READING:
        content = _of_unread(image, read)
        if content is None:
            try:
                image.load()
            except Exception as problem:
                raise _unreadable(problem) from problem
    content = content or _of_unchanged(image, read)
    if content is not None:
        return content
    try:
        turn = _TURNS.get(_orientation(image))
        return _written(image if turn is None else image.transpose(turn), image)
    except Exception as problem:
        raise _unreadable(problem) from problem


def _may_be_sent(image: Image.Image) -> TypeGuard[ImageFile]:
    """Whether the service takes the file for what the image shows. Not every service shows LAB."""
    of_file = isinstance(image, ImageFile) and image.format in _SENT_AS_THEY_ARE and image.mode != "LAB"
    return of_file and image.tell() == 0


def _of_unread(image: Image.Image, read: Callable[[IO[bytes]], bytes]) -> bytes | None:
    """Return the file of an image whose pixels nothing has read: they can't have been changed."""
    if not _may_be_sent(image) or image.fp is None or getattr(image.fp, "closed", False):
        return None
    unread = image.tile or image.format == "WEBP"  # which has no tiles before it is loaded, and no file afterwards
    drafted = image.decoderconfig if image.format in ("JPEG", "MPO") else ()  # by `draft`, which may also make it grey
    if not unread or drafted:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        content = read(image.fp)
    finally:
        image.fp.seek(position)  # where PIL goes on when it loads the pixels
    if image.format != "PNG":  # which may note its orientation behind the pixels, so that asking for it reads them
        with suppress(Exception), Image.open(io.BytesIO(content)) as again:
            if _orientation(again) != _orientation(image):
                return None
    return content


def _of_unchanged(image: Image.Image, read: Callable[[IO[bytes]], bytes]) -> bytes | None:
    """Return the file of a loaded image that was opened by its path, where it still holds the same pixels.

    A photograph's JPEG is a tenth of its PNG, which many services would find too large.
    """
    if not _may_be_sent(image) or not image.filename:
        return None
    with suppress(Exception):  # it may have been moved, replaced or changed
        with Path(os.fsdecode(image.filename)).open("rb") as file:
            content = read(file)
        with Image.open(io.BytesIO(content)) as again:
            if again == image and _orientation(again) == _orientation(image):
                return content
    return None


def _unreadable(problem: Exception) -> OSError:
    found = f"a PIL image that can't be read ({type(problem).__name__}: {problem})"
    return OSError(f"image: {found}; allowed: one with pixels, loaded before its file is closed")


def _orientation(image: Image.Image) -> int:
    if not image.info.get("exif") and not {"xmp", "XML:com.adobe.xmp"}.isdisjoint(image.info):
        return 1  # Pillow would look into XMP, which the service, like browsers, does not
    with suppress(Exception):  # broken EXIF says nothing
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _written(image: Image.Image, source: Image.Image) -> bytes:
    """`source`: the image as it was given, with its format and its tags."""
    if image.mode in ("I;16L", "I;16N"):  # which Pillow doesn't write
        image = image.convert("I").convert("I;16")
    if image.mode != "F" and not image.mode.startswith("I"):
        return _saved(_shown(image), "PNG", transparency=None)
    if source.format == "PNG":  # whose 16 bits go from black to white; one grey may be transparent
        return _saved(image, "PNG", transparency=image.info.get("transparency"))
    tags = getattr(source, "tag_v2", {})  # by which the service finds out which values are black and white
    levels = {tag: tags[tag] for tag in _LEVELS if tag in tags}
    if tags.get(_BITS) == (12,):
        levels.setdefault(_LARGEST, 4095)
    return _saved(image, "TIFF", tiffinfo=levels, compression="raw")


def _shown(image: Image.Image) -> Image.Image:
    """In a mode that PNG has."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return cast(Image.Image, ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB"))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    may_have_key = image.mode in ("1", "L", "P", "RGB")  # a colour that counts as transparent
    transparent = image.mode in ("LA", "PA", "RGBA") or (may_have_key and image.has_transparency_data)
    if image.mode in ("1", "L") and not transparent:
        return image
    return image.convert("RGBA" if transparent else "RGB")


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Without metadata: the service reads none, and a profile of CMYK doesn't fit RGB."""
    content = io.BytesIO()
    image.save(content, kind, icc_profile=None, **options)
    return content.getvalue()
