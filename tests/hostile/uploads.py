"""Catalogue of unusual and hostile requests with their expected responses; the same in every run.

A response is a status and a problem's code, `ok` for 200. `images` makes the bytes of the images.
"""

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote

from PIL import Image

from polymodal.model.modalities.image.input import FORMATS
from tests.hostile.images import (
    ASCII,
    BYTE,
    FLOAT,
    LONG,
    PNG_BEGINNING,
    PNG_END,
    RATIONAL,
    SHORT,
    apng,
    av1,
    avif,
    avif_grid,
    bitstream,
    bmp,
    box,
    chunk,
    gif,
    heif,
    ihdr,
    ispe,
    jpeg_of_scans,
    jpeg_with,
    png,
    riff,
    saved,
    segment,
    solid,
    tiff,
    tiff_deflated,
    tiff_of,
    tiff_pages,
    tiff_strips,
    tiff_tiles,
    vp8x,
    webp,
    webp_animation,
    zeros,
)

OK = "200 ok"
UNDECODABLE, TOO_LARGE = "422 undecodable", "422 too_large"
URL = "422 url_not_accepted"
UNSUPPORTED, UNSUPPORTED_TYPE = "415 unsupported_format", "415 unsupported_media_type"
MALFORMED, UNKNOWN, REPEATED = "400 malformed_body", "400 unknown_field", "400 repeated_field"
NOTHING, INVALID, TOO_MANY_BYTES = "422 nothing_given", "422 invalid_parameter", "413 too_many_bytes"
FORM, JSON = "multipart/form-data; boundary=frontier", "application/json"


@dataclass(frozen=True, slots=True)
class Upload:
    """A request to POST /v1/classify, and the status and code of the expected response."""

    name: str
    content: bytes = field(repr=False)
    content_type: str | None
    answer: str


def raw_field(headers: bytes, content: bytes) -> bytes:
    """Return a field of a form with these headers, after its boundary."""
    return b"--frontier\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def form_field(name: str, content: bytes, more: str = "") -> bytes:
    """Return a correct field of a form; `more` is added to its disposition."""
    return raw_field(f'Content-Disposition: form-data; name="{name}"{more}'.encode(), content)


def encoded_file(encoding: str, content: bytes) -> bytes:
    """Return the field of an image in a transfer encoding."""
    disposition = 'Content-Disposition: form-data; name="image"; filename="a.png"'
    return raw_field(f"{disposition}\r\nContent-Transfer-Encoding: {encoding}".encode(), content)


END = b"--frontier--\r\n"
RED = form_field("text", b"red")


def red_form(headers: bytes) -> bytes:
    """Return a form with the text `red` in a field with these headers."""
    return raw_field(headers, b"red") + END


def image(name: str, content: bytes, answer: str) -> Upload:
    """Return a form with this image."""
    return Upload(f"image: {name}", form_field("image", content, '; filename="a.png"') + END, FORM, answer)


def form(name: str, content: bytes, answer: str, content_type: str | None = FORM) -> Upload:
    """Return a form with exactly this body."""
    return Upload(f"form: {name}", content, content_type, answer)


def text(name: str, content: bytes, answer: str) -> Upload:
    """Return a form with this text."""
    return Upload(f"text: {name}", form_field("text", content) + END, FORM, answer)


