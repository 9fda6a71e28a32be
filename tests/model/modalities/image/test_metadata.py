"""Metadata and later frames are stripped, expensive files are rejected, and pixels and memory are as expected."""

import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from polymodal.model.errors import InputError, Undecodable, UnsupportedFormat
from polymodal.model.modalities.image.formats import sniff
from polymodal.model.modalities.image.input import FORMATS, TURNS, WHITE, ImageInput
from polymodal.model.modalities.image.metadata import (
    MOST_PIECES,
    MOST_SCANS,
    MOST_SEGMENTS,
    orientation,
    strip_metadata,
)
from tests.hostile import images, uploads
from tests.hostile.images import (
    RATIONAL,
    SHORT,
    apng,
    bitstream,
    bmp,
    chunk,
    gif,
    jpeg_of_scans,
    jpeg_with,
    png,
    riff,
    saved,
    segment,
    solid,
    tiff,
    tiff_deflated,
    tiff_pages,
    tiff_strips,
    tiff_tiles,
    vp8x,
    webp,
    webp_animation,
)

ROOT = Path(__file__).parents[4]
SIDE = 32
INPUT = ImageInput(side=SIDE)
MANY = 1_000_000


def grain(size, channels, dtype=np.uint8):
    shape = (size[1], size[0], *([channels] if channels > 1 else []))
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def with_transparency(mode, size):
    image = Image.fromarray(grain(size, 1)).convert(mode)
    image.info["transparency"] = 200 if mode == "P" else 77
    return image


SOURCES = {
    "1": lambda size: Image.fromarray(grain(size, 1)).convert("1"),
    "L": lambda size: Image.fromarray(grain(size, 1)),
    "L-with-a-transparent-shade": partial(with_transparency, "L"),
    "P": lambda size: Image.fromarray(grain(size, 3)).quantize(64),
    "P-with-a-transparent-colour": partial(with_transparency, "P"),
    "LA": lambda size: Image.fromarray(grain(size, 4)).convert("LA"),
    "RGB": lambda size: Image.fromarray(grain(size, 3)),
    "RGBA": lambda size: Image.fromarray(grain(size, 4)),
    "I;16": lambda size: Image.fromarray(grain(size, 1, np.uint16)),
}
OTHERS = {
    "CMYK": lambda size: Image.fromarray(grain(size, 4), "CMYK"),
    "I": lambda size: Image.fromarray(grain(size, 1, np.uint16).astype(np.int32)),
    "F": lambda size: Image.fromarray(grain(size, 1).astype(np.float32)),
}


