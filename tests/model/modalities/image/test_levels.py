"""Samples of more than 8 bits are converted to 8, or rejected where their range is unknown."""

import numpy as np
import pytest

from polymodal.model.errors import UnsupportedFormat
from polymodal.model.modalities.image.input import ImageInput
from tests.hostile.images import FLOAT, SHORT, SIGNED_LONG, tiff_of

SIZE = (16, 12)
RAMP = np.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
GREY = np.rint(RAMP * 255)


def tiff(values, kind, order="<", **options):
    array = np.asarray(values).astype(np.dtype(kind).newbyteorder(order))
    sample_format = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    layout = {"bits": (8 * array.dtype.itemsize,), "sample_format": sample_format, **options}
    return tiff_of(array.tobytes(), SIZE, order=order, **layout)


@pytest.mark.parametrize("order", [pytest.param("<", id="little"), pytest.param(">", id="big")])
@pytest.mark.parametrize(
    ("values", "kind", "tags"),
    [
        pytest.param(RAMP, "f4", {}, id="float-0-1"),
        pytest.param(RAMP * 255, "f4", {}, id="float-0-255"),
        pytest.param(RAMP * 1000, "f4", {341: (FLOAT, [1000.0])}, id="float-with-its-white"),
        pytest.param(RAMP * 2 - 1, "f4", {340: (FLOAT, [-1.0]), 341: (FLOAT, [1.0])}, id="float-with-its-range"),
        pytest.param(RAMP * 255, "i4", {}, id="int32-0-255"),
        pytest.param(RAMP * 65_535, "i4", {}, id="int32-0-65535"),
        pytest.param(RAMP * 4095, "i4", {341: (SIGNED_LONG, [4095])}, id="int32-of-12-bits-by-its-tag"),
        pytest.param(RAMP * 255, "i2", {}, id="int16-0-255"),
        pytest.param(RAMP * 65_535, "u2", {}, id="uint16"),
        pytest.param(RAMP * 4095, "u2", {281: (SHORT, [4095])}, id="12-bits-in-16-by-MaxSampleValue"),
        pytest.param(RAMP * 3900, "u2", {341: (SHORT, [3900])}, id="12-bits-in-16-by-their-greatest"),
        pytest.param(RAMP * 65_535, "u2", {281: (SHORT, [65_000])}, id="a-tag-that-is-no-usual-white"),
    ],
)
def test_samples_keep_their_shades(values, kind, tags, order):
    values = np.rint(values) if kind[0] != "f" else values
    pixels = ImageInput().decode(tiff(values, kind, order, tags=tags))
    tolerance = 17 if 341 in tags and tags[341][1] == [3900] else 1
    assert np.abs(pixels[..., 0].astype(int) - GREY).max() <= tolerance


def test_unsigned_samples_of_32_bits_keep_their_shades():
    pixels = ImageInput().decode(tiff(np.rint(RAMP * (2**32 - 1)), "u4"))
    assert np.abs(pixels[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_shades_are_inverted_where_zero_is_white(kind):
    white = 1 if kind == "f4" else 256 ** int(kind[1]) - 1
    values = RAMP * white if kind == "f4" else np.rint(RAMP * white)
    pixels = ImageInput().decode(tiff(values, kind, photometric=0))
    assert np.abs(255 - pixels[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(tiff(RAMP * 4095, "u2"), "16-bit integers from 0 to 4,095", id="12-bits-in-16"),
        pytest.param(tiff(RAMP * 9, "i4"), "32-bit integers from 0 to 9", id="int32-of-classes"),
        pytest.param(tiff(RAMP * 3000, "i4"), "32-bit integers from 0 to 3,000", id="int32-of-12-bits"),
        pytest.param(tiff(RAMP * 2e9, "i4"), "32-bit integers from 0 to 2e+09", id="int32-in-full"),
        pytest.param(tiff(RAMP * 30_000, "i2"), "16-bit integers from 0 to 30,000", id="int16"),
        pytest.param(tiff(RAMP * 600 - 300, "i2"), "16-bit integers from -300 to 300", id="int16-below-zero"),
        pytest.param(tiff(RAMP * 5, "f4"), "floating-point numbers from 0 to 5", id="float-0-5"),
        pytest.param(tiff(RAMP * 0.01, "f4"), "floating-point numbers from 0 to 0.01", id="float-of-almost-zero"),
        pytest.param(tiff(RAMP - 0.5, "f4"), "floating-point numbers from -0.5 to 0.5", id="float-below-zero"),
        pytest.param(tiff(np.where(RAMP > 0.5, np.nan, RAMP), "f4"), "no finite numbers", id="nan"),
        pytest.param(tiff(np.where(RAMP > 0.5, np.inf, RAMP), "f4"), "no finite numbers", id="infinity"),
        pytest.param(tiff(RAMP, "f8"), "floating-point numbers of 64 bits", id="float64"),
        pytest.param(tiff(RAMP, "f2"), "floating-point numbers of 16 bits", id="float16"),
        pytest.param(
            tiff_of(np.repeat(np.rint(RAMP * 4095), 3).astype("<u2").tobytes(), SIZE, photometric=2, bits=(16,) * 3),
            "16-bit colours of at most 4,095",
            id="rgb-of-12-bits-in-16",
        ),
        pytest.param(
            tiff_of(bytes(SIZE[0] * SIZE[1] * 3 // 2), SIZE, photometric=6, bits=(8,) * 3, tags={530: (SHORT, [2, 2])}),
            "uncompressed YCbCr",
            id="ycbcr-with-fewer-samples",
        ),
        pytest.param(
            tiff_of(bytes(192), SIZE, photometric=3, bits=(4,), fill_order=2, tags={320: (SHORT, [0] * 48)}),
            "FillOrder 2",
            id="bits-in-reverse",
        ),
    ],
)
def test_samples_of_an_unknown_range_or_layout_are_rejected_with_advice(content, problem):
    with pytest.raises(UnsupportedFormat, match=r"; allowed: .*(8 bits|save it|fill them)") as caught:
        ImageInput().decode(content)
    assert problem in caught.value.found


@pytest.mark.parametrize("kind", ["u2", "i4", "u4", "f4", "i2"])
def test_black_is_black_in_any_range(kind):
    assert (ImageInput().decode(tiff(RAMP * 0, kind)) == 0).all()


def test_a_palette_of_8_bits_is_scaled_to_16():
    entries = [*range(256), *reversed(range(256)), *range(256)]
    samples = np.arange(192, dtype=np.uint8).tobytes()
    narrow, wide = (
        ImageInput().decode(
            tiff_of(samples, SIZE, photometric=3, tags={320: (SHORT, [factor * entry for entry in entries])})
        )
        for factor in (1, 257)
    )
    assert (narrow == wide).all()
    assert narrow.max() > 100


def test_a_grey_tiff_with_premultiplied_alpha_is_read():
    samples = np.full((12, 16, 2), (64, 128), np.uint8).tobytes()
    pixels = ImageInput().decode(tiff_of(samples, SIZE, bits=(8, 8), extra=(1,)))
    assert abs(int(pixels[0, 0, 0]) - (64 + 127)) <= 1
