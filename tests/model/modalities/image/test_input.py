"""Images in every format, mode and orientation are decoded and fitted; anything else is rejected."""

import io
import resource
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from polymodal.model.errors import InputError, TooLarge, Undecodable, UnsupportedFormat
from polymodal.model.modalities.image.formats import BEGINNINGS as KNOWN
from polymodal.model.modalities.image.formats import sniff
from polymodal.model.modalities.image.input import FORMATS, TURNS, ImageInput, content_box
from tests.hostile.images import gif, png, saved, webp_animation

SIDE = 64
INPUT = ImageInput(side=SIDE)
RED = (204, 0, 51)  # of the palette that Pillow converts to, so that nothing is dithered


def solid(mode="RGB", colour=RED, size=(40, 30)):
    return Image.new("RGB", size, colour).convert(mode)


def drawing(size=(40, 30), background="white"):
    """Return an image with a different colour in each quarter, so that turning it changes it."""
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    width, height = size
    for column, row, colour in ((0, 0, "red"), (1, 0, "green"), (0, 1, "blue"), (1, 1, "black")):
        left, top = column * width // 2, row * height // 2
        draw.rectangle((left, top, left + width // 2 - 1, top + height // 2 - 1), fill=colour)
    return image


def assert_near(pixels, expected, tolerance=4.0):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected.astype(int)).mean() <= tolerance


def from_grey(values, dtype):
    return Image.fromarray(np.full((30, 40), values, dtype=dtype))


def png_16_bit_rgb(values):
    return png((40, 30), "RGB;16", rows=zlib.compress((b"\x00" + struct.pack(">3H", *values) * 40) * 30))


# --- accepted content ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(saved(solid(), "JPEG"), RED, id="jpeg"),
        pytest.param(saved(solid(), "JPEG", progressive=True), RED, id="jpeg-progressive"),
        pytest.param(saved(solid("L"), "JPEG"), (67, 67, 67), id="jpeg-grey"),
        pytest.param(saved(solid("CMYK"), "JPEG"), RED, id="jpeg-cmyk"),
        pytest.param(
            saved(solid(), "MPO", save_all=True, append_images=[solid(colour="blue")]),
            RED,
            id="jpeg-with-a-second-image",
        ),
        pytest.param(saved(solid(), "PNG"), RED, id="png"),
        pytest.param(saved(solid("P"), "PNG"), RED, id="png-palette"),
        pytest.param(saved(solid("RGBA"), "PNG"), RED, id="png-alpha"),
        pytest.param(saved(Image.new("LA", (40, 30), (200, 255))), (200, 200, 200), id="png-grey-alpha"),
        pytest.param(saved(Image.new("LA", (40, 30), (0, 0))), (255, 255, 255), id="png-grey-transparent"),
        pytest.param(saved(Image.new("RGBA", (40, 30), (0, 0, 0, 0))), (255, 255, 255), id="png-transparent-is-white"),
        pytest.param(saved(Image.new("RGBA", (40, 30), (255, 0, 0, 128))), (255, 127, 127), id="png-half-transparent"),
        pytest.param(saved(solid("P"), "PNG", transparency=bytes(256)), (255, 255, 255), id="png-palette-alpha"),
        pytest.param(saved(Image.new("1", (40, 30), 1)), (255, 255, 255), id="png-1-bit"),
        pytest.param(saved(from_grey(0x80FF, np.uint16)), (128, 128, 128), id="png-16-bit-grey"),
        pytest.param(png_16_bit_rgb((0xFF00, 0x8000, 0x00FF)), (255, 128, 0), id="png-16-bit-rgb"),
        pytest.param(saved(solid(), "WEBP", lossless=True), RED, id="webp"),
        pytest.param(
            saved(solid(), "WEBP", lossless=True, save_all=True, append_images=[solid(colour="blue")]),
            RED,
            id="webp-animated",
        ),
        pytest.param(saved(solid(), "GIF"), RED, id="gif"),
        pytest.param(
            saved(solid(), "GIF", save_all=True, append_images=[solid(colour="blue")], disposal=2),
            RED,
            id="gif-animated",
        ),
        pytest.param(saved(solid(), "BMP"), RED, id="bmp"),
        pytest.param(saved(Image.new("1", (40, 30), 0), "BMP"), (0, 0, 0), id="bmp-1-bit"),
        pytest.param(saved(solid(), "TIFF"), RED, id="tiff"),
        pytest.param(saved(solid(), "TIFF", compression="tiff_lzw"), RED, id="tiff-lzw"),
        pytest.param(saved(solid("CMYK"), "TIFF"), RED, id="tiff-cmyk"),
        pytest.param(saved(from_grey(0xC000, np.uint16), "TIFF"), (192, 192, 192), id="tiff-16-bit-grey"),
        pytest.param(saved(from_grey(0x4000, np.int32), "TIFF"), (64, 64, 64), id="tiff-32-bit-grey"),
    ],
)
def test_every_format_and_mode_becomes_rgb(content, expected):
    pixels = INPUT.decode(content)
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    assert_near(pixels, np.broadcast_to(np.uint8(expected), pixels.shape), tolerance=2)


