"""Strip metadata and later frames from an image file before any decoder reads it.

Pillow reads metadata whole and some of it slowly: 2.5 MB of EXIF in segments of 20 bytes kept it busy for 21 s, and 10 MB of
numbers in a tag became 390 MB of objects. Only the orientation is used. Offsets and names are those of the formats'
specifications.
"""

import re
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from polymodal.model.modalities.image.bmff import Box4, Size, still
from polymodal.model.modalities.image.containers import (
    FRAMES,
    START_OF_SCAN,
    TiffEntry,
    byte_order,
    jpeg_segments,
    tiff_entries,
)
from polymodal.model.modalities.image.formats import BEGINNINGS, Unread
from polymodal.model.modalities.image.header import PROGRESSIVE, SEQUENTIAL

MOST_PIECES: Final = 65_536
"""Most chunks of a PNG or WebP, blocks of a GIF before its image, and strips or tiles of a TIFF."""
MOST_SEGMENTS: Final = 4_096
"""Most segments of a JPEG before its image; an ICC profile and an XMP packet of megabytes take some hundred."""
MOST_SCANS: Final = 100
"""Most scans of a JPEG; the decoder walks over all coefficients for each. Encoders write about 10."""
UPRIGHT: Final = 1
ORIENTATION: Final = 0x0112

