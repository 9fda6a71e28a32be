"""Reduce AVIF and HEIC files (ISO/IEC 23008-12) to their primary image and its transparency, before any decoder reads them.

Such a file is a database: items with properties, references between items, and their bytes anywhere in the file. Decoders follow
all of it, and their own limits are beyond ours. `still` collects the primary image, its tiles and its alpha image within limits,
compares the sizes in the compressed data with those in the header, and writes a new file that has nothing else. Box names are
those of ISO/IEC 14496-12; AV1 is the AV1 bitstream specification, HEVC is ITU-T H.265.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from polymodal.model.modalities.image.containers import MOST_BOXES, boxes
from polymodal.model.modalities.image.formats import Unread

Size = tuple[int, int]
Box4 = tuple[int, int, int, int]
Box = tuple[int, int]
"""Start and end of a box's content."""

MOST_META_BYTES: Final = 2**20
MOST_EXTENTS: Final = 65_536
MOST_TILE_SIDE: Final = 1_024
"""Longest side of a tile that is larger than its image."""
MOST_UNITS: Final = 4_096
"""Most units of compressed data (NAL units, OBUs) of an image."""
MOST_LAYERS: Final = 4
"""Most frames of an AV1 image, which are its spatial layers."""
CODECS: Final[Mapping[str, bytes]] = {"image/avif": b"av01", "image/heic": b"hvc1"}
ALPHA: Final = frozenset(
    {b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:avc:2015:auxid:1"}
)
_ESSENTIAL: Final = frozenset({b"av1C", b"hvcC", b"a1op", b"lsel"})
_KEPT: Final = _ESSENTIAL | {b"ispe", b"pixi", b"auxC", b"a1lx"}
_TURNS: Final = frozenset({b"clap", b"irot", b"imir"})
_CODING_BLOCK: Final = 64  # px by which a coded side of HEVC may exceed the image's
_BRANDS: Final[Mapping[str, bytes]] = {"image/avif": b"avifmif1miaf", "image/heic": b"heicmif1"}
_PIXELS: Final = np.arange(6).reshape(2, 3)
# The orientation of tag 274 that turns _PIXELS into these bytes.
_ORIENTATIONS: Final = {
    pixels.tobytes(): number
    for number, pixels in enumerate(
        (
            _PIXELS,
            np.fliplr(_PIXELS),
            np.rot90(_PIXELS, 2),
            np.flipud(_PIXELS),
            _PIXELS.T,
            np.rot90(_PIXELS, 3),
            np.rot90(_PIXELS, 2).T,
            np.rot90(_PIXELS),
        ),
        1,
    )
}


@dataclass(slots=True)
class _Item:
    kind: bytes = b""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Name and whole box, in the order in which they apply."""
    extents: list[Box] = field(default_factory=list)
    inside: bool = False  # of the box idat

    def get(self, name: bytes, head: int = 12) -> bytes:
        """Return the content of the first property of this name; by default without version and flags."""
        return next((box[head:] for kind, box in self.properties if kind == name), b"")

    def size(self) -> Size:
        width, height = struct.unpack(">II", self.get(b"ispe")[:8])
        return width, height


@dataclass(frozen=True, slots=True)
class Still:
    """A file with one image, and how to crop and turn its pixels."""

    content: bytes
    size: Size
    crop: Box4 | None
    """Box to crop first: left, top, right, bottom."""
    orientation: int
    """Orientation to apply then, as in tag 274 of EXIF. EXIF itself doesn't count in these formats."""


def still(media_type: str, content: bytes) -> Still:
    """Reduce a file to its primary image. Raises ValueError where that is not possible, Unread for other codecs."""
    items, references, primary, data = _read(content)
    size = items[primary].size()
    selection = _Selection(content, items, references, data, media_type)
    selection.add(primary)
    for item, kind, targets in references:
        if kind == b"auxl" and primary in targets and item in items and not selection.alpha:
            if items[item].get(b"auxC").split(b"\x00", 1)[0] not in ALPHA:
                continue
            if items[item].size() != size:
                raise ValueError("an alpha image of another size")
            selection.alpha = selection.add(item)
            selection.premultiplied = (primary, b"prem", [item]) in references
    return Still(selection.to_bytes(_BRANDS[media_type]), size, *_transforms(items[primary]))


class _Reader:
    """Reads consecutive numbers."""

    def __init__(self, content: bytes, start: int, end: int) -> None:
        self._content, self._at, self._end = content, start, end

    def number(self, length: int) -> int:
        if self._at + length > self._end:
            raise ValueError("a box that is too short for what it states")
        self._at += length
        return int.from_bytes(self._content[self._at - length : self._at], "big")

    def version(self) -> tuple[int, int]:
        """Read version and flags."""
        return self.number(1), self.number(3)


_References = list[tuple[int, bytes, list[int]]]


def _read(content: bytes) -> tuple[dict[int, _Item], _References, int, Box]:
    """Read items, references (from, kind, to), the number of the primary item, and the position of the box idat."""
    top: dict[bytes, Box] = {}
    for name, start, end in boxes(content, 0, len(content), 256):
        top.setdefault(name, (start, end))
    if b"meta" not in top:
        if b"moov" in top:
            raise Unread("a sequence without a still image", "save one frame as PNG or JPEG")
        raise ValueError("no image")
    start, end = top[b"meta"]
    if end - start > MOST_META_BYTES:
        raise ValueError(f"a description of {end - start:,} bytes; allowed: {MOST_META_BYTES:,}")
    meta: dict[bytes, Box] = {}
    for name, begin, close in boxes(content, start + 4, end):
        meta.setdefault(name, (begin, close))
    if missing := {b"pitm", b"iinf", b"iprp", b"iloc"} - meta.keys():
        raise ValueError(f"no box {missing}")
    items = _items(content, meta[b"iinf"])
    _properties(content, meta[b"iprp"], items)
    _locations(content, meta[b"iloc"], items)
    reader = _Reader(content, *meta[b"pitm"])
    version, _ = reader.version()
    primary = reader.number(4 if version else 2)
    if primary not in items:
        raise ValueError("no primary item")
    references = _references(content, meta[b"iref"]) if b"iref" in meta else []
    return items, references, primary, meta.get(b"idat", (0, 0))


def _items(content: bytes, box: Box) -> dict[int, _Item]:
    version, _ = _Reader(content, *box).version()
    items = {}
    for name, start, end in boxes(content, box[0] + (8 if version else 6), box[1]):
        if name == b"infe":
            reader = _Reader(content, start, end)
            version, _ = reader.version()
            if version in (2, 3):
                number = reader.number(4 if version == 3 else 2)
                reader.number(2)
                items[number] = _Item(reader.number(4).to_bytes(4, "big"))
    return items


def _properties(content: bytes, box: Box, items: Mapping[int, _Item]) -> None:
    children = {name: (start, end) for name, start, end in boxes(content, *box, 16)}
    if missing := {b"ipco", b"ipma"} - children.keys():
        raise ValueError(f"no box {missing}")
    listed = [
        (name, struct.pack(">I4s", 8 + end - start, name) + content[start:end])
        for name, start, end in boxes(content, *children[b"ipco"])
    ]
    reader = _Reader(content, *children[b"ipma"])
    version, flags = reader.version()
    for _ in range(min(MOST_BOXES, reader.number(4))):
        item = items.get(reader.number(4 if version else 2), _Item())
        for _ in range(reader.number(1)):
            index = reader.number(2 if flags & 1 else 1)
            essential, index = divmod(index, 0x8000 if flags & 1 else 0x80)
            if not 0 < index <= len(listed):
                continue
            name = listed[index - 1][0]
            if essential and name not in _KEPT | _TURNS | {b"colr"}:
                item.kind = b"with " + name
            item.properties.append(listed[index - 1])


def _locations(content: bytes, box: Box, items: Mapping[int, _Item]) -> None:
    reader = _Reader(content, *box)
    version, _ = reader.version()
    offset_length, length_length = divmod(reader.number(1), 16)
    base_length, index_length = divmod(reader.number(1), 16)
    left = MOST_EXTENTS
    for _ in range(min(MOST_BOXES, reader.number(4 if version == 2 else 2))):
        item = items.get(reader.number(4 if version == 2 else 2), _Item())
        method = reader.number(2) & 15 if version else 0
        source, base, count = reader.number(2), reader.number(base_length), reader.number(2)
        if method > 1 or source:
            item.kind = b"elsewhere"
        item.inside = method == 1
        left -= count
        if left < 0:
            raise ValueError(f"more than {MOST_EXTENTS:,} extents")
        for _ in range(count):
            if version and index_length:
                reader.number(index_length)
            start = base + reader.number(offset_length)
            length = reader.number(length_length)
            item.extents.append((start, start + length if length else len(content)))


def _references(content: bytes, box: Box) -> _References:
    version, _ = _Reader(content, *box).version()
    references = []
    for name, start, end in boxes(content, box[0] + 4, box[1]):
        reader = _Reader(content, start, end)
        item = reader.number(4 if version else 2)
        references.append((item, name, [reader.number(4 if version else 2) for _ in range(reader.number(2))]))
    return references


class _Selection:
    """Writes a new file from selected items, in their order."""

    def __init__(
        self, content: bytes, items: dict[int, _Item], references: _References, data: Box, media_type: str
    ) -> None:
        self._content, self._items, self._references, self._data = content, items, references, data
        self._media_type, self._codec = media_type, CODECS[media_type]
        self._kept: list[tuple[_Item, bytes, list[int]]] = []  # item, its bytes, the new numbers of its tiles
        self._left = len(content)  # bytes that further items may have, because items must not share bytes
        self.alpha = 0
        self.premultiplied = False

    def add(self, number: int) -> int:
        """Add an image with its tiles; return its new number, counted from 1."""
        item = self._items[number]
        width, height = item.size()
        payload = self._payload(item)
        if item.kind != b"grid":
            self._add_coded(item, payload)
            return len(self._kept)
        large, rows, columns = payload[1] & 1, payload[2] + 1, payload[3] + 1
        if struct.unpack_from(">II" if large else ">HH", payload, 4) != (width, height):
            raise ValueError("a grid of another size than its header")
        tiles = next((to for source, kind, to in self._references if source == number and kind == b"dimg"), [])
        if len(tiles) != rows * columns or len(set(tiles)) != len(tiles):
            raise ValueError(f"{len(tiles)} tiles for {rows} × {columns}")
        self._kept.append((item, payload, []))
        place = len(self._kept)
        for tile in (self._items[number] for number in tiles):
            across, down = tile.size()
            if (columns - 1) * across >= width or (rows - 1) * down >= height:
                raise ValueError("tiles outside of their grid")
            if across > max(width, MOST_TILE_SIDE) or down > max(height, MOST_TILE_SIDE):
                raise ValueError(f"a tile of {across:,} × {down:,} px in an image of {width:,} × {height:,} px")
            self._add_coded(tile, self._payload(tile))
            self._kept[place - 1][2].append(len(self._kept))
        return place

    def _add_coded(self, item: _Item, payload: bytes) -> None:
        if item.kind != self._codec:
            raise Unread(f"{self._media_type} with an image of kind {item.kind.decode('ascii', 'replace')!r}")
        if self._codec == b"av01":
            _check_av1(payload, item.size())
        else:
            payload = _hevc_image(payload, item.get(b"hvcC", head=8), item.size())
        self._kept.append((item, payload, []))

    def _payload(self, item: _Item) -> bytes:
        begin, close = self._data if item.inside else (0, len(self._content))
        pieces = []
        for start, end in item.extents:
            last = min(begin + end, close) if item.inside else end
            if last > close:
                raise ValueError("it ends within its pixels")
            pieces.append(self._content[begin + start : last])
            self._left -= len(pieces[-1])
            if self._left < 0:
                raise ValueError("items that share their bytes")
        return b"".join(pieces)

    def to_bytes(self, brands: bytes) -> bytes:
        """Return the new file."""
        places: dict[bytes, int] = {}  # of property boxes, counted from 1
        locations: list[tuple[int, int, int]] = []  # number, start and length of each item
        names, uses, references, data = b"", b"", b"", b""
        for number, (item, payload, tiles) in enumerate(self._kept, 1):
            names += _box(b"infe", struct.pack(">BxxxHxx4sx", 2, number, item.kind))
            used = []
            for name, whole in item.properties:
                box = _box(name, whole[8:12]) if name == b"av1C" else whole  # the rest is a second sequence header
                if name in _KEPT or (name == b"colr" and box[8:12] == b"nclx"):
                    used.append(places.setdefault(box, len(places) + 1) | 0x8000 * (name in _ESSENTIAL))
            uses += struct.pack(f">HB{len(used)}H", number, len(used), *used)
            if tiles:
                references += _reference(b"dimg", number, tiles)
            locations.append((number, len(data), len(payload)))
            data += payload
        if self.alpha:
            references += _reference(b"auxl", self.alpha, [1])
            references += _reference(b"prem", 1, [self.alpha]) if self.premultiplied else b""

        def meta(offset: int) -> bytes:
            extents = (struct.pack(">HHHII", number, 0, 1, offset + start, size) for number, start, size in locations)
            return _box(
                b"meta",
                bytes(4),
                _box(b"hdlr", bytes(8) + b"pict" + bytes(13)),
                _box(b"pitm", struct.pack(">IH", 0, 1)),
                _box(b"iinf", struct.pack(">IH", 0, len(self._kept)), names),
                _box(b"iref", bytes(4), references) if references else b"",
                _box(b"iprp", _box(b"ipco", *places), _box(b"ipma", struct.pack(">II", 1, len(self._kept)), uses)),
                _box(b"iloc", struct.pack(">IBBH", 0, 0x44, 0, len(self._kept)), *extents),
            )

        head = _box(b"ftyp", brands[:4] + bytes(4) + brands)
        return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", data)


def _box(name: bytes, *content: bytes) -> bytes:
    joined = b"".join(content)
    return struct.pack(">I4s", 8 + len(joined), name) + joined


def _reference(kind: bytes, source: int, targets: Sequence[int]) -> bytes:
    return _box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))