@pytest.mark.parametrize("media_type", FORMATS)
def test_the_format_is_recognised_by_the_bytes(media_type):
    if media_type == "image/heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    names = {"image/jpeg": "JPEG", "image/heic": "HEIF"}
    content = saved(solid(), names.get(media_type, media_type.removeprefix("image/").upper()))
    assert sniff(content) == media_type


def test_accepted_formats_and_limits_are_described():
    spec = INPUT.describe()
    always = {"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"}
    assert always <= set(spec.media_types) <= always | {"image/avif", "image/heic"}
    assert spec.limits == {"max_pixels": 50_000_000, "max_side": 16_384}


def test_an_input_is_rebuilt_from_its_settings(tmp_path):
    changed = ImageInput(side=96, max_pixels=1000, max_side=50)
    assert ImageInput.load(changed.settings(), tmp_path) == changed


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_upright(file_format, orientation):
    upright = drawing()
    # A camera stores the upright image turned the other way.
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, TURNS.get(orientation))
    stored = upright if back is None else upright.transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(file_format, {})
    assert_near(INPUT.decode(saved(stored, file_format, exif=exif, **lossless)), np.asarray(upright))


def exif_with(*entries):
    """Return an EXIF block with the orientation 6, which is a turn by 90°, and these raw entries (tag, type, count, value)."""
    turned = (0x0112, 3, 1, b"\x06\x00\x00\x00")
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in (turned, *entries))
    return b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 1 + len(entries)) + packed + bytes(4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("exif", "shape"),
    [
        pytest.param(b"Exif\x00\x00garbage", (30, 40, 3), id="garbage"),
        pytest.param(b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", (30, 40, 3), id="offset-outside"),
        pytest.param(
            b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x09",
            (30, 40, 3),
            id="cut-off",
        ),
        pytest.param(exif_with(), (40, 30, 3), id="good"),
        pytest.param(exif_with((0x0100, 2, 4, b"abc\x00")), (40, 30, 3), id="width-is-a-word"),
        pytest.param(exif_with((0x0100, 9, 1, b"\xff\xff\xff\xff")), (40, 30, 3), id="negative-width"),
        pytest.param(exif_with((0x011A, 2, 4, b"abc\x00")), (40, 30, 3), id="resolution-is-a-word"),
    ],
)
def test_broken_metadata_does_not_break_an_image(exif, shape):
    assert INPUT.decode(saved(solid(), "JPEG", exif=exif)).shape == shape


def test_a_large_image_is_decoded_at_twice_the_needed_resolution_or_more():
    for file_format in ("JPEG", "PNG"):
        height, width, _ = INPUT.decode(saved(drawing((3000, 1500)), file_format)).shape
        assert abs(width - 2 * height) <= 2
        assert 2 * SIDE <= width < 3000


def photograph(size):
    """Return an image of smooth shades with some grain, from edge to edge."""
    chance = np.random.default_rng(3)
    coarse = Image.fromarray(chance.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = chance.normal(0, 8, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), pytest.param((4000, 3000), marks=pytest.mark.slow), (1000, 200)]
)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {"quality": 90})],
    ids=["jpeg", "jpeg-progressive", "png", "webp"],
)
def test_decoding_at_a_reduced_size_is_near_to_exact_resizing(file_format, options, size):
    """Decoding at a reduced size and averaging before resizing differ from exact resizing by at most 3 of 255 on average."""
    content = saved(photograph(size), file_format, **options)
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    scale = SIDE / max(size)
    fitted = (round(size[0] * scale), round(size[1] * scale))
    exact = np.asarray(whole.resize(fitted, Image.Resampling.BICUBIC)).astype(int)
    left, top = (SIDE - fitted[0]) // 2, (SIDE - fitted[1]) // 2
    pixels = INPUT.preprocess(INPUT.decode(content))[top : top + fitted[1], left : left + fitted[0]]
    assert np.abs(pixels - exact).mean() < 3