# A marker behind the first scan header that has data or ends the image (ITU T.81, B.1.1): neither a stuffed byte of entropy-coded
# data nor a restart marker. Without a repetition, so that searching takes time in proportion to the bytes.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_END_OF_IMAGE: Final = b"\xff\xd9"
_JPEG_BITS: Final = 8  # of a sample; libjpeg decodes no others for Pillow
# Segments that a JPEG's image needs besides its frame: JFIF and Adobe (colour model), quantisation, Huffman tables, restarts.
_JPEG_KEPT: Final = frozenset({0xE0, 0xEE, 0xDB, 0xC4, 0xCC, 0xDD})
_MOST_QUANTISERS: Final = 2 + 4 * 129  # bytes of a segment with all four tables, in 16 bits
_MOST_FRAME: Final = 8 + 3 * 4  # bytes of a frame header with four components
# Meaningless entropy-coded data that begins with a one, where a decoder would assume zeros; once before every restart marker that
# it may expect.
_OTHER_SCANNED: Final = b"".join(
    bytes((170 + 89 * byte) % 251 for byte in range(256)) + bytes((0xFF, 0xD0 + number))
    for number in (*range(8), *range(8))
)
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_WEBP_KEPT: Final = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM"})
_WEBP_METADATA: Final = 0x20 | 0x08 | 0x04  # flags of VP8X: ICC, EXIF, XMP
VALUE_RANGE: Final = (280, 281, 340, 341)
"""Tags of a TIFF with its least and greatest values: as integers, and as numbers of the samples' own type."""
_DNG: Final = 50_706  # the tag DNGVersion
# Tags that a TIFF's pixels depend on, and how many values each may have (TIFF 6.0; 347: TIFF Technical Note 2).
_TIFF_KEPT: Final[Mapping[int, int]] = {
    **dict.fromkeys((256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 338, 339, 529, 530, 531, 532), 16),
    **dict.fromkeys(VALUE_RANGE, 16),
    **dict.fromkeys((273, 279, 324, 325), MOST_PIECES),
    320: 3 * 256,
    347: 65_536,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stripped:
    """An image file without metadata and later frames."""

    content: bytes
    orientation: int = UPRIGHT
    """As in tag 274 of EXIF, from 1 to 8."""
    other_ending: bytes = b""
    """For a JPEG without an end marker: the content with another ending, which has the same pixels unless some are missing."""
    inverted: bool = False
    """Whether zero is white in a TIFF of 16 or 32 bits, because Pillow ignores that."""
    size: Size | None = None
    """In pixels, where it must be checked before a decoder opens the content: AVIF and HEIC."""
    crop: Box4 | None = None
    """Box to crop before the image is turned (left, top, right, bottom)."""


def strip_metadata(media_type: str, content: bytes) -> Stripped:
    """Return the first image of a file in one of the accepted formats. Raises ValueError if there is none."""
    strip = _STRIPPERS[media_type]
    try:
        return strip(content)
    except (struct.error, IndexError):
        raise ValueError("it ends too early") from None
    except KeyError as missing:  # an item of AVIF or HEIC
        raise ValueError(f"item {missing} is referred to, and not there") from None


def _jpeg(content: bytes) -> Stripped:
    kept, exif, frame = [content[:2]], b"", b""
    for marker, start, end in jpeg_segments(content, MOST_SEGMENTS, len(content)):
        if marker == START_OF_SCAN:
            return _jpeg_scans(content, start - 2, b"".join(kept), frame, orientation(exif))
        data, length = content[start:end], end - start
        if marker in FRAMES:
            if frame or length > _MOST_FRAME:
                raise ValueError("a second frame, or one of more than four components")
            if _JPEG_BITS < (bits := data[2]) <= 16:
                raise Unread(
                    f"image/jpeg of {bits} bits a channel", f"save it with {_JPEG_BITS} bits a channel, or as PNG"
                )
            frame = bytes((0xFF, marker)) + data
        elif marker == 0xE1 and not exif and data.startswith(b"Exif\x00\x00", 2):
            exif = data[2:]
        if marker in FRAMES or marker in _JPEG_KEPT:
            if marker == 0xDB and length > _MOST_QUANTISERS:
                raise ValueError("more than four tables of quantisation in one segment")
            kept.append(bytes((0xFF, marker)) + data)
    raise ValueError(f"more than {MOST_SEGMENTS} segments before its image")


def _jpeg_scans(content: bytes, start: int, head: bytes, frame: bytes, turned: int) -> Stripped:
    """Return a JPEG's head with its scans, up to the end marker; what follows belongs to other files."""
    # A sequential JPEG with all components in its first scan has no other. Most photographs are such and need no walk.
    alone = frame[1] in SEQUENTIAL and content[start + 4] == frame[9]
    if alone and content.endswith(_END_OF_IMAGE):
        return Stripped(head + content[start:], turned)
    scans, position, left = 0, start, _Coefficients(frame)
    for _ in range(MOST_SEGMENTS):
        if (match := _MARKER.search(content, position)) is None:
            break
        marker, position = content[match.end() - 1], match.end()
        if marker == 0xD9:
            return Stripped(head + content[start:position], turned)
        length = int.from_bytes(content[position : position + 2], "big")
        if marker == 0xD8 or length < 2:  # the decoder decides; it may count other scans than these
            if content.count(b"\xff\xda", start) > MOST_SCANS:
                raise ValueError(f"more than {MOST_SCANS} scans")
            return Stripped(head + content[start:], turned)
        if marker == START_OF_SCAN:
            scans += 1
            if scans > MOST_SCANS:
                raise ValueError(f"more than {MOST_SCANS} scans")
            left.decode(content[position + 2 : position + length])
        position += length
    else:
        raise ValueError(f"more than {MOST_SEGMENTS} segments behind its first scan")
    if left:
        raise ValueError("it ends before its last scan")
    # Where data is missing, a decoder computes pixels from the bytes that follow.
    scanned = head + content[start:].rstrip(b"\xff")
    return Stripped(scanned + _END_OF_IMAGE, turned, scanned + _OTHER_SCANNED + _END_OF_IMAGE)


class _Coefficients:
    """Coefficients of components that no scan has completed yet; true while there are any."""

    def __init__(self, frame: bytes) -> None:
        components = [frame[at] for at in range(10, 10 + 3 * frame[9], 3)]
        self._progressive = frame[1] in PROGRESSIVE
        self._left = {component: set(range(64)) for component in components}

    def decode(self, scan: bytes) -> None:
        """Read a scan header, from its number of components on (ITU T.81, B.2.3)."""
        components = 1 + 2 * scan[0]
        first, last, approximation = scan[components : components + 3] if self._progressive else (0, 63, 0)
        if not approximation & 15:  # its last bit
            for component in scan[1:components:2]:
                self._left.get(component, set()).difference_update(range(first, last + 1))

    def __bool__(self) -> bool:
        return any(self._left.values())


def _png(content: bytes) -> Stripped:
    kept, exif, seen, position = [content[:8]], b"", set(), 8
    for _ in range(MOST_PIECES):
        head = content[position : position + 8]
        kind, end = head[4:], position + 12 + int.from_bytes(head[:4], "big")
        if not kind.isalpha():
            raise ValueError("a chunk whose name is not four letters") if head else ValueError("no end")
        if kind == b"IDAT" or (kind in _PNG_KEPT and kind not in seen):
            kept.append(content[position:end])
        elif kind == b"eXIf":
            exif = content[position + 8 : end - 4]
        seen.add(kind)
        if kind == b"IEND" or end >= len(content):  # the decoder decides about a file that ends too early
            return Stripped(b"".join((*kept, content[position:end] if kind == b"IEND" else b"")), orientation(exif))
        position = end
    raise ValueError(f"more than {MOST_PIECES:,} chunks")


def _webp(content: bytes) -> Stripped:
    kept: list[bytes] = []
    exif, frames, position = b"", 0, 12
    end = min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    for _ in range(MOST_PIECES):
        if position + 8 > end:
            body = b"".join(kept)
            return Stripped(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, orientation(exif))
        kind = content[position : position + 4]
        following = position + 8 + int.from_bytes(content[position + 4 : position + 8], "little")
        following += following % 2
        piece = content[position:following]  # even beyond the length that the file states
        piece += b"\x00" * (len(piece) % 2)  # the file may lack the last fill byte
        if kind == b"VP8X" and len(piece) > 8:
            piece = piece[:8] + bytes([piece[8] & ~_WEBP_METADATA]) + piece[9:]
        if kind in _WEBP_KEPT or (kind == b"ANMF" and not frames):
            kept.append(piece)
        elif kind == b"EXIF":
            exif = piece[8:]
        frames += kind == b"ANMF"
        position = following
    raise ValueError(f"more than {MOST_PIECES:,} chunks")


def _gif(content: bytes) -> Stripped:
    flags = content[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)  # behind the palette
    head, control = content[:position], b""
    for _ in range(MOST_PIECES):
        kind = content[position]
        if kind == 0x2C:
            return Stripped(b"".join((head, control, content[position:])))
        if kind == 0x3B:
            break
        if kind != 0x21:  # Pillow skips other bytes
            position += 1
            continue
        start = position
        position += 2
        for _ in range(MOST_PIECES):
            length = content[position]
            position += 1 + length
            if not length:
                break
        else:
            raise ValueError(f"an extension of more than {MOST_PIECES:,} blocks")
        if content[start + 1] == 0xF9:
            control = content[start:position]
            # Disposal of the frame (bits 2 to 4): Pillow would allocate memory for it before its size is checked.
            control = control[:3] + bytes(byte & ~0x1C for byte in control[3:4]) + control[4:]
    raise ValueError(f"no image in its first {MOST_PIECES:,} blocks")


def _still(media_type: str, content: bytes) -> Stripped:
    image = still(media_type, content)
    return Stripped(image.content, image.orientation, size=image.size, crop=image.crop)


def _tiff(content: bytes) -> Stripped:
    """Rewrite the first page's directory in place, with the tags that its pixels depend on."""
    order = byte_order(content)
    (directory,) = struct.unpack_from(order + "I", content, 4)
    kept: dict[int, bytes] = {}
    seen = {254: 0}
    turned = UPRIGHT
    for entry in tiff_entries(content):
        tag, kind, values, start = entry
        if tag == ORIENTATION:
            turned = _orientation_in(content, entry)
        if tag in (254, 330) or (tag, kind, values) == (_DNG, 1, 4):
            (seen[tag],) = struct.unpack_from(order + "I", content, start + 8)
        if tag not in _TIFF_KEPT or tag in kept:
            continue
        if values > _TIFF_KEPT[tag]:
            raise ValueError(f"tag {tag} with {values:,} values; allowed: {_TIFF_KEPT[tag]:,}")
        kept[tag] = content[start : start + 12]
    if content[8:10] == b"CR" or _DNG in seen or (seen[254] & 1 and 330 in seen):
        raise Unread(
            "a raw photograph (CR2, DNG, NEF or another kind of TIFF)", "develop it, or send the camera's JPEG"
        )
    _check_pieces(order, content, kept)
    inverted = _number(order, kept, 262) == 0 and _number(order, kept, 258) > 8
    if inverted:
        kept[262] = struct.pack(order + "HHIHH", 262, 3, 1, 1, 0)
    written = struct.pack(order + "H", len(kept)) + b"".join(kept.values()) + bytes(4)  # no page follows
    return Stripped(content[:directory] + written + content[directory + len(written) :], turned, inverted=inverted)


def _number(order: str, entries: Mapping[int, bytes], tag: int) -> int:
    """Return the value of an entry that has one SHORT, as readers expect of these tags; else −1."""
    kind, values, number = struct.unpack_from(order + "HIH", entries.get(tag, bytes(12)), 2)
    return int(number) if (kind, values) == (3, 1) else -1


def _check_pieces(order: str, content: bytes, entries: Mapping[int, bytes]) -> None:
    """Reject strips and tiles that overlap: the same megabyte read for each of 2,000 strips took 6 s."""
    for offsets, lengths in ((273, 279), (324, 325)):
        if offsets not in entries or struct.unpack_from(order + "I", entries[offsets], 4) <= (1,):
            continue
        if lengths not in entries:
            raise ValueError("strips or tiles without their lengths")
        _, kind, count, start = struct.unpack(order + "HHII", entries[lengths])
        letter = {3: "H", 4: "I"}.get(kind)
        if letter is None:
            raise ValueError("lengths of strips or tiles that are no whole numbers")
        format_ = f"{order}{count}{letter}"
        inside = struct.calcsize(format_) <= 4
        total = sum(struct.unpack_from(format_, entries[lengths] if inside else content, 8 if inside else start))
        if total > len(content):
            raise ValueError(f"strips or tiles of {total:,} bytes in all, in a file of {len(content):,}")


def orientation(exif: bytes) -> int:
    """Return the orientation from EXIF; upright if it is missing or invalid."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    if exif.startswith(BEGINNINGS["image/tiff"]):
        with suppress(struct.error):  # cut off; the pixels may be fine
            return next(
                (_orientation_in(exif, entry) for entry in tiff_entries(exif) if entry.tag == ORIENTATION), UPRIGHT
            )
    return UPRIGHT


def _orientation_in(content: bytes, entry: TiffEntry) -> int:
    """Return the value of a directory's entry if it is one number from 1 to 8."""
    letter = {3: "H", 4: "I", 9: "i"}.get(entry.kind)
    if letter is None or entry.values != 1:
        return UPRIGHT
    (value,) = struct.unpack_from(byte_order(content) + letter, content, entry.start + 8)
    return int(value) if 1 <= value <= 8 else UPRIGHT


_STRIPPERS: Final[Mapping[str, Callable[[bytes], Stripped]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "image/gif": _gif,
    "image/bmp": Stripped,
    "image/tiff": _tiff,
    "image/avif": partial(_still, "image/avif"),
    "image/heic": partial(_still, "image/heic"),
}
