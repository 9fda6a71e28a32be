"""The bytes of a PIL image. Imported when there is one, because the client does not require Pillow.

An unchanged image of `Image.open` is sent as the bytes of its file, in the formats that every service reads. Any other image is
encoded.
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
"""Threads may prepare items with the same image, whose file has one position."""
_ORIENTATION: Final = 274  # EXIF 2.32, 4.6.4
_BITS: Final = 258  # TIFF 6.0: BitsPerSample
_LARGEST: Final = 281  # MaxSampleValue
# PhotometricInterpretation, and the range of the samples: they define the values of black and white.
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


def bytes_of(image: Image.Image, read: Callable[[IO[bytes]], bytes], name: str) -> bytes:
    """Return the bytes of an unchanged image's file, read by `read`; otherwise its current frame, encoded as a new file.

    Raises OSError for an image that can't be read.
    """
    with _READING:
        content = _file_of_unread(image, read)
        if content is None:
            try:
                image.load()
            except Exception as problem:
                raise _unreadable(name, problem) from problem
    content = content or _file_of_unchanged(image, read)
    if content is not None:
        return content
    try:
        turn = _TURNS.get(_orientation(image))
        return _encoded(image if turn is None else image.transpose(turn), image)
    except Exception as problem:
        raise _unreadable(name, problem) from problem


def _may_be_sent(image: Image.Image) -> TypeGuard[ImageFile]:
    """Return whether the service decodes the file to the same image. Not every service decodes LAB."""
    of_file = isinstance(image, ImageFile) and image.format in _SENT_AS_THEY_ARE and image.mode != "LAB"
    return of_file and image.tell() == 0


def _file_of_unread(image: Image.Image, read: Callable[[IO[bytes]], bytes]) -> bytes | None:
    """Return the file of an image whose pixels have not been decoded yet, so that they can't have been changed."""
    if not _may_be_sent(image) or image.fp is None or getattr(image.fp, "closed", False):
        return None
    unread = image.tile or image.format == "WEBP"  # WebP has no tiles before it is loaded, and no file afterwards
    # `draft` sets the decoder's configuration, and may convert the image to grey.
    drafted = image.decoderconfig if image.format in ("JPEG", "MPO") else ()
    if not unread or drafted:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        content = read(image.fp)
    finally:
        image.fp.seek(position)  # where PIL continues when it loads the pixels
    if image.format != "PNG":  # a PNG may have its orientation after the pixels, so that reading it decodes them
        with suppress(Exception), Image.open(io.BytesIO(content)) as reopened:
            if _orientation(reopened) != _orientation(image):
                return None
    return content


def _file_of_unchanged(image: Image.Image, read: Callable[[IO[bytes]], bytes]) -> bytes | None:
    """Return the file of a loaded image that was opened by its path, if it still has the same pixels.

    The JPEG of a photograph has a tenth of the bytes of its PNG, which many services would reject.
    """
    if not _may_be_sent(image) or not image.filename:
        return None
    with suppress(Exception):  # the file may have been moved, replaced or changed
        with Path(os.fsdecode(image.filename)).open("rb") as file:
            content = read(file)
        with Image.open(io.BytesIO(content)) as reopened:
            if reopened == image and _orientation(reopened) == _orientation(image):
                return content
    return None


def _unreadable(name: str, problem: Exception) -> OSError:
    reason = f"a PIL image that can't be read ({type(problem).__name__}: {problem})"
    return OSError(f"{name}: {reason}; allowed: one with pixels, loaded before its file is closed")


def _orientation(image: Image.Image) -> int:
    if not image.info.get("exif") and not {"xmp", "XML:com.adobe.xmp"}.isdisjoint(image.info):
        return 1  # Pillow would read XMP, which the service, like browsers, does not
    with suppress(Exception):  # broken EXIF is ignored
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _encoded(image: Image.Image, source: Image.Image) -> bytes:
    """Encode an image as PNG or TIFF. `source`: the image before it was turned, with its format and its tags."""
    if image.mode in ("I;16L", "I;16N"):  # Pillow does not write them
        image = image.convert("I").convert("I;16")
    if image.mode != "F" and not image.mode.startswith("I"):
        return _saved(_in_png_mode(image), "PNG", transparency=None)
    if source.format == "PNG":  # its 16 bits are from black to white; one grey may be transparent
        return _saved(image, "PNG", transparency=image.info.get("transparency"))
    tags = getattr(source, "tag_v2", {})  # the service computes the values of black and white from them
    levels = {tag: tags[tag] for tag in _LEVELS if tag in tags}
    if tags.get(_BITS) == (12,):
        levels.setdefault(_LARGEST, 4095)
    return _saved(image, "TIFF", tiffinfo=levels, compression="raw")


def _in_png_mode(image: Image.Image) -> Image.Image:
    """Convert an image to a mode that PNG files can have."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return cast(Image.Image, ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB"))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    may_have_key = image.mode in ("1", "L", "P", "RGB")  # a transparent colour
    transparent = image.mode in ("LA", "PA", "RGBA") or (may_have_key and image.has_transparency_data)
    if image.mode in ("1", "L") and not transparent:
        return image
    return image.convert("RGBA" if transparent else "RGB")


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image without metadata: the service ignores it, and a profile of CMYK does not fit RGB."""
    content = io.BytesIO()
    image.save(content, kind, icc_profile=None, **options)
    return content.getvalue()