def decoded_whole(image, turn):
    """Decode the whole image at once instead of in bands: turn, convert, reduce, put on white."""
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65_535) >> 8).astype(np.uint8))
    transparent = image.has_transparency_data
    image = image.convert("RGBA" if transparent else "RGB")
    if (factor := max(image.size) // (8 * SIDE)) > 1:
        image = image.reduce(factor)
    if transparent:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")
    return np.asarray(image)


@pytest.mark.parametrize("size", [(7, 5), (1, 1500), (1501, 1103)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("mode", [*SOURCES, *OTHERS])
def test_bands_have_the_pixels_of_the_whole_image(monkeypatch, mode, size):
    monkeypatch.setattr("polymodal.model.modalities.image.input.BAND_PIXELS", 10_000)
    image = (SOURCES | OTHERS)[mode](size)
    content = saved(image, "TIFF" if mode in OTHERS else "PNG")
    opened = Image.open(io.BytesIO(content))
    assert (INPUT.decode(content) == decoded_whole(opened, None)).all()


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("size", [(40, 30), (1501, 1103)], ids=["small", "reduced"])
def test_bands_of_a_turned_image_have_the_pixels_of_the_whole_image(monkeypatch, size, turned):
    monkeypatch.setattr("polymodal.model.modalities.image.input.BAND_PIXELS", 10_000)
    image = SOURCES["RGBA"](size)
    exif = Image.Exif()
    exif[0x0112] = turned
    expected = decoded_whole(image, TURNS.get(turned))
    assert (INPUT.decode(saved(image, "PNG", exif=exif)) == expected).all()
    assert (INPUT.decode(saved(image, "TIFF", tiffinfo={0x0112: turned})) == expected).all()


# --- later frames ---


@pytest.mark.parametrize(
    ("animation", "alone"),
    [
        pytest.param(gif(), saved(solid("P"), "GIF"), id="gif"),
        pytest.param(apng(3000), png(), id="apng"),
        pytest.param(webp_animation(3000), webp_animation(1), id="webp"),
        pytest.param(tiff_pages(3000), tiff(), id="tiff"),
    ],
)
def test_only_the_first_of_thousands_of_frames_reaches_a_decoder(animation, alone):
    if sniff(animation) == "image/gif":  # its frames come last, and Pillow stops behind the first
        animation = alone[:-1] + b"\x2c\xff\xff\xff\xff" * 3000
    stripped = strip_metadata(sniff(animation), animation).content
    assert sum(stripped.count(frame) for frame in (b"fdAT", b"fcTL", b"ANMF")) <= 1
    assert (INPUT.decode(animation) == INPUT.decode(alone)).all()


def test_later_pages_of_a_tiff_are_stripped():
    content = strip_metadata("image/tiff", tiff_pages(20)).content
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 1


@pytest.mark.parametrize("disposal", [0, 1, 2, 3, 7])
def test_the_disposal_of_a_gifs_first_frame_is_stripped(disposal):
    content = gif((9_000, 9_000), disposal=disposal)
    assert strip_metadata("image/gif", content) == strip_metadata("image/gif", gif((9_000, 9_000)))


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_one_frame_is_decoded(monkeypatch, name):
    later = [Image.new("RGB", (16, 12), colour) for colour in ("lime", "blue")]
    content = saved(Image.new("RGB", (16, 12), "red"), name, save_all=True, append_images=later)
    monkeypatch.setattr(FORMATS[sniff(content)], "seek", lambda self, frame: pytest.fail("another frame was read"))
    assert INPUT.decode(content).shape == (12, 16, 3)


# --- metadata ---


def numbers(count):
    """Return EXIF whose orientation is this many fractions."""
    entry = struct.pack("<HHHII", 1, 0x0112, 5, count, 26) + bytes(4)
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + entry + b"\x01\x02\x03\x04\x05\x06\x07\x08" * count


BALLAST = {
    "jpeg-exif": jpeg_with(segment(0xE1, numbers(8000))),
    "jpeg-of-icc": jpeg_with(b"".join(segment(0xE2, b"ICC_PROFILE\x00%c\xff" % n + bytes(60_000)) for n in range(255))),
    "jpeg-fill-bytes": jpeg_with(b"\xff" * MANY),
    "png-exif": png(before=chunk(b"eXIf", numbers(MANY // 8)[6:])),
    "png-text": png(before=chunk(b"zTXt", b"a\x00\x00" + images.zeros(2 * MANY))),
    "png-texts": png(before=chunk(b"iTXt", b"a\x00\x01\x00\x00\x00" + zlib.compress("🌊".encode() * 200_000)) * 60),
    "png-profile": png(before=chunk(b"iCCP", b"a\x00\x00" + images.zeros(2 * MANY))),
    "png-text-after-the-pixels": png(after=chunk(b"tEXt", b"a\x00" + bytes(MANY))),
    "webp-exif": webp(vp8x((2, 2), 8), bitstream(lossless=True), riff(b"EXIF", numbers(MANY // 8))),
    "webp-xmp": webp(vp8x((2, 2), 4), bitstream(lossless=True), riff(b"XMP ", bytes(MANY))),
    "webp-profile": webp(vp8x((2, 2), 32), riff(b"ICCP", bytes(MANY)), bitstream(lossless=True)),
    "gif-comment": saved(solid("P"), "GIF", comment=b"x" * MANY),
}


@pytest.mark.parametrize("name", BALLAST)
def test_metadata_is_stripped(name):
    content = BALLAST[name]
    assert len(strip_metadata(sniff(content), content).content) < 5000
    assert INPUT.decode(content).shape in ((12, 16, 3), (2, 2, 3))


def test_tags_that_no_pixel_depends_on_are_stripped():
    tags = {tag: (RATIONAL, bytes(8) * 3000) for tag in (282, 283, 34665, 40000)}
    content = tiff(tags={**tags, 700: (1, b"<" * 1000), **{tag: (SHORT, [1]) for tag in range(50_000, 60_000)}})
    with Image.open(io.BytesIO(strip_metadata("image/tiff", content).content)) as image:
        assert set(image.tag_v2) == {256, 257, 258, 259, 262, 273, 277, 278, 279}
    assert INPUT.decode(content).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(jpeg_with(segment(0xE5) * MOST_SEGMENTS), f"more than {MOST_SEGMENTS} segments", id="segments"),
        pytest.param(jpeg_with(segment(0xC0, bytes(15)) * 2), "a second frame", id="two-frames"),
        pytest.param(jpeg_with(segment(0xC0, bytes(60))), "more than four components", id="components"),
        pytest.param(jpeg_with(segment(0xDB, bytes(65_000))), "more than four tables", id="quantisers"),
        pytest.param(jpeg_of_scans(MOST_SCANS, (16, 16)), f"more than {MOST_SCANS} scans", id="scans"),
        pytest.param(png(before=chunk(b"tEXt") * MOST_PIECES), f"more than {MOST_PIECES:,} chunks", id="png-chunks"),
        pytest.param(webp(*[riff(b"JUNK", b"")] * MOST_PIECES), "more than 65,536 chunks", id="webp-chunks"),
        pytest.param(
            gif()[:19] + b"\x21\xfe" + b"\x01a" * MOST_PIECES + b"\x00\x3b", "more than 65,536 blocks", id="gif-blocks"
        ),
        pytest.param(gif()[:19] + b"\x21\xfe\x00" * MOST_PIECES, "no image in its first", id="gif-extensions"),
        pytest.param(tiff(tags={273: (4, [8] * 65_537)}), "tag 273 with 65,537 values", id="tiff-strips"),
        pytest.param(
            tiff_strips(2000, bytes(10_000)), "strips or tiles of 20,000,000 bytes", id="tiff-strips-that-overlap"
        ),
        pytest.param(tiff(tags={256: (RATIONAL, bytes(8 * 17))}), "tag 256 with 17 values", id="tiff-width"),
    ],
)
def test_a_file_that_would_keep_a_decoder_busy_is_rejected(content, reason):
    with pytest.raises(Undecodable) as caught:
        INPUT.decode(content)
    assert reason in caught.value.__notes__[0]


def test_scans_of_one_component_are_counted_in_a_sequential_jpeg_too():
    content = uploads.SAMPLES["jpeg"]
    scan = content.index(b"\xff\xda")
    one = uploads.edited(content[scan:-2], 4, b"\x01")
    with pytest.raises(ValueError, match="more than 100 scans"):
        strip_metadata("image/jpeg", content[:scan] + one * 101)


def test_scans_after_the_only_one_of_a_jpeg_are_rejected_by_its_decoder():
    content = uploads.SAMPLES["jpeg"]
    scans = content[content.index(b"\xff\xda") : -2] * 1000
    with pytest.raises(Undecodable, match="truncated or corrupt"):
        INPUT.decode(content[:-2] + scans + b"\xff\xd9")


def test_the_allowed_number_of_scans_is_decoded():
    assert INPUT.decode(jpeg_of_scans(MOST_SCANS - 1, (16, 16))).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(bmp(compression=1), "image/bmp compressed by method 1", id="bmp-run-lengths"),
        pytest.param(
            bmp(compression=2, bits=4, colours=16), "image/bmp compressed by method 2", id="bmp-run-lengths-4"
        ),
        *(
            pytest.param(tiff(tags={259: (SHORT, [number])}), f"image/tiff compressed by method {name}", id=name)
            for number, name in ((6, "tiff_jpeg"), (34925, "lzma"), (50000, "zstd"), (50001, "webp"))
        ),
    ],
)
def test_other_compressions_within_a_format_are_rejected(content, problem):
    with pytest.raises(UnsupportedFormat, match="compression by none") as caught:
        INPUT.decode(content)
    assert caught.value.found == problem


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_the_compressions_of_scanners_are_read(compression):
    image = SOURCES["RGB"]((40, 30))
    pixels = INPUT.decode(saved(image, "TIFF", compression=compression))
    assert pixels.shape == (30, 40, 3)
    assert compression == "jpeg" or (pixels == np.asarray(image)).all()


@pytest.mark.parametrize("rows", [1, 3, 12, 100])
def test_a_tiff_in_strips_has_the_pixels_of_one_without(rows):
    image = SOURCES["RGB"]((40, 30))
    for compression in (None, "tiff_lzw"):
        content = saved(image, "TIFF", compression=compression, tiffinfo={278: rows})
        assert (INPUT.decode(content) == np.asarray(image)).all()


def test_a_tile_larger_than_any_image_is_rejected():
    with pytest.raises(
        InputError, match=r"a strip or tile of 640,000,000 bytes; allowed: .* at most 200,000,000 bytes"
    ):
        INPUT.decode(tiff_tiles((64, 64), (40_000, 16_000)))


# --- orientation ---


@given(st.integers(0, 255), st.sampled_from([1, 3, 4, 9]), st.sampled_from("<>"), st.integers(0, 40))
def test_the_orientation_is_the_one_that_pillow_reads(value, kind, order, tags):
    letter = {1: "B", 3: "H", 4: "I", 9: "i"}[kind]
    entries = [struct.pack(order + "HHIHH", tag, 3, 1, 7, 0) for tag in range(300, 300 + tags)]
    entries.append(struct.pack(f"{order}HHI{letter}", 0x0112, kind, 1, value).ljust(12, b"\x00"))
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "IH", 8, len(entries))
    exif = head + b"".join(entries) + bytes(4)
    expected = Image.Exif()
    expected.load(b"Exif\x00\x00" + exif)
    assert TURNS.get(orientation(exif)) == TURNS.get(expected.get(0x0112))


@given(st.sampled_from([b"", b"II*\x00", b"MM\x00*", b"Exif\x00\x00II*\x00"]), st.binary(max_size=80))
def test_any_bytes_of_exif_have_an_orientation(beginning, rest):
    assert 1 <= orientation(beginning + rest) <= 8


SAMPLES = [
    png(),
    gif(),
    tiff(),
    webp(bitstream()),
    webp_animation(2),
    apng(2),
    jpeg_with(b""),
    bmp(),
    tiff_pages(2),
    images.avif(),
    images.avif_grid([0, 9], 2, (100, 64)),
]


@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_file_is_stripped_or_rejected(content, data):
    damaged = bytearray(content)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(content)))])
    with suppress(ValueError):
        stripped = strip_metadata(sniff(content), damaged)
        assert len(stripped.content) <= max(len(damaged) + 6, 12)  # the end of a directory, the beginning of a WebP


