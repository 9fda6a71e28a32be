"""Image files that no camera makes, written byte by byte where Pillow can't write them; the same bytes in every run.

Many have one colour: they compress best, so they are the largest images within a limit on bytes.
"""

import struct
import zlib
from collections.abc import Sequence
from itertools import repeat

from PIL import Image

from tests.media import saved


def solid(mode: str = "RGB", size: tuple[int, int] = (16, 12), colour: object = 0) -> Image.Image:
    """Return an image of one colour, by default black."""
    return Image.new(mode, size, colour)


# --- PNG (ISO/IEC 15948) ---

PNG_BEGINNING = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
DEPTHS = {"1": (1, 0), "L": (8, 0), "I;16": (16, 0), "RGB": (8, 2), "RGB;16": (16, 2), "P": (8, 3), "LA;16": (16, 4)}
DEPTHS |= {"RGBA": (8, 6), "RGBA;16": (16, 6), "LA": (8, 4), "L;2": (2, 0), "L;4": (4, 0), "P;1": (1, 3)}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind: bytes, data: bytes = b"", *, length: int | None = None, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG; `length` and `crc` replace the right ones."""
    length = len(data) if length is None else length
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", length) + kind + data + struct.pack(">I", checksum)


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Return the header chunk."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def zeros(length: int) -> bytes:
    """Return this number of zero bytes, deflated in pieces."""
    deflate = zlib.compressobj(9)
    block = bytes(1 << 20)
    whole, rest = divmod(length, len(block))
    return b"".join([*map(deflate.compress, repeat(block, whole)), deflate.compress(block[:rest]), deflate.flush()])


def png(
    size: tuple[int, int] = (16, 12),
    mode: str = "RGB",
    *,
    interlace: int = 0,
    before: bytes = b"",
    after: bytes = b"",
    rows: bytes | None = None,
    end: bytes = PNG_END,
) -> bytes:
    """Return a PNG of black pixels with these chunks before or after them; `rows` replaces the deflated pixels."""
    depth, colour = DEPTHS[mode]
    width, height = size
    if rows is None:
        lines = height if not interlace else 2 * height + 8  # enough for seven passes; decoders ignore the rest
        rows = zeros((1 + (width * depth * CHANNELS[colour] + 7) // 8) * lines)
    palette = chunk(b"PLTE", bytes(range(48)) * 16) if colour == 3 else b""
    head = PNG_BEGINNING + ihdr(width, height, depth, colour, interlace)
    return head + palette + before + chunk(b"IDAT", rows) + after + end


def apng(frames: int, size: tuple[int, int] = (16, 12)) -> bytes:
    """Return an animation of black frames."""
    width, height = size
    rows = zeros((1 + 3 * width) * height)

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0))

    later = b"".join(
        control(2 * number - 1) + chunk(b"fdAT", struct.pack(">I", 2 * number) + rows) for number in range(1, frames)
    )
    return png(size, before=chunk(b"acTL", struct.pack(">II", frames, 0)) + control(0), rows=rows, after=later)


# --- GIF (89a) ---


def gif_codes(pixels: int) -> bytes:
    """Return LZW data of this number of zeros, each as its own code: two bits, and a clear code after every other zero."""
    bits, filled, out = 0, 0, bytearray()
    for code in [4, *(code for number in range(pixels) for code in ((0, 4) if number % 2 else (0,))), 5]:
        bits |= code << filled
        filled += 3
        while filled >= 8:
            out.append(bits & 255)
            bits >>= 8
            filled -= 8
    out.append(bits & 255)
    return b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks(bytes(out), 255)) + b"\x00"


def blocks(content: bytes, length: int) -> list[bytes]:
    """Cut the content into pieces of this length."""
    return [content[start : start + length] for start in range(0, len(content), length)]


def gif(
    screen: tuple[int, int] = (16, 12), frames: Sequence[tuple[int, int, int, int]] | None = None, disposal: int = 0
) -> bytes:
    """Return a GIF with frames (left, top, width, height), each with the data of one black pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    control = b"\x21\xf9\x04" + bytes([disposal << 2 | 1]) + bytes(3) + b"\x00"
    frames = [(0, 0, *screen)] if frames is None else frames
    body = b"".join(control + b"\x2c" + struct.pack("<HHHHB", *frame, 0) + gif_codes(1) for frame in frames)
    return head + body + b"\x3b"


# --- TIFF 6.0 ---