def test_a_jpeg_is_decoded_at_the_needed_size():
    longer = 8 * SIDE
    assert INPUT.decode(saved(photograph((longer, longer * 3 // 4)), "JPEG")).shape == (
        longer * 3 // 16,
        longer // 4,
        3,
    )


# --- rejected content ---


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        pytest.param(b"", Undecodable, "0 bytes", id="empty"),
        pytest.param("iVBORw0KGgo", UnsupportedFormat, "text instead of the bytes of a picture", id="str"),
        pytest.param(b"just words", UnsupportedFormat, "bytes of no known picture format", id="text"),
        pytest.param(b"%PDF-1.7 ...", UnsupportedFormat, "application/pdf", id="pdf"),
        pytest.param(b" \n<svg xmlns=''/>", UnsupportedFormat, "image/svg+xml", id="svg"),
        pytest.param(b"PK\x03\x04....", UnsupportedFormat, "application/zip", id="zip"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVEfmt ", UnsupportedFormat, "audio/wav", id="riff-of-sound"),
        pytest.param(b"\x89PNG\r\n\x1a\n", Undecodable, "image/png of 8 bytes that is truncated", id="png-signature"),
        pytest.param(b"\xff\xd8\xffwords", Undecodable, "image/jpeg of 8 bytes that is", id="jpeg-signature"),
        pytest.param(b"GIF89a", Undecodable, "image/gif of 6 bytes that is truncated", id="gif-signature"),
        pytest.param(b"II*\x00", Undecodable, "image/tiff of 4 bytes that is truncated", id="tiff-signature"),
        pytest.param(b"BM", Undecodable, "image/bmp of 2 bytes that is truncated", id="bmp-signature"),
        pytest.param(saved(drawing(), "JPEG")[:-150], Undecodable, "truncated or corrupt", id="jpeg-truncated"),
        pytest.param(saved(drawing((400, 300)))[:-300], Undecodable, "truncated or corrupt", id="png-truncated"),
        pytest.param(saved(drawing(), "WEBP")[:60], Undecodable, "truncated or corrupt", id="webp-truncated"),
        pytest.param(saved(drawing(), "BMP")[:300], Undecodable, "truncated or corrupt", id="bmp-truncated"),
        pytest.param(saved(drawing(), "TIFF")[:300], Undecodable, "truncated or corrupt", id="tiff-truncated"),
        pytest.param(png((20_000, 20_000), rows=b""), TooLarge, "20,000 × 20,000 px", id="too-many-pixels"),
        pytest.param(png((1, 16_385), rows=b""), TooLarge, "1 × 16,385 px", id="too-long"),
    ],
)
def test_content_that_is_no_image_is_rejected_with_its_kind(content, error, problem):
    with pytest.raises(error) as caught:
        INPUT.decode(content)
    assert caught.value.input == "image"
    assert problem in caught.value.found
    assert caught.value.allowed


def test_the_reason_is_a_note_for_the_log_and_not_in_the_message():
    with pytest.raises(Undecodable) as caught:
        INPUT.decode(b"GIF89a")
    (note,) = caught.value.__notes__
    assert note
    assert note not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png((60_000, 60_000), rows=b""), id="png"),
        pytest.param(gif((1, 1), [(0, 0, 60_000, 60_000)], disposal=0), id="gif-frame"),
        pytest.param(gif((1, 1), [(0, 0, 60_000, 60_000)], disposal=2), id="gif-frame-cleared-to-background"),
        pytest.param(webp_animation(1, (16_383, 16_383)), id="webp-canvas"),
        pytest.param(webp_animation(1, (16_000_000, 200)), id="webp-wide-canvas"),
        pytest.param(saved(Image.new("1", (16_000, 16_000)), "TIFF", compression="group4"), id="tiff-fax"),
    ],
)
def test_a_vast_image_is_rejected_before_memory_is_allocated_for_it(content):
    before = peak_mib()
    with pytest.raises(TooLarge, match=r"at most 50,000,000 pixels"):
        INPUT.decode(content)
    assert peak_mib() - before < 64


