"""Objects that are accepted as files, and their bytes. They are read before the first attempt, and retries send them again."""

import sys
from inspect import isawaitable
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, cast

if TYPE_CHECKING:
    import PIL.Image

MAX_BYTES: Final = 64 * 2**20
"""Of one file, so that an endless stream does not fill the memory."""

ALLOWED: Final = "a path, bytes, a binary file, a PIL image or None"


class Saveable(Protocol):
    """A PIL image, for type checkers that have no Pillow."""

    mode: str

    def save(self, fp: IO[bytes], format: str) -> None:
        """Write the image to a file."""


File: TypeAlias = PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Saveable
"""A path, the bytes of a file, an open binary file or stream (read from its position), or a PIL image."""
Image: TypeAlias = str | File
"""A file; its path may also be a text."""


def bytes_of(file: Image, name: str = "image", allowed: str = ALLOWED) -> bytes:
    """Return a file's bytes; `name` and `allowed` are for messages.

    Raises OSError for a file that can't be read, TypeError and ValueError for anything else.
    """
    if isinstance(file, str | PathLike):
        with Path(file).open("rb") as opened:
            return _bounded(opened, name)
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    if _is_pil(file):
        from polymodal_client import pil  # noqa: PLC0415 — needs Pillow, which is installed if there is an image of it

        return pil.bytes_of(file, lambda opened: _bounded(opened, name), name)
    if callable(getattr(file, "read", None)):
        return _bounded(cast(IO[bytes], file), name)
    raise TypeError(f"{name}: {type(file).__name__}; allowed: {allowed}")


def as_file(file: Image) -> File:
    """Return a file whose path is no text, because texts are inputs of their own."""
    return Path(file) if isinstance(file, str) else file


def _bounded(file: IO[bytes], name: str) -> bytes:
    content = bytearray()
    while True:  # an unbuffered stream may return fewer bytes than it has
        chunk: Any = file.read(MAX_BYTES + 1 - len(content))
        if not isinstance(chunk, bytes | bytearray | memoryview):
            if isawaitable(chunk) and hasattr(chunk, "close"):
                chunk.close()
            kind = f"a file opened as text or for asyncio (read() returns {type(chunk).__name__})"
            raise TypeError(f"{name}: {kind}; allowed: one opened with mode 'rb'")
        content += chunk
        if len(content) > MAX_BYTES:
            raise ValueError(f"{name}: more than {MAX_BYTES:,} bytes; allowed: at most that")
        if not chunk:
            return bytes(content)


def _is_pil(image: object) -> TypeGuard["PIL.Image.Image"]:
    """Return whether an object is a PIL image, by its class, because other objects have a `save` method, too."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)
