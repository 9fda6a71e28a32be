"""Every layout of samples that Pillow opens is decoded as by ImageMagick, or rejected by name (`make test-imagemagick`).

`differs` has the intended differences; the tests fail if one of them no longer exists.
"""

import os
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import TiffImagePlugin

from polymodal.model.errors import UnsupportedFormat
from polymodal.model.modalities.image.input import ImageInput
from tests.hostile.images import PNG_BEGINNING, PNG_END, SHORT, chunk, ihdr, tiff_of

WIDTH, HEIGHT = 32, 24
TOLERANCE = 3.0  # of 255, on average: other roundings, another way from Lab
LAYOUTS = list(dict.fromkeys(TiffImagePlugin.OPEN_INFO))


def _imagemagick() -> str | None:
    for path in filter(None, map(shutil.which, ("magick", "convert-im6.q16", "convert"))):
        if b"https://imagemagick.org" in subprocess.run([path, "-version"], capture_output=True, check=False).stdout:
            return path
    return None


IMAGEMAGICK = _imagemagick() if os.environ.get("IMAGEMAGICK_TESTS") else None
pytestmark = pytest.mark.skipif(
    IMAGEMAGICK is None, reason="IMAGEMAGICK_TESTS=1 and ImageMagick (apt-get install imagemagick) are needed"
)


def differs(layout) -> str:
    """Return why ImageMagick decodes a layout differently; empty where it does not."""
    _, photometric, _, _, bits, extra = layout
    if photometric == 5 and extra:
        return "ImageMagick 6 loses black where more samples follow"
    if photometric == 0 and bits in ((2,), (4,), (32,)):
        return "ImageMagick 6 doesn't invert these, against TIFF 6.0: 0 is white"
    if photometric == 6 and bits == (8,):
        return "ImageMagick rejects it"
    return ""


def is_rejected(layout) -> bool:
    """Return whether the range of the values is unknown, or the order of bits is not supported."""
    _, photometric, (kind, *_), fill, bits, _ = layout
    signed = kind == 2 and bits[0] > 8
    reversed_ = fill == 2 and ((photometric == 0 and bits == (8,)) or (photometric == 3 and bits[0] < 8))
    return signed or reversed_


def shown(path) -> np.ndarray:
    # Samples without a meaning (ExtraSamples 0) are no transparency, but ImageMagick treats them as such.
    command = [IMAGEMAGICK, f"{path}[0]", "-background", "white", "-alpha", "background", "-flatten"]
    done = subprocess.run([*command, "-depth", "8", "-colorspace", "sRGB", "rgb:-"], capture_output=True, check=False)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, WIDTH, 3)


def ramp(channels: int) -> np.ndarray:
    """Return a different gradient from 0 to 1 in each channel."""
    across, down = np.linspace(0, 1, WIDTH)[None, :, None], np.linspace(0, 1, HEIGHT)[:, None, None]
    number = np.arange(channels)[None, None, :]
    return (across * (number + 1) + down * (channels - number)) / (channels + 1)


def packed(values: np.ndarray, bits: int, order: str, kind: int = 1) -> bytes:
    """Return samples of this many bits; rows begin at a byte."""
    if kind == 3:
        return values.astype(f"{order}f{bits // 8}").tobytes()
    whole = np.rint(values * ((1 << bits - (kind == 2)) - 1)).astype(np.int64)
    if bits in (8, 16, 32):
        return whole.astype(f"{order}{'i' if kind == 2 else 'u'}{bits // 8}").tobytes()
    rows = ("".join(format(sample, f"0{bits}b") for sample in row) for row in whole.reshape(HEIGHT, -1))
    lines = (row + "0" * (-len(row) % 8) for row in rows)
    return b"".join(int(line, 2).to_bytes(len(line) // 8, "big") for line in lines)


def content_of(layout) -> bytes:
    order, photometric, (kind, *_), fill, bits, extra = layout
    values = ramp(len(bits))
    alpha = 0.4 + 0.6 * (values[..., :1] > 0.5)
    for place, meaning in enumerate(extra, len(bits) - len(extra)):
        values[..., place : place + 1] = alpha if meaning else 1.0  # without a meaning: opaque for ImageMagick
        if meaning == 1:
            values[..., :place] *= alpha
    samples = packed(values, bits[0], "<" if order == b"II" else ">", kind)
    if fill == 2:
        samples = bytes(int(format(byte, "08b")[::-1], 2) for byte in samples)
    tags = {530: (SHORT, [1, 1])} if photometric == 6 else {}
    if photometric == 3:
        entries = [65_535 * number // ((1 << bits[0]) - 1) for number in range(1 << bits[0])]
        tags[320] = (SHORT, [*entries, *reversed(entries), *(entry // 2 for entry in entries)])
    return tiff_of(
        samples,
        (WIDTH, HEIGHT),
        order="<" if order == b"II" else ">",
        photometric=photometric,
        bits=bits,
        sample_format=kind,
        extra=extra,
        fill_order=fill,
        tags=tags,
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_of_a_tiff_is_decoded_as_by_imagemagick_or_rejected(layout, tmp_path):
    path = tmp_path / "layout.tif"
    path.write_bytes(content_of(layout))
    if is_rejected(layout):
        with pytest.raises(UnsupportedFormat):
            ImageInput().decode(path.read_bytes())
        return
    pixels, expected = ImageInput().decode(path.read_bytes()).astype(int), shown(path)
    if differs(layout):
        assert expected.shape != pixels.shape or np.abs(pixels - expected).mean() > TOLERANCE, "no longer different"
        return
    assert np.abs(pixels - expected).mean() < TOLERANCE
    assert pixels.std() > 10, "nothing was drawn"


PNGS = [(bits, 0) for bits in (1, 2, 4, 8, 16)] + [(bits, 3) for bits in (1, 2, 4, 8)]
PNGS += [(bits, colour) for bits in (8, 16) for colour in (2, 4, 6)]


@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "with-tRNS"])
@pytest.mark.parametrize(("bits", "colour"), PNGS)
def test_every_kind_of_png_is_decoded_as_by_imagemagick(bits, colour, transparent, tmp_path):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = ramp(channels)
    rows = packed(values, bits, ">")
    length = len(rows) // HEIGHT
    before = chunk(b"PLTE", bytes(7 * number % 256 for number in range(3 << bits))) if colour == 3 else b""
    if transparent and colour == 3:
        before += chunk(b"tRNS", b"\x00\x80\xff"[: 1 << bits])
    elif transparent and colour in (0, 2):
        pixel = np.rint(values[10, 10] * ((1 << bits) - 1)).astype(int)
        before += chunk(b"tRNS", struct.pack(f">{channels}H", *pixel))
    lines = b"".join(b"\x00" + rows[number * length : (number + 1) * length] for number in range(HEIGHT))
    path = tmp_path / "kind.png"
    head = PNG_BEGINNING + ihdr(WIDTH, HEIGHT, bits, colour)
    path.write_bytes(head + before + chunk(b"IDAT", zlib.compress(lines)) + PNG_END)
    assert np.abs(ImageInput().decode(path.read_bytes()).astype(int) - shown(path)).mean() < TOLERANCE
