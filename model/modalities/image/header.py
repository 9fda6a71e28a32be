"""Size of an image from its header, and an estimate of the work to decode it.

Nothing is validated: decoding finds out whether a header is right. Offsets are those of the formats' specifications.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

from polymodal.model.types import Workload

Buffer: TypeAlias = bytes | bytearray
Size: TypeAlias = tuple[int, int]
Costs: TypeAlias = tuple[float, float]
"""Costs of a pixel and of a byte of the file."""

WHOLE: Final = "image"
"""Workload of decoding every pixel; one unit is a pixel of a PNG that compresses well."""
DRAFT: Final = "image/jpeg"
"""Workload of a JPEG that is not progressive, which is decoded at a reduced size, mostly reading; one unit is a byte."""

# Segments of a JPEG before its frame header, and fill bytes between them: a camera writes a handful, and a file of nothing else
# must not block the event loop.
MOST_STEPS: Final = 256
# Costs of a pixel and of a byte, by what a file begins with, measured with plain drawings and with noise of 0.3 to 48 megapixels
# (Pillow 13.0, x86-64): estimates are wrong by at most a factor of 2.5.
COSTS: Final[Mapping[bytes, Costs]] = {
    b"\xff\xd8\xff": (0.75, 4.0),  # progressive
    b"\x89PNG": (1.0, 2.0),
    b"RIFF": (2.0, 9.0),
    b"GIF8": (0.8, 1.0),
    b"BM": (0.75, 0.0),
    b"II*\x00": (1.0, 0.6),
    b"MM\x00*": (1.0, 0.6),
    b"ftyp": (1.0, 6.5),
}
DRAFT_COSTS: Final[Costs] = (1 / 13, 1.0)
MOST_WORK: Final = 4
"""Most units of either kind per pixel, except in a file that is compressed badly for its format."""
# Frames of a JPEG that are neither progressive nor hierarchical: baseline and extended, with Huffman codes (ITU T.81, table B.1).
SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
# Progressive, with Huffman or arithmetic codes.
PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
# Start of frame: all C0 … CF but the tables C4 and CC and the reserved C8 (ITU T.81, table B.1).
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def size_of(content: Buffer) -> Size | None:
    """Return width and height in pixels from the header of a file in an accepted format; None without them."""
    beginning = content[4:12] if content[4:8] == b"ftyp" else content
    reader = next((reader for start, reader in _READERS.items() if beginning.startswith(start)), None)
    size = reader(content) if reader else None
    return size if size and min(size) > 0 else None


def work_of(content: Buffer) -> Workload:
    """Estimate the work to decode a file; from its bytes if it states no size."""
    size = size_of(content)
    if size is None:
        return Workload(WHOLE, float(len(content)))
    frame = _frame(content)
    if frame and frame[1] in SEQUENTIAL:
        kind, costs = DRAFT, DRAFT_COSTS
    else:
        kind = WHOLE
        costs = next(costs for start, costs in COSTS.items() if content.startswith(start, 4 * (start == b"ftyp")))
    return Workload(kind, costs[0] * size[0] * size[1] + costs[1] * len(content))


def _jpeg(content: Buffer) -> Size | None:
    frame = _frame(content)
    return (_big(frame[7:9]), _big(frame[5:7])) if frame else None


def _frame(content: Buffer) -> Buffer | None:
    """Return the first bytes of a JPEG's frame header: its marker, and the fields with depth and size."""
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    position = 2
    for _ in range(MOST_STEPS):
        if content[position : position + 2] == b"\xff\xff":  # any marker may be preceded by fill bytes
            position += 1
            continue
        head = content[position : position + 9]
        if len(head) < 9 or head[0] != 0xFF:
            return None
        if head[1] in FRAMES:
            return head
        position += 2 + max(2, _big(head[2:4]))
    return None


def _png(content: Buffer) -> Size | None:
    return (_big(content[16:20]), _big(content[20:24])) if content[12:16] == b"IHDR" else None


def _gif(content: Buffer) -> Size | None:
    return _little(content[6:8]), _little(content[8:10])


def _bmp(content: Buffer) -> Size | None:
    if _little(content[14:18]) == 12:  # the oldest header has two bytes for a side
        return _little(content[18:20]), _little(content[20:22])
    height = int.from_bytes(content[22:26], "little", signed=True)  # negative: rows from the top
    return _little(content[18:22]), abs(height)


def _webp(content: Buffer) -> Size | None:
    match content[8:16]:
        case b"WEBPVP8X":
            return 1 + _little(content[24:27]), 1 + _little(content[27:30])
        case b"WEBPVP8L":  # 14 bits each
            bits = _little(content[21:25])
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"WEBPVP8 ":
            return _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF
    return None


def _tiff(content: Buffer) -> Size | None:
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(content[start : start + length], order)

    directory, sides = number(4, 4), {}
    for entry in range(directory + 2, directory + 2 + 12 * min(MOST_STEPS, number(directory, 2)), 12):
        tag, kind = number(entry, 2), number(entry + 2, 2)
        if tag in (256, 257):
            sides[tag] = number(entry + 8, 2 if kind == 3 else 4)
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _bmff(content: Buffer) -> Size | None:
    """Return the largest size among the properties of an AVIF or HEIC file, that of the whole image."""
    start, end = 0, len(content)
    for name, version in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        start, end = next(
            ((begin + version, close) for kind, begin, close in _boxes(content, start, end) if kind == name), (0, 0)
        )
    sizes = [
        (_big(content[at + 4 : at + 8]), _big(content[at + 8 : at + 12]))
        for kind, at, _ in _boxes(content, start, end)
        if kind == b"ispe"
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _boxes(content: Buffer, start: int, end: int) -> Iterator[tuple[Buffer, int, int]]:
    """Yield name, start and end of the content of each of the first boxes."""
    for _ in range(MOST_STEPS):
        length = _big(content[start : start + 4])
        following = start + length if length else end
        if start + 8 > end or following < start + 8:
            return
        yield content[start + 4 : start + 8], start + 8, min(end, following)
        start = following


def _big(content: Buffer) -> int:
    return int.from_bytes(content, "big")


def _little(content: Buffer) -> int:
    return int.from_bytes(content, "little")


_READERS: Final[Mapping[bytes, Callable[[Buffer], Size | None]]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"II*\x00": _tiff,
    b"MM\x00*": _tiff,
    b"ftyp": _bmff,
}