def _transforms(item: _Item) -> tuple[Box4 | None, int]:
    """Return the box to crop, and the orientation of tag 274 that rotating and mirroring amount to."""
    crop, turned = None, _PIXELS
    for name, box in item.properties:
        if name == b"clap":
            if crop or turned is not _PIXELS:
                raise ValueError("a clean aperture that does not come first")
            crop = _aperture(box, item.size())
        elif name == b"irot":
            turned = np.rot90(turned, box[8] & 3)
        elif name == b"imir":
            turned = np.fliplr(turned) if box[8] & 1 else np.flipud(turned)
    return crop, _ORIENTATIONS[turned.tobytes()]


def _aperture(box: bytes, size: Size) -> Box4:
    """Return the box (left, top, right, bottom) of a clean aperture, whose offset counts from the centre."""
    numbers = struct.unpack_from(">IIIIiIiI", box, 8)
    if not all(numbers[1::2]):
        raise ValueError("a clean aperture of nothing")
    width, height, across, down = (over / under for over, under in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = round((size[0] - width) / 2 + across), round((size[1] - height) / 2 + down)
    right, bottom = left + round(width), top + round(height)
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise ValueError("a clean aperture outside of its image")
    return left, top, right, bottom


class _Bits:
    """Reads bits of a header, the highest first."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "big"), 8 * len(content)

    def read(self, bits: int) -> int:
        """Read an unsigned number of this many bits."""
        self._left -= bits
        if self._left < 0:
            raise ValueError("a header of compressed data that is too short")
        return self._value >> self._left & (1 << bits) - 1

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb number, ue(v) of HEVC and uvlc() of AV1."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a number of more than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)


def _check_av1(payload: bytes, size: Size) -> None:
    """Reject an image that is larger than its header states, or has more frames than an image needs."""
    position, frames, sizes = 0, 0, []
    for _ in range(MOST_UNITS):
        if position >= len(payload):
            break
        head = payload[position]
        kind, position = head >> 3 & 15, position + 1 + (head >> 2 & 1)
        length = len(payload) - position
        if head & 2:
            length, position = _leb128(payload, position)
        if kind == 1:
            sizes.append(_av1_size(payload[position : position + length]))
        frames += kind in (3, 6)
        position += length
    else:
        raise ValueError(f"more than {MOST_UNITS:,} units of compressed data")
    if position > len(payload) or not sizes or not 0 < frames <= MOST_LAYERS:
        raise ValueError(f"{frames} frames with {len(sizes)} headers; allowed: {MOST_LAYERS} frames at most")
    if set(sizes) != {size}:
        raise ValueError("compressed data of another size than its header states")


def _leb128(payload: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = payload[position + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, position + index + 1
    raise ValueError("a length of more than 8 bytes")


def _av1_size(header: bytes) -> Size:
    """Return the largest frame that a sequence header allows (AV1, 5.5.1)."""
    bits = _Bits(header[:512])
    bits.read(4)
    if bits.read(1):
        bits.read(5)
    else:
        model = delays = 0
        if bits.read(1):
            bits.read(64)
            if bits.read(1):
                bits.golomb()
            if model := bits.read(1):
                model = 1 + bits.read(5)
                bits.read(42)
        delays = bits.read(1)
        for _ in range(1 + bits.read(5)):
            bits.read(12)
            if bits.read(5) > 7:
                bits.read(1)
            if model and bits.read(1):
                bits.read(2 * model + 1)
            if delays and bits.read(1):
                bits.read(4)
    across, down = 1 + bits.read(4), 1 + bits.read(4)
    return 1 + bits.read(across), 1 + bits.read(down)


def _hevc_image(payload: bytes, configuration: bytes, size: Size) -> bytes:
    """Return the slices of one intra-coded image, with rising addresses, and nothing else."""
    address_bits, dependent = _hevc_parameters(configuration, size)
    length = (configuration[21] & 3) + 1
    kept, position, address = [], 0, -1
    for _ in range(MOST_UNITS):
        if position >= len(payload):
            break
        start = position + length
        position = start + int.from_bytes(payload[position:start], "big")
        unit = payload[start:position]
        kind = unit[0] >> 1 & 63
        if kind >= 32:  # parameter sets, which the configuration has, and metadata
            continue
        if not 16 <= kind <= 21:
            raise ValueError("an image that depends on others")
        bits = _Bits(unit[2:64].replace(b"\0\0\3", b"\0\0"))
        first = bits.read(1)
        bits.read(1)
        may_depend = dependent[bits.golomb()]
        if not first and may_depend:
            bits.read(1)
        previous, address = address, 0 if first else bits.read(address_bits)
        if address <= previous:
            raise ValueError("slices that overlap")
        kept.append(struct.pack(f">{length}s", len(unit).to_bytes(length, "big")) + unit)
    else:
        raise ValueError(f"more than {MOST_UNITS:,} units of compressed data")
    if position != len(payload) or not kept:
        raise ValueError("compressed data that ends too early")
    return b"".join(kept)


def _hevc_parameters(configuration: bytes, size: Size) -> tuple[int, dict[int, int]]:
    """Return the bits of a slice's address, and, by number of parameter set (PPS), whether slices may depend on others."""
    address_bits, dependent, position = 0, {}, 23
    for _ in range(configuration[22]):
        (units,) = struct.unpack_from(">H", configuration, position + 1)
        position += 3
        for _ in range(units):
            (length,) = struct.unpack_from(">H", configuration, position)
            unit = configuration[position + 2 : position + 2 + length]
            position += 2 + length
            bits = _Bits(unit[2:256].replace(b"\0\0\3", b"\0\0"))
            if unit[0] >> 1 & 63 == 33:
                if address_bits:
                    raise ValueError("more than one sequence parameter set")
                address_bits = _hevc_address_bits(bits, size)
            elif unit[0] >> 1 & 63 == 34:
                number = bits.golomb()
                bits.golomb()
                dependent[number] = bits.read(1)
    if not address_bits:
        raise ValueError("no sequence parameter set")
    return address_bits, dependent


def _hevc_address_bits(bits: _Bits, size: Size) -> int:
    """Check the size in a sequence parameter set (HEVC, 7.3.2.2), and return the bits of a slice's address."""
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    bits.read(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:  # 4:4:4
        bits.read(1)
    across, down = bits.golomb(), bits.golomb()
    if across > size[0] + _CODING_BLOCK or down > size[1] + _CODING_BLOCK:
        raise ValueError("compressed data of a larger size than its header states")
    for _ in range(7 if bits.read(1) else 3):
        bits.golomb()
    for _ in range(3 * (layers + 1) if bits.read(1) else 3):
        bits.golomb()
    side = 1 << min(6, bits.golomb() + 3 + bits.golomb())
    blocks = -(-across // side) * -(-down // side)
    return max(1, (blocks - 1).bit_length())