@pytest.mark.parametrize("box", [b"pitm", b"iinf", b"iprp", b"iloc", b"ipco", b"ipma"])
def test_an_avif_that_lacks_a_box_is_rejected(box):
    content = images.avif()
    assert content.count(box) == 1
    with pytest.raises(ValueError, match="no box"):
        strip_metadata("image/avif", content.replace(box, b"free"))


@given(st.sampled_from(list(FORMATS)), st.binary(max_size=300))
@example("image/jpeg", b"\xff\xd8\xff\xe1")
@example("image/gif", b"GIF89a")
def test_any_bytes_are_stripped_or_rejected(media_type, content):
    with suppress(ValueError):
        assert strip_metadata(media_type, content).orientation in range(1, 9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", uploads.SAMPLES)
def test_a_file_with_a_flipped_bit_is_decoded_or_rejected(name):
    """Flips every bit of the first 24 bytes, then one of each byte."""
    content = uploads.SAMPLES[name]
    bits = [*range(8 * 24), *(8 * at + at % 8 for at in range(24, len(content)))]
    for bit in bits:
        flipped = uploads.edited(content, bit // 8, bytes([content[bit // 8] ^ 1 << bit % 8]))
        with suppress(InputError):
            pixels = INPUT.decode(flipped)
            assert (pixels.ndim, pixels.shape[2], pixels.dtype) == (3, 3, np.uint8)


# --- endings ---

ENDED = {
    "sequential": {},
    "progressive": {"progressive": True},
    "in restarts of 2 blocks": {"restart_marker_blocks": 2},
    "in restarts of a row": {"restart_marker_rows": 1},
    "grey": {"mode": "L"},
}


@pytest.mark.parametrize("name", ENDED)
def test_a_jpeg_without_its_end_marker_is_read_unless_a_pixel_is_missing(name):
    options = dict(ENDED[name])
    content = saved(SOURCES["RGB"]((40, 30)).convert(options.pop("mode", "RGB")), "JPEG", **options)
    whole = INPUT.decode(content)
    scans = content.index(b"\xff\xda")
    for following in (b"", b"\xff", bytes(50), b"<html>"):
        assert (INPUT.decode(content[:-2] + following) == whole).all()
    # The marker has two bytes, and the last byte of the data may only fill.
    for missing in range(4, len(content) - scans):
        with pytest.raises(Undecodable):
            INPUT.decode(content[:-missing])


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_after_a_jpeg_are_stripped(progressive):
    content = saved(SOURCES["RGB"]((40, 30)), "JPEG", progressive=progressive)
    video = b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda" * 500 + content + b"SEFT"
    assert strip_metadata("image/jpeg", content + video) == strip_metadata("image/jpeg", content)


def test_the_end_marker_of_a_thumbnail_does_not_end_the_image():
    thumbnail = segment(0xE1, b"Exif\x00\x00" + saved(solid(size=(8, 8)), "JPEG"))
    content = saved(SOURCES["RGB"]((40, 30)), "JPEG")
    assert (INPUT.decode(content[:2] + thumbnail + content[2:-2]) == INPUT.decode(content)).all()


def test_a_transparent_shade_of_a_png_has_the_bits_of_its_samples():
    for mode in ("L;2", "L;4", "I;16"):
        for shade, expected in ((0, 255), (1, 0)):
            content = png(mode=mode, before=chunk(b"tRNS", struct.pack(">H", shade)))
            assert (INPUT.decode(content) == expected).all(), mode


# --- memory ---


def heic(image):
    from pillow_heif import from_pillow

    content = io.BytesIO()
    from_pillow(image).save(content)
    return content.getvalue()


SIZE = (2896, 2160)  # 6.3 million pixels; memory grows with them
MEASURE = """
import json, os, resource, sys
from pathlib import Path
from polymodal.model.errors import InputError
from polymodal.model.modalities.image.input import ImageInput
image, unit = ImageInput(side=224), 1 if sys.platform == "darwin" else 1024
image.preprocess(image.decode(Path(sys.argv[1]).read_bytes()))  # imports and objects that are made once
for name in sys.argv[1:]:
    end, other = os.pipe()
    if not os.fork():  # a new process starts with little memory and has its own peak
        content = Path(name).read_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            image.preprocess(image.decode(content))
        except InputError as error:
            print(error, file=sys.stderr)
        os.write(other, str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit).encode())
        os._exit(0)
    print(json.dumps([Path(name).name, int(os.read(end, 100))]))
    os.wait()
"""
LARGE = {
    **{f"png-{mode}": partial(png, SIZE, mode) for mode in ("P", "I;16", "RGB", "RGBA;16", "LA")},
    "png-P-with-transparency": partial(png, SIZE, "P", before=chunk(b"tRNS", bytes(range(256)))),
    "png-interlaced": partial(png, SIZE, "RGBA", interlace=1),
    "jpeg": lambda: saved(solid(size=SIZE), "JPEG"),
    "jpeg-progressive": lambda: saved(solid(size=SIZE), "JPEG", progressive=True, subsampling=0),
    "jpeg-cmyk": lambda: saved(solid("CMYK", SIZE), "JPEG", progressive=True),
    "webp": lambda: saved(solid(size=SIZE), "WEBP", method=0),
    "webp-alpha": lambda: saved(solid("RGBA", SIZE, (0, 0, 0, 9)), "WEBP", method=0),
    "webp-animated": partial(webp_animation, 2, SIZE),
    "gif": lambda: saved(solid("P", SIZE), "GIF"),
    "bmp": partial(bmp, SIZE, bits=1, colours=2),
    **{f"tiff-{mode}": partial(tiff_deflated, SIZE, mode) for mode in ("RGBA", "I;16", "F", "planes")},
    "tiff-jpeg": lambda: saved(solid(size=SIZE), "TIFF", compression="jpeg"),
    "tiff-tiled": partial(tiff_tiles, SIZE, (2896, 2160)),
    "png-reduced": partial(png, (16_384, 386), "RGBA"),
    "tiff-turned": partial(tiff_deflated, SIZE, "RGB", tag274=6),
    "avif": lambda: saved(solid(size=SIZE), "AVIF", speed=10, subsampling="4:4:4"),
    "avif-alpha": lambda: saved(solid("RGBA", SIZE, (0, 0, 0, 9)), "AVIF", speed=10),
    **(
        {"heic": lambda: heic(solid(size=SIZE)), "heic-alpha": lambda: heic(solid("RGBA", SIZE))}
        if "image/heic" in FORMATS
        else {}
    ),
}
SLACK = 24 * 2**20  # bands, the reduced image and allocators
WEBP_BYTES, AVIF_BYTES, HEIC_BYTES, OTHER_BYTES = 13, 16, 20, 8.25
"""Most bytes of memory for each pixel, as docs/api.md states."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a forked process elsewhere may begin with its parent's peak")
def test_the_memory_for_an_image_is_limited_in_every_format_and_mode(tmp_path):
    for name, make in LARGE.items():
        (tmp_path / name).write_bytes(make())
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in LARGE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    measured = dict(map(json.loads, done.stdout.splitlines()))
    assert set(measured) == set(LARGE)
    assert max(measured.values()) > SIZE[0] * SIZE[1], "nothing was measured"
    pixels = SIZE[0] * SIZE[1]  # the reduced one has some more
    most = {"webp": WEBP_BYTES, "avif": AVIF_BYTES, "heic": HEIC_BYTES}
    allowed = {name: pixels * most.get(name[:4], OTHER_BYTES) + SLACK for name in LARGE}
    assert {name: size for name, size in measured.items() if size > allowed[name]} == {}


def test_the_memory_for_images_is_documented():
    documentation = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert (
        f"{OTHER_BYTES} bytes for each pixel, {WEBP_BYTES} in WebP, {AVIF_BYTES} in AVIF and {HEIC_BYTES} in HEIC"
        in documentation
    )


def test_metadata_takes_no_memory():
    def peak_mib():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

    bombs = [png(before=chunk(b"eXIf", numbers(MANY))), tiff(tags={282: (RATIONAL, bytes(8) * MANY)})]
    before = peak_mib()
    for content in bombs:
        assert INPUT.decode(content).shape == (12, 16, 3)
    assert peak_mib() - before < 64
