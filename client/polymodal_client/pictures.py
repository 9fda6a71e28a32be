"""What may be given as an image, and its bytes. They are read before the first attempt, so that each repeat sends the same."""

import sys
from inspect import isawaitable
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, cast

if TYPE_CHECKING:
    import PIL.Image

MAX_BYTES: Final = 64 * 2**20
"""More than any service reads by default (10 MiB); a stream without an end must not fill the memory."""


class Saveable(Protocol):
    """A PIL image, for type checkers that have no Pillow."""

    mode: str

    def save(self, fp: IO[bytes], format: str) -> None:
        """Write it as a file."""


Image: TypeAlias = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Saveable
"""A path (also as text), the bytes of a file, an open binary file or stream (read from its position), or a PIL image."""


def bytes_of(image: Image) -> bytes:
    """The bytes of an image's file. Raises OSError for a file that can't be read, TypeError and ValueError for anything else."""
    if isinstance(image, str | PathLike):
        with Path(image).open("rb") as file:
            return _bounded(file)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if _is_pil(image):
        from polymodal_client import pil  # noqa: PLC0415 — needs Pillow, which is there when its image is

        return pil.bytes_of(image, _bounded)
    if callable(getattr(image, "read", None)):
        return _bounded(cast(IO[bytes], image))
    raise TypeError(f"image: {type(image).__name__}; allowed: a path, bytes, a binary file, a PIL image or None")


def _bounded(file: IO[bytes]) -> bytes:
    content = bytearray()
    while True:  # an unbuffered stream may return less than there is
        chunk: Any = file.read(MAX_BYTES + 1 - len(content))
        if not isinstance(chunk, bytes | bytearray | memoryview):
            if isawaitable(chunk) and hasattr(chunk, "close"):
                chunk.close()
            found = f"a file opened as text or for asyncio (read() returns {type(chunk).__name__})"
            raise TypeError(f"image: {found}; allowed: one opened with mode 'rb'")
        content += chunk
        if len(content) > MAX_BYTES:
            raise ValueError(f"image: more than {MAX_BYTES:,} bytes; allowed: at most that")
        if not chunk:
            return bytes(content)


def _is_pil(image: object) -> TypeGuard["PIL.Image.Image"]:
    """By its class: other objects have a `save` too, such as an upload of a web framework."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)