def document(name: str, content: bytes | object, answer: str, content_type: str | None = JSON) -> Upload:
    """Return a JSON body: these bytes, or this object."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Upload(f"json: {name}", body, content_type, answer)


def edited(content: bytes, at: int, replacement: bytes) -> bytes:
    """Return the content with other bytes at a position."""
    return content[:at] + replacement + content[at + len(replacement) :]


# --- images ---
# Tables: an entry on one line where it fits.
# fmt: off

NOISE = Image.frombytes("RGB", (16, 12), bytes((7 * n * n + n // 3) % 256 for n in range(576)))
SAMPLES = {
    "png": saved(NOISE),
    "jpeg": saved(NOISE, "JPEG"),
    "jpeg-progressive": saved(NOISE, "JPEG", progressive=True),
    "gif": saved(NOISE.quantize(16), "GIF"),
    "webp": saved(NOISE, "WEBP"),
    "webp-lossless": saved(NOISE, "WEBP", lossless=True),
    "bmp": saved(NOISE, "BMP"),
    "tiff": saved(NOISE, "TIFF"),
    "tiff-lzw": saved(NOISE, "TIFF", compression="tiff_lzw"),
}
SIGNATURES = {"png": 8, "jpeg": 3, "gif": 6, "webp": 12, "bmp": 2, "tiff": 4}


def whole(name: str, content: bytes) -> int:
    """Return the length from which on a cut-off sample is accepted, because the rest has no pixels."""
    return {
        "png": len(content) - 21,  # IEND, and the checksums of IDAT
        "gif": len(content) - 2,  # the trailer, and the block of no bytes before it
        "jpeg": len(content) - 2,  # the end marker
        "jpeg-progressive": len(content) - 2,
        "webp": len(content) - 1,  # padding of the last chunk
        "webp-lossless": len(content) - 1,
    }.get(name, len(content))


def cut_off() -> Iterator[Upload]:
    """Each format, cut off in and after its signature, at every tenth of its length, and just before its end."""
    for name, content in SAMPLES.items():
        signature = SIGNATURES[name.partition("-")[0]]
        tenths = {len(content) * tenth // 10 for tenth in range(1, 10)}
        for length in sorted({0, 1, signature - 1, signature, signature + 1, signature + 8, *tenths, whole(name, content) - 1}):
            answer = UNSUPPORTED if 0 < length < signature else UNDECODABLE
            yield image(f"{name} cut off after {length} of {len(content)} bytes", content[:length], answer)
        yield image(f"{name} without its end marker", content[: whole(name, content)], OK)


def signatures() -> Iterator[Upload]:
    """Each format with a changed byte in its signature."""
    for name, length in SIGNATURES.items():
        content = SAMPLES[name]
        for at in range(length):
            if name == "webp" and 4 <= at < 8:  # its length
                continue
            flipped = bytes([content[at] ^ (0x01 if name != "gif" or at != 4 else 0x02)])
            yield image(f"{name} with byte {at} of its signature flipped", edited(content, at, flipped), UNSUPPORTED)


def sizes() -> Iterator[Upload]:
    """Sizes of zero, at the limits and above them."""
    responses = {
        (0, 0): UNDECODABLE,
        (0, 5): UNDECODABLE,
        (5, 0): UNDECODABLE,
        (16_385, 1): TOO_LARGE,
        (1, 16_385): TOO_LARGE,
        (16_384, 3_052): TOO_LARGE,  # 50,003,968 px
        (65_535, 65_535): TOO_LARGE,
    }
    for (width, height), answer in responses.items():
        size = f"{width} × {height}"
        yield image(f"png of {size}", png((width, height), rows=b"x\x9c\x03\x00\x00\x00\x00\x01"), answer)
        yield image(f"gif of {size}", gif((width, height)), answer)
        yield image(f"bmp of {size}", bmp((width, height), b"\x00"), answer)
        yield image(f"tiff of {size}", tiff((width, height), b"\x00"), answer)
        if width and height:  # WebP stores them minus 1
            canvas = webp(vp8x((width, height), 2), riff(b"ANIM", bytes(6)), riff(b"ANMF", bytes(16)))
            yield image(f"webp of {size}", canvas, TOO_LARGE if width == height == 65_535 else UNDECODABLE)
        frame = SAMPLES["jpeg"].index(b"\xff\xc0") + 5
        yield image(f"jpeg of {size}", edited(SAMPLES["jpeg"], frame, struct.pack(">HH", height, width)), answer)
    for size in ((1, 1), (1, 16_384), (16_384, 1), (2, 3)):
        one_colour = solid(size=size)
        for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF"):
            yield image(f"{name.lower()} of {size[0]} × {size[1]}", saved(one_colour, name), OK)
    for size in ((1, 1), (1, 16_383), (16_383, 1)):
        yield image(f"webp of {size[0]} × {size[1]}", saved(solid(size=size), "WEBP"), OK)
    for side in (2**31 - 1, 2**31, 2**32 - 1):
        yield image(f"png of {side}²", png((side, side), rows=b"\x00"), TOO_LARGE)
        yield image(f"tiff of {side}²", tiff((side, side), b"\x00"), TOO_LARGE)
    for height in (-12, -(2**31)):
        yield image(f"bmp of 16 × {height}", bmp((16, height), bytes(192)), OK if height == -12 else TOO_LARGE)
    yield image("bmp of −1 × 1", bmp((-1, 1), b"\x00"), TOO_LARGE)


def pngs() -> Iterator[Upload]:
    """PNG with wrong, missing or repeated chunks."""
    rows = zlib.compress(bytes(12 * 49))
    for depth, colour in ((3, 2), (4, 2), (16, 3), (8, 1), (8, 5), (8, 7), (0, 0), (32, 0), (1, 2), (2, 6)):
        head = PNG_BEGINNING + ihdr(16, 12, depth, colour)
        yield image(f"png of depth {depth} and colour type {colour}", head + chunk(b"IDAT", rows) + PNG_END, UNDECODABLE)
    yield image("png of an unknown filter method", edited(png(), 27, b"\x01"), UNDECODABLE)
    yield image("png with a wrong checksum of its header", edited(png(), 29, b"\x00\x00\x00\x00"), UNDECODABLE)
    at = png().index(b"IDAT")
    yield image("png with pixels longer than the file", edited(png(), at - 4, b"\x7f\xff\xff\xff"), OK)
    yield image("png with pixels of no length", edited(png(), at - 4, bytes(4)), UNDECODABLE)
    yield image("png with pixels that are no zlib", png(rows=b"words, words, words"), UNDECODABLE)
    yield image("png with half of its pixels", png(rows=zlib.compress(bytes(6 * 49))), OK)
    yield image("png with 1000 times its pixels", png(rows=zeros(588_000)), OK)
    yield image("png with unknown row filters", png(rows=zlib.compress(b"\x09" * 588)), UNDECODABLE)
    yield image("png without pixels", PNG_BEGINNING + ihdr(16, 12) + PNG_END, UNDECODABLE)
    yield image("png without a header", PNG_BEGINNING + chunk(b"IDAT", rows) + PNG_END, UNDECODABLE)
    yield image("png with a short header", PNG_BEGINNING + chunk(b"IHDR", bytes(5)) + png()[33:], UNDECODABLE)
    yield image("png with two headers", png(before=ihdr(60_000, 60_000)), OK)
    yield image("png without an end", png(end=b""), OK)
    yield image("png with a chunk without a name", png(before=chunk(b"\x00\x00\x00\x00")), UNDECODABLE)
    yield image("png with a chunk longer than the file", png(before=chunk(b"tEXt", b"a", length=2**31)), UNDECODABLE)
    yield image("png with a short palette", png(mode="P", before=chunk(b"PLTE", b"\x01")), OK)
    yield image("png with short transparency", png(before=chunk(b"tRNS", b"\x00")), UNDECODABLE)
    yield image("png with a wrong checksum of a comment", png(before=chunk(b"tEXt", b"a\x00b", crc=1)), OK)
    yield image("png with 100,000 chunks", png(before=chunk(b"teXt") * 100_000), UNDECODABLE)
    for kind, data in {
        "zTXt": b"a\x00\x00" + zeros(10_000_000),
        "iTXt": b"a\x00\x01\x00\x00\x00" + zeros(10_000_000),
        "iCCP": b"a\x00\x00" + zeros(10_000_000),
        "eXIf": b"II*\x00\xff\xff\xff\xff",
        "tEXt": b"\x00" * 100_000,
        "acTL": b"\xff" * 8,
        "gAMA": b"",
        "pHYs": b"",
        "cHRM": b"\x00",
    }.items():
        yield image(f"png with a bad {kind}", png(before=chunk(kind.encode(), data)), OK)
    yield image("png of 3000 frames", apng(3000), OK)
    yield image(
        "png whose first frame lies outside", png(before=chunk(b"fcTL", struct.pack(">6I", 0, 99, 99, 9, 9, 0) + bytes(2))), OK
    )
    for mode in ("1", "I;16", "RGB;16", "RGBA;16", "LA;16", "L;2", "P;1"):
        yield image(f"png in {mode}, interlaced", png(mode=mode, interlace=1), OK)


def jpegs() -> Iterator[Upload]:
    """JPEG with wrong, missing or too many segments."""
    good = SAMPLES["jpeg"]
    frame, scan = good.index(b"\xff\xc0"), good.index(b"\xff\xda")
    yield image("jpeg with only its start marker", b"\xff\xd8\xff", UNDECODABLE)
    yield image("jpeg with only its start and end markers", b"\xff\xd8\xff\xd9", UNDECODABLE)
    yield image("jpeg of 1 MB of fill bytes", b"\xff\xd8" + b"\xff" * 1_000_000, UNDECODABLE)
    yield image("jpeg with 1 MB of fill bytes", jpeg_with(b"\xff" * 1_000_000), OK)
    yield image("jpeg without a frame", good[:frame] + good[frame + 19 :], UNDECODABLE)
    yield image("jpeg with two frames", good[:scan] + good[frame : frame + 19] + good[scan:], UNDECODABLE)
    yield image("jpeg in 12 bits", edited(good, frame + 4, b"\x0c"), UNSUPPORTED)
    yield image("jpeg of no components", edited(good, frame + 9, b"\x00"), UNDECODABLE)
    yield image("jpeg of 255 components", edited(good, frame + 9, b"\xff"), UNDECODABLE)
    yield image("jpeg with sampling factors of 0", edited(good, frame + 11, b"\x00"), UNDECODABLE)
    yield image("jpeg with a missing table", edited(good, frame + 12, b"\x03"), UNDECODABLE)
    yield image("jpeg with the marker of lossless", edited(good, frame + 1, b"\xc3"), UNDECODABLE)
    yield image("jpeg with the marker of hierarchical", edited(good, frame + 1, b"\xc5"), UNDECODABLE)
    yield image("jpeg without a scan", good[:scan], UNDECODABLE)
    yield image("jpeg that ends before its scan", good[:scan] + b"\xff\xd9", UNDECODABLE)
    yield image("jpeg with a segment longer than the file", jpeg_with(segment(0xE1, b"", length=65_535)), UNDECODABLE)
    yield image("jpeg with a segment of no length", jpeg_with(segment(0xE1, b"", length=0)), OK)
    yield image("jpeg of 5000 segments", jpeg_with(segment(0xE5) * 5000), UNDECODABLE)
    yield image("jpeg of 100,000 pieces of EXIF", jpeg_with(segment(0xE1, b"Exif\x00\x00ab") * 100_000), UNDECODABLE)
    yield image(
        "jpeg with 1 MB of invalid EXIF", jpeg_with(segment(0xE1, b"Exif\x00\x00" + b"II*\x00" * 16_000) * 16), OK
    )
    yield image("jpeg with half of an ICC profile", jpeg_with(segment(0xE2, b"ICC_PROFILE\x00\x02\xff" + bytes(100))), OK)
    yield image("jpeg with a bad Photoshop block", jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\x00\x00\xff")), OK)
    yield image("jpeg with a bad second picture", jpeg_with(segment(0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff")), OK)
    yield image("jpeg with a huge quantisation table", jpeg_with(segment(0xDB, b"\x00" + bytes(60_000))), UNDECODABLE)
    yield image("jpeg with an invalid Huffman table", jpeg_with(segment(0xC4, b"\x00" + b"\xff" * 16)), UNDECODABLE)
    yield image("jpeg of 99 scans", jpeg_of_scans(98, (64, 64)), OK)
    yield image("jpeg of 2000 scans of 16 Mpx", jpeg_of_scans(2000, (4096, 4096)), UNDECODABLE)
    yield image("jpeg in CMYK", saved(NOISE.convert("CMYK"), "JPEG"), OK)
    progressive, scans = SAMPLES["jpeg-progressive"], b"\xff\xda" * 200
    yield image("jpeg with 200 scans after its end", progressive + scans, OK)
    yield image("jpeg followed by a video", good + b"\x00\x00\x00\x18ftypmp42" + scans, OK)
    yield image("jpeg followed by a second one", good + good[:-40], OK)
    for name, content in (("jpeg", good), ("progressive jpeg", progressive)):
        yield image(f"{name} without its end", content[:-2], OK)
        yield image(f"{name} without its end and its last bytes", content[:-12], UNDECODABLE)
        yield image(f"{name} with zeros for its end", content[:-2] + bytes(1000), OK)
    last = progressive.rindex(b"\xff\xda")
    yield image("progressive jpeg without its last scan", progressive[:last], UNDECODABLE)
    for name, filling in {"fill bytes": b"\xff", "stuffed bytes": b"\xff\x00", "restarts": b"\xff\xd0", "TEM": b"\xff\x01"}.items():
        content = good[:-2] + filling * (1_000_000 // len(filling))
        yield image(f"jpeg with 1 MB of {name} for its end", content, OK)
    yield image("jpeg with 100,000 segments for its end", good[:-2] + segment(0xE0) * 100_000, UNDECODABLE)
    yield image("jpeg with HTML in a comment", jpeg_with(segment(0xFE, b"<script>alert(1)</script>")), OK)


def gifs() -> Iterator[Upload]:
    """GIF with frames outside of the screen, invalid codes, and endless extensions."""
    good = SAMPLES["gif"]
    black = saved(solid("P", (1, 1)), "GIF")
    yield image("gif without frames", gif(frames=[]), UNDECODABLE)
    yield image("gif whose frame is larger than its screen", gif((1, 1), [(0, 0, 60_000, 60_000)]), TOO_LARGE)
    yield image("gif whose frame is far outside", gif((1, 1), [(65_535, 65_535, 1, 1)]), TOO_LARGE)
    for disposal in (1, 2, 3, 7):
        yield image(f"gif with a vast frame and disposal {disposal}", gif((1, 1), [(0, 0, 50_000, 50_000)], disposal), TOO_LARGE)
    yield image("gif with a frame of nothing", gif((5, 5), [(0, 0, 0, 0)]), UNDECODABLE)
    yield image("gif of 100,000 frames", black[:-1] + gif((1, 1), [(0, 0, 1, 1)] * 100_000)[19:], OK)
    yield image("gif with a vast second frame", black[:-1] + gif((1, 1), [(0, 0, 65_535, 65_535)])[19:], OK)
    start = good.rindex(b"\x2c\x00\x00\x00\x00\x10\x00\x0c\x00") + 10
    start += 3 << (good[start - 1] & 7) + 1 if good[start - 1] & 0x80 else 0
    for bits in (1, 12, 13, 255):
        yield image(f"gif of codes of {bits} bits", edited(good, start, bytes([bits])), UNDECODABLE)
    yield image("gif with invalid codes", good[: start + 1] + b"\x04\xff\xff\xff\xff\x00\x3b", UNDECODABLE)
    yield image("gif with 1 MB of comment", saved(solid("P"), "GIF", comment=b"x" * 1_000_000), OK)
    yield image("gif with 100,000 extensions", gif()[:19] + b"\x21\xfe\x00" * 100_000, UNDECODABLE)
    yield image("gif with an extension without end", gif()[:19] + b"\x21\xfe" + b"\xff" * 1000, UNDECODABLE)
    yield image("gif with 1000 bytes of rubbish before its frame", black[:-1].replace(b"\x2c", bytes(1000) + b"\x2c", 1), OK)
    yield image("gif that is HTML too", b"GIF89a/*" + black[8:] + b"*/<script>alert(1)</script>", OK)
    yield image("gif followed by HTML", black + b"<html><script>alert(1)</script>", OK)


def webps() -> Iterator[Upload]:
    """WebP with wrong lengths, wrong canvases, and many frames."""
    lossless = bitstream(lossless=True)
    yield image("webp of no chunk", webp(), UNDECODABLE)
    yield image("webp of a canvas alone", webp(vp8x((16, 12))), UNDECODABLE)
    yield image("webp longer than its file", webp(lossless, length=2**32 - 9), OK)
    for difference in (-9, -1, 1, 1000):
        yield image(f"webp whose length is wrong by {difference}", webp(lossless, length=4 + len(lossless) + difference), OK)
    yield image("webp of no length", webp(lossless, length=0), UNDECODABLE)
    yield image("webp with a chunk longer than the file", webp(riff(b"VP8L", lossless[8:], length=2**31)), UNDECODABLE)
    yield image("webp with an unknown chunk", webp(vp8x((2, 2)), riff(b"WHAT", bytes(9)), lossless), OK)
    yield image("webp with invalid pixels", webp(riff(b"VP8L", b"\x2f" + b"\xff" * 40)), TOO_LARGE)
    yield image("webp with invalid lossy pixels", webp(riff(b"VP8 ", b"\xff" * 40)), UNDECODABLE)
    yield image("webp whose canvas is not its picture's", webp(vp8x((16, 12)), lossless), UNDECODABLE)
    yield image("webp of 3000 frames", webp_animation(3000), OK)
    yield image("webp of 100,000 chunks", webp(*[riff(b"JUNK", b"")] * 100_000, lossless), UNDECODABLE)
    yield image("webp whose frame is outside of its canvas", webp_animation(1, (1, 1)), UNDECODABLE)
    yield image("webp with the flag of an animation and no frames", webp(vp8x((2, 2), 2), lossless), UNDECODABLE)
    yield image("webp with 1 MB of XMP", webp(vp8x((2, 2), 4), lossless, riff(b"XMP ", bytes(1_000_000))), OK)
    yield image("webp with invalid EXIF", webp(vp8x((2, 2), 8), lossless, riff(b"EXIF", b"II*\x00\xff")), OK)


def bmps() -> Iterator[Upload]:
    """BMP with other lengths of headers, depths and compressions."""
    good = SAMPLES["bmp"]
    for length in (0, 11, 41, 2**32 - 1):
        yield image(f"bmp with a header of {length} bytes", edited(good, 14, struct.pack("<I", length)), UNDECODABLE)
    for bits in (0, 2, 3, 48, 65_535):
        yield image(f"bmp of {bits} bits", edited(good, 28, struct.pack("<H", bits)), UNDECODABLE)
    for packing in (1, 2):
        yield image(f"bmp in run lengths ({packing})", bmp((4096, 4096), b"\x01\x00\x00\x00", compression=packing), UNSUPPORTED)
    for packing in (3, 4, 5, 99):
        yield image(f"bmp with packing {packing}", edited(good, 30, struct.pack("<I", packing)), UNDECODABLE)
    yield image("bmp with its pixels outside", edited(good, 10, b"\xff\xff\xff\x7f"), UNDECODABLE)
    yield image("bmp of 2³² colours", edited(bmp(), 46, b"\xff\xff\xff\xff"), UNDECODABLE)
    yield image("bmp with a wrong file length", edited(good, 2, b"\xff\xff\xff\xff"), OK)


def tiffs() -> Iterator[Upload]:
    """TIFF with wrong, circular or huge directories."""
    good = tiff()
    yield image("tiff with its directory outside", edited(good, 4, b"\xff\xff\xff\xff"), UNDECODABLE)
    yield image("tiff with its directory in its header", edited(good, 4, bytes(4)), UNDECODABLE)
    yield image("tiff whose next page is itself", tiff(following=None), OK)
    yield image("tiff whose next page is nowhere", tiff(following=2**32 - 1), OK)
    yield image("tiff of 3000 pages", tiff_pages(3000), OK)
    for tag in (256, 257, 262, 273):
        yield image(f"tiff without tag {tag}", tiff(without=[tag]), UNDECODABLE if tag != 262 else OK)
    for number in (0, 6, 9, 32_809, 34_676, 34_925, 50_000, 50_001, 65_000):
        known = number in (6, 32_809, 34_676, 34_925, 50_000, 50_001)
        yield image(f"tiff compressed by {number}", tiff(tags={259: (SHORT, [number])}), UNSUPPORTED if known else UNDECODABLE)
    for number in (5, 8, 7):
        yield image(
            f"tiff with invalid data compressed by {number}", tiff(data=b"\xff" * 192, tags={259: (SHORT, [number])}), UNDECODABLE
        )
    yield image("tiff in 7 bits", tiff(tags={258: (SHORT, [7])}), UNSUPPORTED)
    floats = struct.pack("<192f", *(number / 191 for number in range(192)))
    layout = {"bits": (32,), "sample_format": 3}
    yield image("tiff of floats from 0 to 1", tiff_of(floats, (16, 12), **layout), OK)
    yield image("tiff of NaN", tiff_of(struct.pack("<f", float("nan")) + floats[4:], (16, 12), **layout), UNSUPPORTED)
    yield image("tiff of infinity", tiff_of(struct.pack("<f", float("inf")) + floats[4:], (16, 12), **layout), UNSUPPORTED)
    yield image("tiff of 12 bits in 16", tiff_of(struct.pack("<192H", *range(192)), (16, 12), bits=(16,)), UNSUPPORTED)
    nowhere = {341: (FLOAT, [float("nan")]), 340: (FLOAT, [float("-inf")])}
    yield image("tiff whose range is no number", tiff_of(floats, (16, 12), tags=nowhere, **layout), OK)
    yield image("tiff from a raw photograph", tiff(tags={50_706: (BYTE, [1, 4, 0, 0])}), UNSUPPORTED)
    yield image("tiff of 60,000 samples", tiff(tags={277: (SHORT, [60_000])}), UNDECODABLE)
    yield image("tiff of 100,000 strips", tiff(tags={273: (LONG, [8] * 100_000)}), UNDECODABLE)
    yield image("tiff with its strip outside", tiff(tags={273: (LONG, [2**31])}), UNDECODABLE)
    yield image("tiff with 100,000 fractions for its width", tiff(tags={256: (RATIONAL, bytes(8) * 100_000)}), UNDECODABLE)
    yield image("tiff with 100,000 fractions for its resolution", tiff(tags={282: (RATIONAL, bytes(8) * 100_000)}), OK)
    yield image("tiff with 10,000 tags", tiff(tags={tag: (SHORT, [1]) for tag in range(40_000, 50_000)}), OK)
    yield image("tiff of a vast tile", tiff_tiles((64, 64), (40_000, 16_000)), TOO_LARGE)
    yield image("tiff of tiles of no size", tiff_tiles((64, 64), (0, 0)), UNDECODABLE)
    yield image("tiff of a vast strip", tiff_deflated((16_384, 3_051), "RGB", tag258=64), UNSUPPORTED)
    one = b"\x0f" + bytes(16)
    yield image("tiff of 2000 strips that are one megabyte", tiff_strips(2000, b"\x80" * 1_000_000 + one), UNDECODABLE)
    yield image("tiff of strips without lengths", tiff_strips(9, one, lengths=(ASCII, b"a" * 9)), UNDECODABLE)
    yield image("tiff of strips with fractions of lengths", tiff_strips(9, one, lengths=(RATIONAL, bytes(72))), UNDECODABLE)
    yield image("tiff of strips with lengths of nothing", tiff_strips(9, one, lengths=(LONG, [0] * 9)), UNDECODABLE)
    yield image("tiff of strips with lengths outside", tiff_strips(9, one, lengths=(LONG, [2**31] * 9)), UNDECODABLE)
    yield image("tiff of two strips", tiff_strips(2, one), OK)
    yield image("tiff of floats", tiff_deflated((16, 12), "F"), OK)
    yield image("tiff of planes", tiff_deflated((16, 12), "planes"), OK)


def stills() -> Iterator[Upload]:
    """AVIF with wrong boxes and wrong compressed data."""
    if "image/avif" not in FORMATS:
        return
    data, configuration = av1((16, 12))
    alone = (b"av01", data, (ispe((16, 12)), configuration))
    yield image("avif of its beginning", b"\x00\x00\x00\x1cftypavif", UNDECODABLE)
    yield image("avif", avif(), OK)
    yield image("avif in tiles", avif_grid([0, 255, 9, 99], 2, (128, 100)), OK)
    yield image("avif with one tile for all", avif_grid([0, 9], 2, (128, 64), again=True), UNDECODABLE)
    yield image("avif of too few tiles", avif_grid([0, 9], 2, (300, 64)), UNDECODABLE)
    yield image("avif of tiles outside", avif_grid([0, 9, 8], 3, (100, 64)), UNDECODABLE)
    yield image("avif that says it is smaller", avif((64, 64), stated=(8, 8)), UNDECODABLE)
    yield image("avif that says it is larger", avif((64, 64), stated=(99, 99)), UNDECODABLE)
    yield image("avif of 60,000²", avif(stated=(60_000, 60_000)), TOO_LARGE)
    yield image("avif of no size", avif(stated=(0, 0)), UNDECODABLE)
    yield image("avif of two images in one item", heif([(b"av01", data * 5, alone[2])]), UNDECODABLE)
    yield image("avif of 100,000 units of nothing", heif([(b"av01", b"\x12\x00" * 100_000, alone[2])]), UNDECODABLE)
    yield image("avif of another codec", heif([(b"hvc1", data, alone[2])]), UNSUPPORTED)
    yield image("avif of an overlay", heif([(b"iovl", bytes(40), alone[2][:1]), alone], [(b"dimg", 1, [2])]), UNSUPPORTED)
    yield image("avif without its primary item", heif([alone], primary=7), UNDECODABLE)
    yield image("avif with its item outside", heif([alone], places=[(2**31, 50)]), UNDECODABLE)
    yield image("avif with its item of no bytes", heif([(b"av01", b"", alone[2])]), UNDECODABLE)
    yield image("avif whose alpha is itself", heif([alone], [(b"auxl", 1, [1])]), OK)
    yield image("avif whose tile is itself", heif([(b"grid", bytes(8), (ispe((16, 12)),))], [(b"dimg", 1, [1])]), UNDECODABLE)
    yield image("avif of 10,000 boxes", heif([alone], before=box(b"free") * 10_000), UNDECODABLE)
    yield image("avif with a box of no length", heif([alone], before=box(b"free", length=3)), UNDECODABLE)
    yield image("avif of a sequence alone", avif().replace(b"meta", b"moov"), UNSUPPORTED)
    yield image("avif followed by an archive", avif() + b"PK\x03\x04" + bytes(999), OK)
    yield image("avif cut off", avif()[:-9], UNDECODABLE)
    yield image("heic of its beginning", b"\x00\x00\x00\x1cftypheic", UNDECODABLE if "image/heic" in FORMATS else UNSUPPORTED)


def strangers() -> Iterator[Upload]:
    """Files that Pillow could read or a browser would run, in formats that this service does not accept."""
    beginnings = {
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(http://127.0.0.1/) run\n",
        "pdf": b"%PDF-1.7\n1 0 obj",
        "ico": b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00\x68\x04\x00\x00\x16\x00\x00\x00",
        "cur": b"\x00\x00\x02\x00\x01\x00",
        "psd": b"8BPS\x00\x01" + bytes(20),
        "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        "jpeg 2000 codestream": b"\xff\x4f\xff\x51",
        "jpeg xl": b"\xff\x0a",
        "pcx": b"\x0a\x05\x01\x08" + bytes(124),
        "fli": b"\x80\x00\x00\x00\x11\xaf\x01\x00" + bytes(120),
        "icns": b"icns\x00\x00\x00\x08",
        "ppm": b"P6 1 1 255\n\x00\x00\x00",
        "pfm": b"PF\n1 1\n1\n",
        "sgi": b"\x01\xda\x01\x01\x00\x03",
        "tga": b"\x00\x00\x02" + bytes(15),
        "dds": b"DDS \x7c\x00\x00\x00",
        "qoi": b"qoif\x00\x00\x00\x01\x00\x00\x00\x01\x03\x00",
        "xbm": b"#define a_width 1\n#define a_height 1\n",
        "xpm": b"/* XPM */",
        "wmf": b"\xd7\xcd\xc6\x9a\x00\x00",
        "cr3": b"\x00\x00\x00\x18ftypcrx " + bytes(12),
        "mp4": b"\x00\x00\x00\x1cftypisom",
        "blp": b"BLP2\x01\x00\x00\x00",
        "fits": b"SIMPLE  =                    T",
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "mng": b"\x8aMNG\r\n\x1a\n",
        "bigtiff": b"II+\x00\x08\x00\x00\x00" + bytes(8),
        "wave": b"RIFF\x24\x00\x00\x00WAVEfmt ",
        "avi": b"RIFF\x24\x00\x00\x00AVI LIST",
        "zip": b"PK\x03\x04\x14\x00",
        "gzip": b"\x1f\x8b\x08\x00",
        "elf": b"\x7fELF\x02\x01\x01\x00",
        "exe": b"MZ\x90\x00",
        "html": b"<!DOCTYPE html><img src=http://127.0.0.1/a.png>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/a.png"/></svg>',
        "xml with an outside entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "an address": b"http://127.0.0.1/a.png",
        "a path": b"file:///etc/passwd",
        "nulls": bytes(1000),
        "words": b"this is no picture",
    }
    for name, content in beginnings.items():
        yield image(name, content, UNSUPPORTED)
    yield image("png followed by a zip", png() + b"PK\x03\x04" + bytes(1000), OK)
    yield image("bmp in an ico", beginnings["ico"] + bmp()[14:], UNSUPPORTED)
    yield image("png after a byte", b"\x00" + png(), UNSUPPORTED)
    for name, declared in {"a.exe": "application/x-msdownload", "a.svg": "image/svg+xml", "../../etc/passwd": "text/html"}.items():
        headers = f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: {declared}'.encode()
        yield form(f"a png called {name}", raw_field(headers, png()) + END, OK)


# --- texts ---


def texts() -> Iterator[Upload]:
    """Texts with invisible, invalid or too many characters."""
    yield text("empty", b"", NOTHING)
    yield text("blank", " \t\r\n\u00a0\u2003\u3000".encode(), NOTHING)
    yield text("a byte order mark alone", b"\xef\xbb\xbf", NOTHING)
    for name, content in {
        "zero-width characters": "\u200b\u200c\u200d\u2060\ufeff" * 1000,
        "control characters": "".join(map(chr, (*range(1, 32), *range(0x7F, 0xA0)))),
        "soft hyphens": "\u00ad \u00ad",
        "directions": "\u200e\u202a\u202c\u2066\u2069",
        "variation selectors": "\ufe0f\U000e0100",
        "tags": "".join(chr(0xE0000 + ord(letter)) for letter in "ignore"),
        "Hangul fillers": "\u115f\u1160\u3164\uffa0",
        "blank Braille cells": "\u2800\u2800",
        "private characters": "\ue000\U000f0000",
        "noncharacters": "\ufffe\uffff\U0010ffff",
        "places of attachments": "\ufffc \ufffc",
    }.items():
        yield text(f"nothing but {name}", content.encode(), NOTHING)
    yield text("NUL", b"\x00", UNDECODABLE)
    yield text("NUL at the end", b"red\x00", UNDECODABLE)
    for name, content in {
        "control characters": bytes(range(1, 32)) + b"\x7f red",
        "C1 control characters": "".join(map(chr, range(0x80, 0xA0))).encode() + b"red",
        "right-to-left overrides": ("\u202e\u2066\u200f" * 1000 + "red").encode(),
        "zero-width characters": ("\u200b\u200c\u200d\u2060\ufeff" * 1000 + "red").encode(),
        "noncharacters": "\ufffe\uffff\U0010ffff red".encode(),
        "private characters": "\ue000\U000f0000 red".encode(),
        "tags": ("\U000e0001" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore") + " red").encode(),
        "emoji joined to a family of 300": ("\U0001f469\u200d" * 300).encode(),
        "ligatures that expand": ("\ufdfa" * 5000).encode(),
        "20,000 letters": b"r" * 20_000,
        "20,000 words": b"r " * 9_999,
        "256 combining marks": ("e" + "\u0301\u0327" * 128).encode(),
        "a format string": b"%s%n{0.__class__}${jndi:ldap://127.0.0.1/a}",
        "SQL": b"'; DROP TABLE models; --",
        "HTML": b"<script>alert(1)</script>",
        "an address": b"http://127.0.0.1/",
        "a blank line and a status line": b"red\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "almost a boundary": b"\r\n--frontie\r\n--fronties\r\n-- red",
    }.items():
        yield text(name, content, OK)
    for name, content in {
        "a lone byte of a sequence": b"\x80",
        "a sequence cut off": b"\xe2\x82",
        "a sequence of 5 bytes": b"\xf8\x88\x80\x80\x80",
        "a sequence too long for its character": b"\xc0\xaf",
        "a NUL in two bytes": b"\xc0\x80",
        "half of a surrogate pair": b"\xed\xa0\x80",
        "a surrogate pair in six bytes": b"\xed\xa0\xbd\xed\xb8\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "latin-1": "café".encode("latin-1"),
        "utf-16 without a byte order mark, not of ASCII": "é".encode("utf-16-be") + b"\xff",
        "utf-16 of half a unit": "red".encode("utf-16") + b"d",
        "utf-16 of half a surrogate pair": b"\xff\xfe\x3d\xd8",
        "utf-32": "red".encode("utf-32"),
        "bytes that never occur": b"red\xfe\xff\xff\xfe",
        "a bad byte at the end": b"red" * 1000 + b"\xff",
    }.items():
        yield text(f"invalid: {name}", content, MALFORMED if "half a" in name and "16" in name else UNDECODABLE)
    yield text("utf-16 with a byte order mark", "red".encode("utf-16"), OK)
    yield text("20,001 letters", b"r" * 20_001, TOO_LARGE)
    yield text("20,000 combining marks", ("\u0301\u0327" * 10_000).encode(), TOO_LARGE)
    yield text("257 combining marks", ("e" + "\u0301" * 257).encode(), TOO_LARGE)
    yield text("1 MB of combining marks", ("\u0301" * 500_000).encode(), TOO_MANY_BYTES)
    yield text("one byte too many", b"r" * (256 * 1024 + 1), TOO_MANY_BYTES)


# --- JSON ---


def encodings() -> Iterator[Upload]:
    """Base64 and data: URIs, valid and invalid."""
    good = base64.b64encode(png()).decode()
    for name, content in {
        "in lines": "\r\n".join(good[at : at + 20] for at in range(0, len(good), 20)),
        "with blanks around": f" \t{good}\n",
        "as a data: URI": f"data:image/png;base64,{good}",
        "as a data: URI of another type": f"data:text/html;charset=utf-8;base64,{good}",
        "as a data: URI in capitals": f"DATA:;BASE64,{good}",
        "of a jpeg that is declared as png": "data:image/png;base64," + base64.b64encode(SAMPLES["jpeg"]).decode(),
        "in the URL-safe alphabet": base64.urlsafe_b64encode(png()).decode(),
        "without its padding": good.rstrip("="),
        "in indented lines": "\n    ".join(good[at : at + 20] for at in range(0, len(good), 20)),
        "percent-encoded": quote(good, safe=""),
        "as a percent-encoded data: URI": "data:image/png;base64," + quote(good, safe=""),
        "as a data: URI that is percent-encoded as a whole": quote("data:image/png;base64," + good, safe=""),
        "as a data: URI with a file's name": f"data:image/png;name=a.png;base64,{good}",
        "as a data: URI with a parameter after base64": f"data:image/png;base64;name=a.png,{good}",
        "omitted in a percent-encoded data: URI": "data:image/png," + quote(png()),
    }.items():
        yield document(f"base64 {name}", {"image": content}, OK)
    for name, content in {
        "with a letter for its padding": good.rstrip("=") + "A",
        "with one letter more": good.rstrip("=") + "AAAAA",
        "padded in the middle": "AA==" + good,
        "of padding alone": "====",
        "of both alphabets": "_-+/" + good,
        "with blanks for its pluses": good[:9] + " " + good[10:],
        "with bits after its end": "QR==",
        "with half of its padding": "QQ=",
        "with too much padding": "QUJD=",
        "percent-encoded twice": quote(quote("data:image/png;base64,+" + good, safe=""), safe=""),
        "with half of an escape": good[:8] + "%4",
        "as a data: URI of 1 MB of parameters": "data:" + ";" * 1_000_000 + "," + good,
        "with a NUL": good[:8] + "\x00" + good[8:],
        "with a quote": good[:8] + '"' + good[8:],
        "with a letter of another alphabet": "é" + good,
        "with full-width letters": "ＡＡＡＡ",
        "with a wide space": good[:8] + "\u3000" + good[8:],
        "in hexadecimal": "0x89504e47",
        "as a data: URI without base64": "data:image/png," + good,
        "as a data: URI without a comma": "data:image/png;base64" + good,
        "as an empty data: URI": "data:",
    }.items():
        yield document(f"base64 {name}", {"image": content}, MALFORMED)
    for name, content in {"as an address": "http://127.0.0.1/a.png", "as a path": "file:///etc/passwd"}.items():
        yield document(f"base64 {name}", {"image": content}, URL)
    yield document("base64 in the URL-safe alphabet of no image", {"image": "_-_-"}, UNSUPPORTED)
    yield document("6 MB of percent escapes without base64", {"image": "data:," + "%00" * 2_000_000}, UNSUPPORTED)
    yield document("empty base64", {"image": ""}, UNDECODABLE)
    yield document("base64 of blanks", {"image": " \n"}, UNDECODABLE)
    yield document("base64 as a data: URI without data", {"image": "data:;base64,"}, UNDECODABLE)
    yield document("base64 of no image", {"image": "bm90IGFuIGltYWdl"}, UNSUPPORTED)
    yield document("base64 of base64", {"image": base64.b64encode(good.encode()).decode()}, UNSUPPORTED)
    yield document("base64 of 11 MB", {"image": "A" * 15_000_000}, TOO_MANY_BYTES)


def documents() -> Iterator[Upload]:
    """JSON, valid and invalid."""
    for name, content in {
        "nothing": b"",
        "blanks": b" \n",
        "words": b"red",
        "a cut-off object": b'{"text": "red"',
        "a cut-off string": b'{"text": "red',
        "a cut-off escape": b'{"text": "red\\',
        "a bad escape": b'{"text": "\\x41"}',
        "a bad number of an escape": b'{"text": "\\u12G4"}',
        "an extra comma": b'{"text": "red",}',
        "a missing comma": b'{"text": "red" "top_k": 1}',
        "single quotes": b"{'text': 'red'}",
        "no quotes": b'{text: "red"}',
        "a comment": b'{"text": "red"} // comment',
        "two objects": b'{"text": "red"}{"text": "red"}',
        "a trailing byte": b'{"text": "red"}\x00',
        "a line break in a string": b'{"text": "r\ned"}',
        "a NUL in a string": b'{"text": "r\x00ed"}',
        "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"text": "red"}',
        "a byte order mark alone": b"\xef\xbb\xbf",
        "utf-16": '{"text": "red"}'.encode("utf-16"),
        "utf-16 without a byte order mark": '{"text": "red"}'.encode("utf-16-le"),
        "utf-32": '{"text": "red"}'.encode("utf-32"),
        "latin-1": '{"text": "café"}'.encode("latin-1"),
        "an overlong sequence": b'{"text": "\xc0\xaf"}',
        "half of a surrogate pair": b'{"text": "\\ud800"}',
        "the other half": b'{"text": "\\udc00 red"}',
        "halves in the wrong order": b'{"text": "\\udc00\\ud800"}',
        "half of a pair in a field's name": b'{"\\ud800": 1}',
        "half of a pair in the model's name": b'{"text": "red", "model": "\\ud83d"}',
        "half of a pair in an image": b'{"image": "\\ud83d"}',
        "a surrogate pair in bytes": b'{"text": "\xed\xa0\xbd\xed\xb8\x80"}',
        "NaN": b'{"text": "red", "threshold": NaN}',
        "Infinity": b'{"text": "red", "threshold": Infinity}',
        "minus Infinity": b'{"text": "red", "threshold": -Infinity}',
        "a leading zero": b'{"text": "red", "top_k": 01}',
        "a plus": b'{"text": "red", "top_k": +1}',
        "a bare point": b'{"text": "red", "threshold": .5}',
        "a hexadecimal number": b'{"text": "red", "top_k": 0x1}',
        "a number of 10,000 digits": b'{"top_k": ' + b"9" * 10_000 + b"}",
        "a list": b'["red"]',
        "a string": b'"red"',
        "a number": b"7",
        "null": b"null",
        "17 lists": b'{"text": ' + b"[" * 16 + b"]" * 16 + b"}",
        "100,000 lists in each other": b"[" * 100_000 + b"]" * 100_000,
        "100,000 objects in each other": b'{"a":' * 100_000 + b"0" + b"}" * 100_000,
        "lists that are never closed": b"[" * 1_000_000,
        "a million lists": b'{"text": [' + b"[]," * 1_000_000 + b"0]}",
        "a million objects": b'{"text": [' + b'{"a":0},' * 1_000_000 + b"0]}",
        "a million fields": b"{" + b",".join(b'"%x":0' % number for number in range(1_000_000)) + b"}",
        "a million strings": b'{"text": [' + b'"a",' * 1_000_000 + b"0]}",
        "a million strings without commas": b'"a"' * 1_000_000,
        "a million escaped quotes": b'{"text": "' + b'\\"' * 1_000_000,
    }.items():
        yield document(name, content, MALFORMED)
    for name, content, answer in (
        ("a field twice", b'{"text": "red", "text": "blue"}', REPEATED),
        ("a field twice, once escaped", b'{"text": "red", "\\u0074ext": "blue"}', REPEATED),
        ("a field twice in the text", b'{"text": {"b": 1, "b": 2}}', REPEATED),
        ("a field twice deep inside", b'{"text": {"a": {"b": 1, "b": 2}}}', INVALID),
        ("half of a pair deep inside", b'{"text": [[{"a": "\\ud800"}]]}', INVALID),
        ("NaN deep inside", b'{"text": [[NaN]]}', INVALID),
        ("NaN in another field", b'{"text": "red", "colour": NaN}', UNKNOWN),
        ("a byte order mark", b'\xef\xbb\xbf{"text": "red"}', OK),
        ("a top_k of 1.0", b'{"text": "red", "top_k": 1.0}', OK),
        ("a top_k of 1e0", b'{"text": "red", "top_k": 1e0}', OK),
        ("a top_k of 1e-400", b'{"text": "red", "top_k": 1e-400}', INVALID),
        ("a top_k of −0.0", b'{"text": "red", "top_k": -0.0}', INVALID),
        ("a top_k of 1e308", b'{"text": "red", "top_k": 1e308}', INVALID),
        ("a threshold of true", b'{"text": "red", "threshold": true}', INVALID),
        ("a threshold of 10⁴⁰⁰", b'{"text": "red", "threshold": ' + b"9" * 400 + b"}", INVALID),
        ("another field", b'{"text": "red", "colour": 1}', UNKNOWN),
        ("a field in capitals", b'{"TEXT": "red"}', UNKNOWN),
        ("a field with a NUL", b'{"text\\u0000": "red"}', UNKNOWN),
        ("a field without a name", b'{"": "red"}', UNKNOWN),
        ("a field with a Python name", b'{"__class__": "red"}', UNKNOWN),
        ("a field's name of 100,000 letters", b'{"' + b"a" * 100_000 + b'": 1}', UNKNOWN),
        ("an empty object", b"{}", NOTHING),
        ("nulls", b'{"text": null, "image": null}', NOTHING),
        ("an escaped NUL in the text", b'{"text": "\\u0000"}', UNDECODABLE),
        ("a whole surrogate pair", b'{"text": "\\ud83d\\ude00 red"}', OK),
        ("16 lists", b'{"text": ' + b"[" * 15 + b"]" * 15 + b"}", INVALID),
        ("brackets in a text", b'{"text": "' + b"[{" * 5000 + b'"}', OK),
        ("quotes and brackets in a text", b'{"text": "' + b'\\"[' * 5000 + b'"}', OK),
        ("commas in a text", b'{"text": "' + b"," * 20_000 + b'"}', OK),
        ("blanks around", b"\r\n\t" + b" " * 100_000 + b'{"text": "red"}', OK),
        ("a text that is a number", b'{"text": 7}', INVALID),
        ("a text that is a list", b'{"text": ["red"]}', INVALID),
        ("a text that is an object", b'{"text": {"a": "b"}}', INVALID),
        ("an image that is true", b'{"image": true}', INVALID),
        ("a top_k that is true", b'{"text": "red", "top_k": true}', INVALID),
        ("a top_k that is a string", b'{"text": "red", "top_k": "1"}', INVALID),
        ("a top_k of 0", b'{"text": "red", "top_k": 0}', INVALID),
        ("a top_k of −1", b'{"text": "red", "top_k": -1}', INVALID),
        ("a top_k of 1.5", b'{"text": "red", "top_k": 1.5}', INVALID),
        ("a top_k of 10⁴⁰", b'{"text": "red", "top_k": ' + b"9" * 40 + b"}", INVALID),
        ("a top_k of 1e400", b'{"text": "red", "top_k": 1e400}', INVALID),
        ("a threshold of 1e400", b'{"text": "red", "threshold": 1e400}', INVALID),
        ("a threshold of −1", b'{"text": "red", "threshold": -1}', INVALID),
        ("a threshold of −0", b'{"text": "red", "threshold": -0.0}', OK),
        ("a threshold of 1e-400", b'{"text": "red", "threshold": 1e-400}', OK),
        ("another model", b'{"text": "red", "model": "../toy"}', "404 unknown_model"),
        ("a model of 100,000 letters", b'{"text": "red", "model": "' + b"a" * 100_000 + b'"}', "404 unknown_model"),
        ("a model without a name", b'{"text": "red", "model": ""}', "404 unknown_model"),
        ("a text of 300 KB", b'{"text": "' + b"a" * 300_000 + b'"}', TOO_MANY_BYTES),
        ("a body of 21 MB", b" " * (21 * 2**20), TOO_MANY_BYTES),
    ):
        yield document(name, content, answer)


# --- forms ---


def forms() -> Iterator[Upload]:
    """multipart/form-data, valid and invalid."""
    disposition = b"Content-Disposition: form-data; name="
    for name, content, answer in (
        ("nothing", b"", MALFORMED),
        ("its end alone", END, NOTHING),
        ("words", b"what is this?", MALFORMED),
        ("line breaks alone", b"\r\n" * 1000, MALFORMED),
        ("words before it", b"words\r\n" + RED + END, MALFORMED),
        ("line breaks before it", b"\r\n\r\n" + RED + END, OK),
        ("trailing words", RED + END + b"words" * 1000, OK),
        ("another form after it", RED + END + RED + END, OK),
        ("no end", RED, MALFORMED),
        ("half of an end", RED + b"--frontier-", MALFORMED),
        ("another boundary", RED.replace(b"frontier", b"border") + b"--border--\r\n", MALFORMED),
        ("no line break after the boundary", b"--frontier" + RED[12:] + END, MALFORMED),
        ("line feeds alone", (RED + END).replace(b"\r\n", b"\n"), MALFORMED),
        ("no headers", b"--frontier\r\n\r\nred\r\n" + END, UNKNOWN),
        ("no disposition", red_form(b"Content-Type: text/plain"), UNKNOWN),
        ("a disposition without a name", red_form(b"Content-Disposition: form-data"), UNKNOWN),
        ("another disposition", red_form(b'Content-Disposition: attachment; name="text"'), OK),
        ("a name without quotes", red_form(disposition + b"text"), OK),
        ("a name with an open quote", red_form(disposition + b'"text'), UNKNOWN),
        ("an empty name", red_form(disposition + b'""'), UNKNOWN),
        ("a name with a NUL", red_form(disposition + b'"text\x00"'), UNKNOWN),
        ("a name that is no UTF-8", red_form(disposition + b'"\xff\xfe"'), UNKNOWN),
        ("a name in capitals", red_form(disposition + b'"TEXT"'), UNKNOWN),
        ("a name of 3000 letters", red_form(disposition + b'"' + b"a" * 3000 + b'"'), UNKNOWN),
        ("a name as in RFC 2231", red_form(b"Content-Disposition: form-data; name*=utf-8''text"), UNKNOWN),
        ("a name in pieces as in RFC 2231", red_form(b'Content-Disposition: form-data; name*0="te"; name*1="xt"'), UNKNOWN),
        ("two names", red_form(disposition + b'"text"; name="image"'), REPEATED),
        ("two dispositions", red_form(disposition + b'"image"\r\n' + disposition + b'"text"'), REPEATED),
        ("a header without a colon", red_form(disposition + b'"text"\r\nwords'), MALFORMED),
        ("a header without a name", red_form(disposition + b'"text"\r\n: words'), MALFORMED),
        ("a header with a blank in its name", red_form(disposition + b'"text"\r\na b: c'), MALFORMED),
        ("a folded header", red_form(b"Content-Disposition: form-data;\r\n name=text"), MALFORMED),
        ("8 headers", red_form(disposition + b'"text"' + b"\r\na: b" * 7), OK),
        ("9 headers", red_form(disposition + b'"text"' + b"\r\na: b" * 8), MALFORMED),
        ("100,000 headers", red_form(disposition + b'"text"' + b"\r\na: b" * 100_000), MALFORMED),
        ("a header of 5000 bytes", red_form(disposition + b'"text"\r\na: ' + b"b" * 5000), MALFORMED),
        ("a header of 10 MB", red_form(disposition + b'"text"\r\na: ' + b"b" * 10_000_000), MALFORMED),
        ("a header's name of 5000 bytes", red_form(disposition + b'"text"\r\n' + b"a" * 5000 + b": b"), MALFORMED),
        ("a header that never ends", b"--frontier\r\n" + b"a" * 1_000_000, MALFORMED),
        ("the same field twice", RED + RED + END, REPEATED),
        ("10,000 fields", RED * 10_000 + END, REPEATED),
        ("10,000 different fields", b"".join(form_field(f"f{n}", b"") for n in range(10_000)) + END, UNKNOWN),
        ("another field", RED + form_field("colour", b"red") + END, UNKNOWN),
        (
            "a form within",
            raw_field(
                b"Content-Disposition: form-data; name=text\r\nContent-Type: multipart/mixed; boundary=b",
                b"--b\r\n\r\nred\r\n--b--",
            )
            + END,
            UNSUPPORTED_TYPE,
        ),
        *(
            (f"{name} by its header", raw_field(disposition + b'"text"\r\n' + header, content) + END, answer)
            for name, header, content, answer in (
                ("base64", b"Content-Transfer-Encoding: base64", b"cmVk", OK),
                ("invalid base64", b"Content-Transfer-Encoding: base64", b"r%64", MALFORMED),
                ("quoted-printable", b"Content-Transfer-Encoding: quoted-printable", b"=72=65=\r\n=64", OK),
                ("invalid quoted-printable", b"Content-Transfer-Encoding: quoted-printable", b"r=ZZ", MALFORMED),
                ("1 MB of soft line breaks", b"Content-Transfer-Encoding: quoted-printable", b"=\r\n" * 350_000, NOTHING),
                ("1 MB of base64", b"Content-Transfer-Encoding: base64", b"cmVk" * 250_000, TOO_MANY_BYTES),
                ("another transfer encoding", b"Content-Transfer-Encoding: x-uuencode", b"red", UNSUPPORTED_TYPE),
                ("utf-16", b"Content-Type: text/plain; charset=utf-16", "red".encode("utf-16"), OK),
                ("latin-1", b"Content-Type: text/plain; charset=iso-8859-1", b"red \xe9", OK),
                ("a Python codec as charset", b"Content-Type: text/plain; charset=unicode_escape", b"red", UNSUPPORTED_TYPE),
                ("a charset with a NUL", b"Content-Type: text/plain; charset=utf\x00", b"red", UNSUPPORTED_TYPE),
                ("a charset of 3000 letters", b"Content-Type: text/plain; charset=" + b"a" * 3000, b"red", UNSUPPORTED_TYPE),
                ("two charsets", b"Content-Type: text/plain; charset=utf-8; charset=utf-16", b"red", REPEATED),
                ("1000 open quotes", b"Content-Type: text/plain" + b';a="\\' * 800, b"red", REPEATED),
                ("JSON", b"Content-Type: application/json", b'"red"', OK),
                ("deep JSON", b"Content-Type: application/json", b"[" * 100_000, MALFORMED),
                ("gzip", b"Content-Encoding: gzip", b"red", UNSUPPORTED_TYPE),
            )
        ),
        ("a charset for all", form_field("_charset_", b"utf-16") + form_field("text", "red".encode("utf-16")) + END, OK),
        ("an unknown charset for all", RED + form_field("_charset_", b"rot13") + END, UNSUPPORTED_TYPE),
        ("two charsets for all", form_field("_charset_", b"utf-8") * 2 + RED + END, REPEATED),
        ("a line break in a file's name", form_field("image", png(), '; filename="a\r\nSet-Cookie: b=c"') + END, OK),
        ("an escaped line break in a file's name", form_field("image", png(), '; filename="a%0D%0ASet-Cookie: b=c"') + END, OK),
        ("a path for a file's name", form_field("image", png(), '; filename="../../../etc/passwd\x00.png"') + END, OK),
        ("a file's name of 3000 letters", form_field("image", png(), f'; filename="{"a" * 3000}"') + END, OK),
        ("a file's name as in RFC 2231", form_field("image", png(), "; filename*=utf-8''a%00b.png") + END, OK),
        ("no file chosen", form_field("image", b"", '; filename=""') + RED + END, OK),
        ("an empty file", form_field("image", b"", '; filename="a.png"') + RED + END, UNDECODABLE),
        ("an empty file as in RFC 2231", form_field("image", b"", "; filename*=utf-8''a.png") + RED + END, UNDECODABLE),
        ("an empty file in base64", encoded_file("base64", b"") + RED + END, UNDECODABLE),
        ("an image in base64", encoded_file("base64", base64.encodebytes(png())) + END, OK),
        ("an image in quoted-printable", encoded_file("quoted-printable", binascii.b2a_qp(png(), istext=False)) + END, OK),
        ("12 MB of base64", encoded_file("base64", b"AAAA" * 4_000_000) + END, TOO_MANY_BYTES),
        ("an image of 11 MB", form_field("image", b"a" * 11_000_000, '; filename="a"') + END, TOO_MANY_BYTES),
        ("an option of 2000 bytes", RED + form_field("model", b"a" * 2000) + END, TOO_MANY_BYTES),
        ("a top_k of words", RED + form_field("top_k", b"two") + END, INVALID),
        ("a top_k that is no UTF-8", RED + form_field("top_k", b"\xff") + END, INVALID),
        ("a top_k in other digits", RED + form_field("top_k", "١".encode()) + END, INVALID),
        *((f"a top_k of {number.decode()}", RED + form_field("top_k", number) + END, OK) for number in (b"1.0", b"1e0")),
        *(
            (f"a top_k of {number!r}", RED + form_field("top_k", number) + END, INVALID)
            for number in (b"1_0", b" 1", b"1\r\n", b"+1", b"01", b"1.", b"true", b"1e400", b"-0", b"1.5")
        ),
        ("a threshold of .5", RED + form_field("threshold", b".5") + END, INVALID),
        ("a top_k of 900 digits", RED + form_field("top_k", b"9" * 900) + END, INVALID),
        ("a threshold of nan", RED + form_field("threshold", b"nan") + END, INVALID),
        ("a threshold of 0x1", RED + form_field("threshold", b"0x1") + END, INVALID),
        ("a model of nothing", RED + form_field("model", b"") + END, OK),
        ("a boundary in an image", form_field("image", png() + b"\r\n--frontier") + END, MALFORMED),
        ("1 MB of almost boundaries", form_field("image", b"\r\n--frontie" * 90_000, '; filename="a"') + END, UNSUPPORTED),
    ):
        yield form(name, content, answer)


def content_types() -> Iterator[Upload]:
    """Bodies with another Content-Type or none."""
    good = RED + END
    for declared, answer in {
        None: UNSUPPORTED_TYPE,
        "": UNSUPPORTED_TYPE,
        "/": UNSUPPORTED_TYPE,
        "multipart": UNSUPPORTED_TYPE,
        "multipart/mixed; boundary=frontier": UNSUPPORTED_TYPE,
        "multipart/form-datas; boundary=frontier": UNSUPPORTED_TYPE,
        "application/x-www-form-urlencoded": UNSUPPORTED_TYPE,
        "text/plain": UNSUPPORTED_TYPE,
        "image/png": UNSUPPORTED_TYPE,
        "application/octet-stream": UNSUPPORTED_TYPE,
        "*/*": UNSUPPORTED_TYPE,
        "a" * 5000: UNSUPPORTED_TYPE,
        "multipart/form-data": MALFORMED,
        "multipart/form-data; boundary=": MALFORMED,
        "multipart/form-data; boundary=border": MALFORMED,
        "multipart/form-data; boundary=" + "a" * 257: MALFORMED,
        "multipart/form-data; charset=utf-8": MALFORMED,
        'multipart/form-data; boundary="frontier"': OK,
        "Multipart/Form-Data; BOUNDARY=frontier": OK,
        "multipart/form-data;boundary=frontier; charset=utf-8": OK,
        "multipart/form-data;boundary=frontier; charset=utf-16": MALFORMED,  # three bytes are not
        "multipart/form-data;boundary=frontier; charset=rot13": UNSUPPORTED_TYPE,
        "multipart/form-data; boundary=frontier; boundary=border": REPEATED,
    }.items():
        yield form(f"declared as {declared if declared is None else declared[:60]!r}", good, answer, declared)
    for declared, answer in {
        "application/json; charset=utf-8": OK,
        'application/json;charset="UTF-8"': OK,
        "application/json; charset=us-ascii": OK,
        "application/json; charset=": OK,
        "application/json; charset=utf-16": UNSUPPORTED_TYPE,  # RFC 8259: JSON is UTF-8
        "application/json; charset=iso-8859-1": UNSUPPORTED_TYPE,
        "application/json; charset=utf-8; charset=utf-8": REPEATED,
        "APPLICATION/JSON": OK,
        "text/json": UNSUPPORTED_TYPE,
        "application/json-patch+json": UNSUPPORTED_TYPE,
        "application/xml": UNSUPPORTED_TYPE,
        "application/json, text/plain": UNSUPPORTED_TYPE,
    }.items():
        yield document(f"declared as {declared}", {"text": "red"}, answer, declared)
    yield document("a form declared as JSON", good, MALFORMED)
    yield form("JSON declared as a form", b'{"text": "red"}', MALFORMED)


IMAGES = (cut_off, signatures, sizes, pngs, jpegs, gifs, webps, bmps, tiffs, stills, strangers)
TEXTS_AND_BODIES = (texts, encodings, documents, forms, content_types)


def uploads() -> list[Upload]:
    """Return the whole catalogue; names are unique."""
    return list(chain.from_iterable(group() for group in (*IMAGES, *TEXTS_AND_BODIES)))
