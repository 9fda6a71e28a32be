"""Bounded walks over the segments, directory entries and boxes of image files.

Reading the size (header.py) and stripping metadata (metadata.py, bmff.py) share them, so that both see the same file.
"""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray

MOST_BOXES: Final = 4_096
"""Most boxes in one, such as items, properties and references: 50 million pixels in tiles of 256 × 256 px are 800."""
START_OF_SCAN: Final = 0xDA
# Start of frame: all C0 … CF but the tables C4 and CC and the reserved C8 (ITU T.81, table B.1).
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END_OF_IMAGE: Final = 0xD9
_WITHOUT_DATA: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # stuffed bytes, restarts, another start of an image
_NO_FILL = re.compile(rb"[^\xff]")


def jpeg_segments(content: Buffer, most: int, most_fill: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment's data, up to the first scan, which has no end here.

    Fill bytes may precede a marker, and decoders skip other bytes. Raises ValueError or struct.error where the file ends before its
    first scan, and after more than `most_fill` fill bytes in a row; stops after `most` markers without an error.
    """
    position = 2
    for _ in range(most):
        fill = content.find(b"\xff", position)
        if fill < 0:
            raise ValueError("no image in it")
        if (match := _NO_FILL.search(content, fill, fill + most_fill + 1)) is None:
            raise ValueError("it ends too early")
        marker, position = match[0][0], match.end()
        if marker in _WITHOUT_DATA:
            continue
        if marker == _END_OF_IMAGE:
            raise ValueError("it ends before its image")
        if marker == START_OF_SCAN:
            yield marker, position, position
            return
        (length,) = struct.unpack_from(">H", content, position)
        yield marker, position, position + length
        position += length


class TiffEntry(NamedTuple):
    """An entry of a TIFF's directory; its value, or the offset of its values, is 8 bytes after its start."""

    tag: int
    kind: int
    values: int
    start: int


def byte_order(content: Buffer) -> str:
    """Return the byte order of a TIFF, as `struct` names it."""
    return "<" if content.startswith(b"II") else ">"


def tiff_entries(content: Buffer, most: int = 65_535) -> Iterator[TiffEntry]:
    """Yield the entries of the first directory of a TIFF or of EXIF. Raises struct.error where it ends too early."""
    order = byte_order(content)
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, directory)
    for start in range(directory + 2, directory + 2 + 12 * min(most, entries), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", content, start)
        yield TiffEntry(tag, kind, values, start)


def boxes(content: Buffer, start: int, end: int, most: int = MOST_BOXES) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each box's content (ISO/IEC 14496-12). A box that is longer than its container ends with it.

    Raises ValueError after `most` boxes and where one is shorter than its head.
    """
    for _ in range(most):
        if start + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", content, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, start + 8)
            head = 16
        following = start + length if length else end
        if following < start + head:
            raise ValueError("a box that is shorter than its head")
        yield name, start + head, min(following, end)
        start = following
    raise ValueError(f"more than {most:,} boxes in one")
