"""A file reduced to its first picture, before any decoder sees it: metadata and later frames are left out.

Pillow reads metadata whole and some of it slowly: 2.5 MB of EXIF in segments of 20 bytes kept it busy for 21 s, and 10 MB of
numbers in a tag became 390 MB of objects. Nothing of that is used here but which way up the picture is. Offsets and names are
those of the formats' specifications.
"""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from model.modalities.image.header import FRAMES

MOST_PIECES: Final = 65_536
"""Chunks of a PNG or WebP, or blocks of a GIF before its picture; also strips and tiles of a TIFF."""
MOST_SEGMENTS: Final = 4_096
"""Of a JPEG before its picture; an ICC profile and an XMP packet of megabytes take some hundred."""
MOST_SCANS: Final = 100
"""Of a JPEG; the decoder walks over all its coefficients for each. Encoders write about 10."""
UPRIGHT: Final = 1
ORIENTATION: Final = 0x0112

_FILL = re.compile(rb"\xff+")
# What a JPEG's picture needs besides its frame: JFIF and Adobe (how colours are meant), quantisation, Huffman tables, restarts.
_JPEG_KEPT: Final = frozenset({0xE0, 0xEE, 0xDB, 0xC4, 0xCC, 0xDD})
_MOST_QUANTISERS: Final = 2 + 4 * 129  # bytes of a segment with all four tables, in 16 bits
_MOST_FRAME: Final = 8 + 3 * 4  # bytes of a frame header with four components
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_WEBP_KEPT: Final = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM"})
_WEBP_METADATA: Final = 0x20 | 0x08 | 0x04  # flags of VP8X: ICC, EXIF, XMP
# Tags that a TIFF's pixels depend on, and how many values each may have (TIFF 6.0; 347: TIFF Technical Note 2).
_TIFF_KEPT: Final[Mapping[int, int]] = {
    **dict.fromkeys((256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 338, 339, 529, 530, 531, 532), 16),
    **dict.fromkeys((273, 279, 324, 325), MOST_PIECES),
    320: 3 * 256,
    347: 65_536,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bare:
    """The picture alone."""

    content: bytes
    orientation: int = UPRIGHT
    """As in tag 274 of EXIF, from 1 to 8."""


def bare(media_type: str, content: bytes) -> Bare:
    """The first picture of a file in one of the accepted formats. Raises ValueError where none is."""
    try:
        return _PRUNERS[media_type](content)
    except (struct.error, IndexError):
        raise ValueError("it ends too early") from None


def _jpeg(content: bytes) -> Bare:
    kept, exif, frame, position = [content[:2]], b"", b"", 2
    for _ in range(MOST_SEGMENTS):
        # Fill bytes may precede a marker, and decoders skip what is none.
        if (found := _FILL.search(content, position)) is None:
            raise ValueError("no picture in it")
        position = found.end() + 1
        marker = content[found.end()]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no data
            continue
        if marker == 0xD9:
            raise ValueError("it ends before its picture")
        if marker == 0xDA:
            start = position - 2
            # Sequential, and its first scan has all components: no other may follow. Most photographs, and counting takes 1 ms/MB.
            alone = frame[1:2] in (b"\xc0", b"\xc1") and content[position + 2] == frame[9]
            if not alone and content.count(b"\xff\xda", start) > MOST_SCANS:
                raise ValueError(f"more than {MOST_SCANS} scans")
            return Bare(b"".join((*kept, content[start:])), orientation(exif))
        (length,) = struct.unpack_from(">H", content, position)
        data = content[position : position + length]
        position += length
        if marker in FRAMES:
            if frame or length > _MOST_FRAME:
                raise ValueError("a second frame, or one of more than four components")
            frame = bytes((0xFF, marker)) + data
        elif marker == 0xE1 and not exif and data.startswith(b"Exif\x00\x00", 2):
            exif = data[2:]
        if marker in FRAMES or marker in _JPEG_KEPT:
            if marker == 0xDB and length > _MOST_QUANTISERS:
                raise ValueError("more than four tables of quantisation in one segment")
            kept.append(bytes((0xFF, marker)) + data)
    raise ValueError(f"more than {MOST_SEGMENTS} segments before its picture")


def _png(content: bytes) -> Bare:
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
        if kind == b"IEND" or end >= len(content):  # what ends too early is for the decoder to judge
            return Bare(b"".join((*kept, content[position:end] if kind == b"IEND" else b"")), orientation(exif))
        position = end
    raise ValueError(f"more than {MOST_PIECES:,} chunks")


def _webp(content: bytes) -> Bare:
    kept: list[bytes] = []
    exif, frames, position = b"", 0, 12
    end = min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    for _ in range(MOST_PIECES):
        if position + 8 > end:
            body = b"".join(kept)
            return Bare(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, orientation(exif))
        kind = content[position : position + 4]
        following = position + 8 + int.from_bytes(content[position + 4 : position + 8], "little")
        following += following % 2
        piece = content[position : min(following, end)]
        if kind == b"VP8X" and len(piece) > 8:
            piece = piece[:8] + bytes([piece[8] & ~_WEBP_METADATA]) + piece[9:]
        if kind in _WEBP_KEPT or (kind == b"ANMF" and not frames):
            kept.append(piece)
        elif kind == b"EXIF":
            exif = piece[8:]
        frames += kind == b"ANMF"
        position = following
    raise ValueError(f"more than {MOST_PIECES:,} chunks")


def _gif(content: bytes) -> Bare:
    position = 13 + _palette(content[10])
    head, control = content[:position], b""
    for _ in range(MOST_PIECES):
        kind = content[position]
        if kind == 0x2C:
            return Bare(b"".join((head, control, content[position:])))
        if kind == 0x3B:
            break
        if kind != 0x21:  # Pillow skips what is no block
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
            # What is to become of the frame afterwards (bits 2 to 4): Pillow would take memory for it before its size is checked.
            control = control[:3] + bytes(flags & ~0x1C for flags in control[3:4]) + control[4:]
    raise ValueError(f"no picture in its first {MOST_PIECES:,} blocks")


def _palette(flags: int) -> int:
    """Bytes of a GIF's palette, as its screen or a frame announces it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(content: bytes) -> Bare:
    return Bare(content)


def _tiff(content: bytes) -> Bare:
    """The first page's directory is written anew in its place, with the tags that its pixels depend on."""
    order = "<" if content.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, directory)
    kept: dict[int, bytes] = {}
    turned = UPRIGHT
    for start in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, _, values = struct.unpack_from(order + "HHI", content, start)
        if tag == ORIENTATION:
            turned = _turn(order, content, start)
        if tag not in _TIFF_KEPT or tag in kept:
            continue
        if values > _TIFF_KEPT[tag]:
            raise ValueError(f"tag {tag} with {values:,} values; allowed: {_TIFF_KEPT[tag]:,}")
        kept[tag] = content[start : start + 12]
    _check_pieces(order, content, kept)
    written = struct.pack(order + "H", len(kept)) + b"".join(kept.values()) + bytes(4)  # no page follows
    return Bare(content[:directory] + written + content[directory + len(written) :], turned)


