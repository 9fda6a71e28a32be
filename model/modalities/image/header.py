"""How large a picture says it is, from its first bytes alone; to guess its work before it is decoded anywhere.

No check: a header may lie, and decoding will tell. Offsets are those of the formats' specifications.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

Size: TypeAlias = tuple[int, int]

# Segments of a JPEG before its frame header, and bytes that fill the gaps between them: metadata of a camera takes a handful, and
# whoever sends nothing else must not keep the event loop busy.
MOST_STEPS: Final = 256
# Start of frame: all C0 … CF but the tables C4 and CC and the reserved C8 (ITU T.81, table B.1).
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def size_of(content: bytes) -> Size | None:
    """Width and height in pixels as a file of an accepted format states them; None when it doesn't."""
    reader = next((each for beginning, each in _READERS.items() if content.startswith(beginning)), None)
    size = reader(content) if reader else None
    return size if size and min(size) > 0 else None


def _jpeg(content: bytes) -> Size | None:
    position = 2
    for _ in range(MOST_STEPS):
        if content[position : position + 2] == b"\xff\xff":  # any marker may be preceded by fill bytes
            position += 1
            continue
        head = content[position : position + 9]
        if len(head) < 9 or head[0] != 0xFF:
            return None
        if head[1] in FRAMES:
            return _big(head[7:9]), _big(head[5:7])
        position += 2 + max(2, _big(head[2:4]))
    return None


def _png(content: bytes) -> Size | None:
    return (_big(content[16:20]), _big(content[20:24])) if content[12:16] == b"IHDR" else None


def _gif(content: bytes) -> Size | None:
    return _little(content[6:8]), _little(content[8:10])


def _bmp(content: bytes) -> Size | None:
    if _little(content[14:18]) == 12:  # the oldest header has two bytes for a side
        return _little(content[18:20]), _little(content[20:22])
    height = int.from_bytes(content[22:26], "little", signed=True)  # negative: rows from the top
    return _little(content[18:22]), abs(height)


def _webp(content: bytes) -> Size | None:
    match content[8:16]:
        case b"WEBPVP8X":
            return 1 + _little(content[24:27]), 1 + _little(content[27:30])
        case b"WEBPVP8L":  # 14 bits each
            bits = _little(content[21:25])
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"WEBPVP8 ":
            return _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF
    return None


def _tiff(content: bytes) -> Size | None:
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(content[start : start + length], order)

    directory, sides = number(4, 4), {}
    for entry in range(directory + 2, directory + 2 + 12 * min(MOST_STEPS, number(directory, 2)), 12):
        tag, kind = number(entry, 2), number(entry + 2, 2)
        if tag in (256, 257):
            sides[tag] = number(entry + 8, 2 if kind == 3 else 4)
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _big(content: bytes) -> int:
    return int.from_bytes(content, "big")


def _little(content: bytes) -> int:
    return int.from_bytes(content, "little")


_READERS: Final[Mapping[bytes, Callable[[bytes], Size | None]]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"II*\x00": _tiff,
    b"MM\x00*": _tiff,
}