BYTE, ASCII, SHORT, LONG, RATIONAL, SIGNED_LONG, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 9, 11, 12
UNITS = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SIGNED_LONG: 4, FLOAT: 4, DOUBLE: 8}
LETTERS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", SIGNED_LONG: "i", FLOAT: "f", DOUBLE: "d"}
DEFLATE, LZW, RAW = 8, 5, 1


Tags = dict[int, tuple[int, Sequence[float] | bytes]]
"""Type and values by the tag's number."""


def tiff_file(samples: bytes, tags: Tags, order: str = "<", following: int | None = 0) -> bytes:
    """Return a TIFF of these samples and tags; `following` is the offset of the next page, None for this page itself."""
    directory = 8 + len(samples)
    extra_at, extra, entries = directory + 2 + 12 * len(tags) + 4, b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{LETTERS[kind]}", *values)
        field = packed.ljust(4, b"\x00")
        if len(packed) > 4:
            field = struct.pack(order + "I", extra_at + len(extra))
            extra += packed
        entries += struct.pack(order + "HHI", tag, kind, len(packed) // UNITS[kind]) + field
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", directory)
    end = struct.pack(order + "I", directory if following is None else following)
    return head + samples + struct.pack(order + "H", len(tags)) + entries + end + extra


def tiff(
    size: tuple[int, int] = (16, 12),
    data: bytes | None = None,
    *,
    tags: Tags | None = None,
    without: Sequence[int] = (),
    following: int | None = 0,
) -> bytes:
    """Return a little-endian TIFF of 8-bit grey, one strip of black pixels; `tags` replace or add to its tags."""
    width, height = size
    data = bytes(width * height) if data is None else data
    entries: Tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8]),
        259: (SHORT, [RAW]),
        262: (SHORT, [1]),
        273: (LONG, [8]),
        277: (SHORT, [1]),
        278: (LONG, [height]),
        279: (LONG, [len(data)]),
        **(tags or {}),
    }
    return tiff_file(data, {tag: entry for tag, entry in entries.items() if tag not in without}, following=following)


def tiff_of(
    samples: bytes,
    size: tuple[int, int],
    *,
    order: str = "<",
    photometric: int = 1,
    bits: Sequence[int] = (8,),
    sample_format: int = 1,
    extra: Sequence[int] = (),
    fill_order: int = 1,
    tags: Tags | None = None,
) -> bytes:
    """Return an uncompressed TIFF of these samples in one strip, in either byte order."""
    entries: Tags = {
        256: (LONG, [size[0]]),
        257: (LONG, [size[1]]),
        258: (SHORT, bits),
        259: (SHORT, [RAW]),
        262: (SHORT, [photometric]),
        266: (SHORT, [fill_order]),
        273: (LONG, [8]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [size[1]]),
        279: (LONG, [len(samples)]),
        339: (SHORT, [sample_format] * len(bits)),
        **({338: (SHORT, extra)} if extra else {}),
        **(tags or {}),
    }
    return tiff_file(samples, entries, order)