def _check_pieces(order: str, content: bytes, entries: Mapping[int, bytes]) -> None:
    """Refuse strips and tiles that lie on each other: the same megabyte read for each of 2,000 strips took 6 s."""
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
        told = sum(struct.unpack_from(format_, entries[lengths] if inside else content, 8 if inside else start))
        if told > len(content):
            raise ValueError(f"strips or tiles of {told:,} bytes in all, in a file of {len(content):,}")


def orientation(exif: bytes) -> int:
    """Which way up, from EXIF; upright where it doesn't say, or makes no sense."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for start in range(directory + 2, directory + 2 + 12 * entries, 12):
            if struct.unpack_from(order + "H", exif, start) == (ORIENTATION,):
                return _turn(order, exif, start)
    except struct.error:
        return UPRIGHT  # cut off; the pixels may be fine
    return UPRIGHT


def _turn(order: str, content: bytes, start: int) -> int:
    """The value of an entry of a directory, when it is one number from 1 to 8."""
    _, kind, values = struct.unpack_from(order + "HHI", content, start)
    letter = {3: "H", 4: "I", 9: "i"}.get(kind)
    if letter is None or values != 1:
        return UPRIGHT
    (value,) = struct.unpack_from(order + letter, content, start + 8)
    return int(value) if 1 <= value <= 8 else UPRIGHT


_PRUNERS: Final[Mapping[str, Callable[[bytes], Bare]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "image/gif": _gif,
    "image/bmp": _bmp,
    "image/tiff": _tiff,
}
