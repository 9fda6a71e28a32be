"""What may be given as an image, and its bytes. They are read before the first attempt, so that each repeat sends the same."""

import io
from os import PathLike
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeAlias, runtime_checkable

MAX_BYTES: Final = 64 * 2**20
"""More than any service reads by default (10 MiB); a stream without an end must not fill the memory."""


@runtime_checkable
class Saveable(Protocol):
    """A PIL image, which is sent as PNG."""

    mode: str

    def save(self, fp: IO[bytes], format: str) -> None:
        """Write it as a file."""


Image: TypeAlias = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Saveable
"""A path (also as text), the bytes of a file, an open binary file or stream (read from where it stands), or a PIL image."""


def bytes_of(image: Image) -> bytes:
    """The bytes of an image's file. Raises OSError for a file that can't be read, TypeError and ValueError for anything else."""
    if isinstance(image, str | PathLike):
        with Path(image).open("rb") as file:
            return _bounded(file)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Saveable):
        return _png(image)
    if hasattr(image, "read"):
        return _bounded(image)
    raise TypeError(f"image: {type(image).__name__}; allowed: a path, bytes, a binary file, a PIL image or None")


def _bounded(file: IO[bytes]) -> bytes:
    content: Any = file.read(MAX_BYTES + 1)
    if not isinstance(content, bytes):
        raise TypeError("image: a file opened as text; allowed: one opened with mode 'rb'")
    if len(content) > MAX_BYTES:
        raise ValueError(f"image: more than {MAX_BYTES:,} bytes; allowed: at most that")
    return content


def _png(image: Saveable) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