def tiff_deflated(size: tuple[int, int], mode: str = "L", **tags: int) -> bytes:
    """Return a deflated black TIFF in one strip: L, RGB, RGBA, I;16, F, CMYK, or RGB in planes."""
    bits, photometric, samples, sample_format, planar = {
        "L": (8, 1, 1, 1, 1),
        "RGB": (8, 2, 3, 1, 1),
        "RGBA": (8, 2, 4, 1, 1),
        "CMYK": (8, 5, 4, 1, 1),
        "I;16": (16, 1, 1, 1, 1),
        "F": (32, 1, 1, 3, 1),
        "planes": (8, 2, 3, 1, 2),
    }[mode]
    width, height = size
    strips = samples if planar == 2 else 1
    data = zeros(width * height * samples * bits // 8 // strips)
    return tiff(
        size,
        data * strips,
        tags={
            258: (SHORT, [bits] * samples),
            259: (SHORT, [DEFLATE]),
            262: (SHORT, [photometric]),
            273: (LONG, [8 + number * len(data) for number in range(strips)]),
            277: (SHORT, [samples]),
            279: (LONG, [len(data)] * strips),
            284: (SHORT, [planar]),
            **({338: (SHORT, [2])} if mode == "RGBA" else {}),
            339: (SHORT, [sample_format] * samples),
            **{int(tag.removeprefix("tag")): (LONG, [value]) for tag, value in tags.items()},
        },
    )


def tiff_tiles(size: tuple[int, int], tile: tuple[int, int]) -> bytes:
    """Return a deflated grey TIFF in one tile of any stated size, with at most 10 million bytes."""
    data = zeros(min(tile[0] * tile[1], 10_000_000))
    layout = {259: (SHORT, [DEFLATE]), 322: (LONG, [tile[0]]), 323: (LONG, [tile[1]]), 324: (LONG, [8])}
    return tiff(size, data, tags={**layout, 325: (LONG, [len(data)])}, without=(273, 278, 279))


def tiff_pages(pages: int) -> bytes:
    """Return a TIFF of many pages with the same pixels."""
    single = tiff()
    (first,) = struct.unpack_from("<I", single, 4)
    page = single[first:-4]
    starts = range(first, first + pages * (len(page) + 4), len(page) + 4)
    return single[:first] + b"".join(page + struct.pack("<I", start) for start in (*starts[1:], 0))


def tiff_strips(strips: int, data: bytes, *, lengths: tuple[int, Sequence[int] | bytes] | None = None) -> bytes:
    """Return a TIFF of strips of one row of 16 px, all with these bytes in PackBits."""
    count = (LONG, [len(data)] * strips) if lengths is None else lengths
    places = {259: (SHORT, [32_773]), 273: (LONG, [8] * strips), 278: (LONG, [1]), 279: count}
    return tiff((16, strips), data, tags=places)


# --- JPEG (ITU T.81) ---


def segment(marker: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a marker with its data; `length` replaces the right one."""
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(data) if length is None else length) + data


def jpeg_with(segments: bytes, size: tuple[int, int] = (16, 12)) -> bytes:
    """Return a JPEG with these segments after its start marker."""
    content = saved(solid(size=size), "JPEG")
    return content[:2] + segments + content[2:]


def jpeg_of_scans(scans: int, size: tuple[int, int]) -> bytes:
    """Return a progressive grey JPEG with scans of a few bytes that change nothing.

    Each refining scan makes the decoder walk over all coefficients.
    """
    width, height = size
    quantiser = segment(0xDB, bytes([0]) + b"\x01" * 64)
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    # Two codes of two bits: 0 (nothing, for DC) and 0xE0 (a run of 2¹⁴ blocks and more without coefficients, for AC).
    huffman = segment(0xC4, b"\x00" + bytes([0, 1] + [0] * 14) + b"\x00")
    huffman += segment(0xC4, b"\x10" + bytes([0, 1] + [0] * 14) + b"\xe0")
    count = (width + 7) // 8 * ((height + 7) // 8)
    runs = -(-count // (2**15 - 1))
    dc = bytes(count // 4) + (bits_of("00" * (count % 4)) if count % 4 else b"")
    bits = "".join("00" + f"{2**14 - 1:014b}" for _ in range(runs))
    first = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + dc
    scan = segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + bits_of(bits)
    return b"\xff\xd8" + quantiser + frame + huffman + first + scan * scans + b"\xff\xd9"


def bits_of(bits: str) -> bytes:
    """Return entropy-coded bytes: padded with ones, and with a zero after each 0xFF."""
    padded = bits + "1" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\x00")


# --- WebP (RFC 9649) ---


def riff(kind: bytes, content: bytes, *, length: int | None = None) -> bytes:
    """Return a chunk of a RIFF file, padded to an even length; `length` replaces the right one."""
    length = len(content) if length is None else length
    return kind + struct.pack("<I", length) + content + b"\x00" * (len(content) % 2)


def webp(*chunks: bytes, length: int | None = None) -> bytes:
    """Return a WebP of these chunks."""
    return riff(b"RIFF", b"WEBP" + b"".join(chunks), length=length)


def vp8x(size: tuple[int, int], flags: int = 0) -> bytes:
    """Return the header of an extended WebP; flags: 2 animated, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    return riff(b"VP8X", struct.pack("<I", flags) + b"".join((side - 1).to_bytes(3, "little") for side in size))


def bitstream(size: tuple[int, int] = (2, 2), **options: object) -> bytes:
    """Return the chunk with the pixels of a black image, as libwebp writes it."""
    return saved(solid(size=size), "WEBP", **options)[12:]


def webp_animation(frames: int, canvas: tuple[int, int] = (16, 12)) -> bytes:
    """Return an animation with frames of 2 × 2 px."""
    frame = bytes(6) + (1).to_bytes(3, "little") * 2 + bytes(4) + bitstream(lossless=True)
    return webp(vp8x(canvas, 2), riff(b"ANIM", bytes(6)), *([riff(b"ANMF", frame)] * frames))


# --- BMP ---


def bmp(
    size: tuple[int, int] = (16, 12),
    data: bytes | None = None,
    *,
    bits: int = 8,
    compression: int = 0,
    colours: int = 256,
) -> bytes:
    """Return a BMP with a header of 40 bytes and a palette; compression 1 and 2 are run lengths."""
    width, height = size
    palette = bytes(range(256)) * (colours * 4 // 256 + 1) if bits <= 8 else b""
    palette = palette[: colours * 4]
    start = 54 + len(palette)
    data = bytes((width * bits + 31) // 32 * 4 * abs(height)) if data is None else data
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 2835, 2835, colours, 0)
    return head + info + palette + data


# --- ISO base media files (ISO/IEC 14496-12) ---


def box(name: bytes, *content: bytes, length: int | None = None) -> bytes:
    """Return a box; `length` replaces the right one."""
    joined = b"".join(content)
    return struct.pack(">I4s", 8 + len(joined) if length is None else length, name) + joined


def full(name: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Return a box with version and flags."""
    return box(name, struct.pack(">I", version << 24 | flags), *content)


def ispe(size: tuple[int, int]) -> bytes:
    """Return the property with an image's size."""
    return full(b"ispe", struct.pack(">II", *size))


def heif(
    items: Sequence[tuple[bytes, bytes, Sequence[bytes]]],
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    *,
    brands: bytes = b"avifmif1miaf",
    primary: int = 1,
    places: Sequence[tuple[int, int]] | None = None,
    before: bytes = b"",
) -> bytes:
    """Return an image file of items (kind, content, property boxes), counted from 1; `places` replaces their offset and length."""
    properties = list(dict.fromkeys(prop for _, _, boxes in items for prop in boxes))
    infes = b"".join(
        full(b"infe", struct.pack(">HH4sx", number, 0, kind), version=2) for number, (kind, _, _) in enumerate(items, 1)
    )
    uses = b"".join(
        struct.pack(">HB", number, len(boxes)) + bytes(1 + properties.index(prop) for prop in boxes)
        for number, (_, _, boxes) in enumerate(items, 1)
    )
    irefs = b"".join(box(kind, struct.pack(f">HH{len(to)}H", source, len(to), *to)) for kind, source, to in references)

    def meta(start: int) -> bytes:
        locations = places or [
            (start + sum(len(content) for _, content, _ in items[:number]), len(content))
            for number, (_, content, _) in enumerate(items)
        ]
        ilocs = b"".join(struct.pack(">HHHII", number, 0, 1, *location) for number, location in enumerate(locations, 1))
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            full(b"pitm", struct.pack(">H", primary)),
            before,
            full(b"iinf", struct.pack(">H", len(items)), infes),
            full(b"iref", irefs) if irefs else b"",
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", struct.pack(">I", len(items)), uses)),
            full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)), ilocs),
        )

    head = box(b"ftyp", brands[:4] + bytes(4) + brands)
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *(content for _, content, _ in items))