def peak_mib():
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


# --- trimming ---


@pytest.mark.parametrize("background", ["white", "black", (250, 240, 200)])
def test_a_plain_margin_is_trimmed(background):
    alone = drawing(background=background)
    canvas = Image.new("RGB", (400, 500), background)
    canvas.paste(alone, (230, 70))
    trimmed, expected = (INPUT.preprocess(INPUT.decode(saved(image))) for image in (canvas, alone))
    # The bands above and below are the drawing's background in one and unknown, so white, in the other.
    assert_near(trimmed[12:-12], expected[12:-12], tolerance=1)


def test_a_transparent_margin_is_trimmed():
    alone = drawing()
    canvas = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    canvas.paste(alone, (17, 200))
    assert_near(*(INPUT.preprocess(INPUT.decode(saved(image))) for image in (canvas, alone)), tolerance=2)


def test_the_noise_of_jpeg_counts_as_margin():
    canvas = Image.new("RGB", (300, 300), "white")
    canvas.paste(drawing(), (100, 100))
    (left, top, right, bottom), background = content_box(INPUT.decode(saved(canvas, "JPEG", quality=90)))
    scale = INPUT.decode(saved(canvas, "JPEG")).shape[0] / 300
    assert background == (255, 255, 255)
    assert abs(left - 100 * scale) <= 8
    assert abs(bottom - 130 * scale) <= 8
    assert (right - left) * (bottom - top) < 60 * 50


def test_a_photograph_is_not_trimmed():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    assert content_box(pixels) == ((0, 0, 40, 30), (255, 255, 255))


def test_an_image_of_one_colour_is_not_trimmed():
    pixels = np.full((30, 40, 3), RED, dtype=np.uint8)
    assert content_box(pixels) == ((0, 0, 40, 30), RED)
    assert (INPUT.preprocess(pixels) == RED).all()


def test_proportions_are_kept():
    drawn = (INPUT.preprocess(np.asarray(drawing((64, 16)))) != 255).any(axis=2)
    rows = np.flatnonzero(drawn.any(axis=1))
    assert (rows[0], rows[-1]) == (24, 39)  # 64 × 16 in the middle of 64 × 64


def test_preprocessing_does_not_change_its_argument():
    pixels = np.asarray(drawing()).copy()
    before = pixels.copy()
    INPUT.preprocess(pixels)
    assert (pixels == before).all()


# --- batches ---


def test_images_are_stacked():
    batch = INPUT.collate([INPUT.blank(), INPUT.preprocess(np.asarray(drawing()))])
    assert batch["pixels"].shape == (2, SIDE, SIDE, 3)
    assert batch["pixels"].dtype == np.uint8


def test_probes_are_images_of_two_sizes_for_each_kind_of_work():
    probes = INPUT.probes()
    assert [INPUT.workload(probe.large).kind for probe in probes] == ["image/jpeg", "image"]
    for probe in probes:
        (kind, less), (same, more) = map(INPUT.workload, (probe.small, probe.large))
        assert kind == same
        assert 10 * less < more < probe.most
        for content in (probe.small, probe.large):
            assert INPUT.preprocess(INPUT.decode(content)).shape == (SIDE, SIDE, 3)


# --- random content ---