def av1(size: tuple[int, int] = (16, 12), colour: object = 0) -> tuple[bytes, bytes]:
    """Return an image as AV1: its bitstream and its configuration box."""
    content = saved(solid(size=size, colour=colour), "AVIF", subsampling="4:4:4")
    at = content.index(b"av1C")
    return content[content.index(b"mdat") + 4 :], content[at - 4 : at - 4 + int.from_bytes(content[at - 4 : at], "big")]


def avif(size: tuple[int, int] = (16, 12), *properties: bytes, stated: tuple[int, int] | None = None) -> bytes:
    """Return an AVIF of one image; `stated` replaces the size in its header."""
    data, configuration = av1(size)
    return heif([(b"av01", data, (ispe(stated or size), configuration, *properties))])


def avif_grid(
    tiles: Sequence[object],
    columns: int,
    size: tuple[int, int],
    tile: tuple[int, int] = (64, 64),
    *,
    again: bool = False,
) -> bytes:
    """Return an AVIF of tiles of these colours, row by row; with `again`, of the first tile only."""
    rows = len(tiles) // columns
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    items = [(b"grid", grid, (ispe(size),))]
    for colour in tiles:
        data, configuration = av1(tile, colour)
        items.append((b"av01", data, (ispe(tile), configuration)))
    numbers = [2] * len(tiles) if again else list(range(2, 2 + len(tiles)))
    return heif(items, [(b"dimg", 1, numbers)])