BEGINNINGS = st.sampled_from(
    [
        b"\x00\x00\x00\x1cftypavif",
        b"\x00\x00\x00\x1cftypheic",
        *(start for starts in KNOWN.values() for start in starts),
    ]
)
SAMPLES = [saved(drawing(), name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]


@pytest.mark.filterwarnings("ignore")
@given(st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, BEGINNINGS, st.binary(max_size=200))))
def test_random_bytes_raise_only_input_errors(content):
    prepare_or_reject(content)


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_image_raises_only_input_errors(content, data):
    damaged = bytearray(content)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    prepare_or_reject(bytes(damaged[: data.draw(st.integers(0, len(content)))]))


def prepare_or_reject(content):
    try:
        decoded = INPUT.decode(content)
    except InputError as error:
        decoded = error
    if isinstance(decoded, InputError):
        assert decoded.input == "image"
        return
    assert (decoded.ndim, decoded.shape[2], decoded.dtype) == (3, 3, np.uint8)
    prepared = INPUT.preprocess(decoded)
    assert (prepared.shape, prepared.dtype) == ((SIDE, SIDE, 3), np.uint8)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    st.integers(0, 2**32 - 1),
)
@example(1, 5000, "RGB", 0)
@example(5000, 1, "RGBA", 0)
@example(1500, 40, "RGBA", 0)
def test_an_image_of_any_size_and_mode_becomes_a_square(width, height, mode, seed):
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 4), dtype=np.uint8)
    prepared = INPUT.preprocess(INPUT.decode(saved(Image.fromarray(noise, "RGBA").convert(mode))))
    assert (prepared.shape, prepared.dtype) == ((SIDE, SIDE, 3), np.uint8)


# --- framing ---


def noise(width, height):
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cut(pixels, size, side):
    """Resize a whole image with Pillow, then cut a square out of the centre."""
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    )


@pytest.mark.parametrize(
    ("options", "size", "resized"),
    [
        pytest.param({"framing": "crop"}, (50, 40), (40, 32), id="wide"),
        pytest.param({"framing": "crop"}, (40, 61), (32, 48), id="tall"),
        pytest.param({"framing": "crop", "resized": 36}, (7, 5), (50, 36), id="small"),
        pytest.param({"framing": "crop", "resized": 20}, (64, 64), (20, 20), id="smaller-than-the-square"),
        pytest.param({"framing": "stretch"}, (50, 9), (32, 32), id="stretched"),
        pytest.param({"framing": "stretch", "resized": 40}, (50, 9), (40, 40), id="stretched-and-cut"),
    ],
)
def test_an_image_is_resized_and_cut(options, size, resized):
    pixels = noise(*size)
    np.testing.assert_array_equal(ImageInput(side=32, **options).preprocess(pixels), cut(pixels, resized, 32))


def test_of_a_very_long_image_only_the_centre_is_resized():
    pixels = noise(1000, 5)
    result = ImageInput(side=32, framing="crop").preprocess(pixels)
    assert np.abs(result.astype(int) - cut(pixels, (6400, 32), 32)).max() <= 1
    assert ImageInput(side=32, framing="crop").preprocess(noise(16_384, 1)).shape == (32, 32, 3)
    assert ImageInput(side=32, framing="crop", resized=20).preprocess(noise(1, 16_384)).shape == (32, 32, 3)


@pytest.mark.parametrize("size", [(900, 700), (700, 900)])
def test_an_image_that_is_cut_keeps_twice_its_resolution_on_the_shorter_side(size):
    file = io.BytesIO()
    Image.fromarray(noise(*size)).save(file, "JPEG")
    decoded = ImageInput(side=32, framing="crop").decode(file.getvalue())
    assert 64 <= min(decoded.shape[:2]) < 700


@pytest.mark.parametrize("options", [{"framing": "fold"}, {"filter": "magic"}])
def test_an_unknown_framing_or_filter_is_an_error(options):
    with pytest.raises(ValueError, match="; allowed: "):
        ImageInput.load(options, Path())


def test_settings_that_older_releases_lack_are_left_out_where_they_have_no_effect():
    assert set(ImageInput(side=64).settings()) == {"side", "max_pixels", "max_side"}
    settings = ImageInput(side=64, framing="crop", resized=72, filter="lanczos").settings()
    assert ImageInput.load(settings, Path()) == ImageInput(side=64, framing="crop", resized=72, filter="lanczos")
