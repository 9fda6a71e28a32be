"""Black and white levels of a TIFF whose samples have more than 8 bits, from its tags or else from its values.

Files of 16 bits fill them, by their specification; other integers and floating-point numbers have no such rule, and programs write
0 to 255, 0 to 65,535 or 0 to 1. Values that fit none of these would become black or white, so they are rejected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from polymodal.model.modalities.image.formats import Unread

Tags = Mapping[int, Any]
"""Tags of a TIFF, as Pillow reads them."""

BITS, SAMPLE_FORMAT = 258, 339  # tags
SIGNED, FLOATING = 2, 3  # values of SampleFormat
LEAST, GREATEST = (340, 280), (341, 281)  # tags of the range, in the samples' own type and as integers
DARKEST: Final = 16
"""White is at most this many times the largest value: a darker image would look black."""
_ADVICE: Final = (
    "values that fill their bits, tags 340 and 341 (SMinSampleValue, SMaxSampleValue) that tell their range, or 8 bits"
)
_BAND_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Levels:
    """Converts samples to 8 bits."""

    black: float = 0.0
    white: float = 65_535.0
    unsigned: bool = False
    """Whether samples of 32 bits are unsigned, because Pillow reads them as signed."""
    whole: bool = True
    """Whether samples are integers: each of 256 shades gets equally many values, so that 16 bits keep their upper 8."""
    inverted: bool = False

    def shades(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Convert samples to grey of 8 bits."""
        if self.unsigned:
            values = values.view(np.uint32)
        levels = np.clip(values, self.black, self.white) - self.black
        if self.whole:
            shades = levels.astype(np.int64) * 256 // int(self.white - self.black + 1)
        else:
            shades = np.rint(levels * (255 / (self.white - self.black)))
        return (255 - shades if self.inverted else shades).astype(np.uint8)


FULL: Final = Levels()
"""Levels of samples that use all of their 16 bits, as in a PNG."""


def levels_of(image: Image.Image, tags: Tags, *, inverted: bool) -> Levels:
    """Find the range of a loaded TIFF of mode I;16, I or F. Raises Unread if it is unknown."""
    bits = int(tags.get(BITS, (16,))[0])
    kind = int(tags.get(SAMPLE_FORMAT, (1,))[0])
    unsigned = bits == 32 and kind not in (SIGNED, FLOATING)
    least, greatest = _extremes(image, unsigned)
    whole = kind != FLOATING
    name = f"image/tiff of {bits}-bit {'integers' if whole else 'floating-point numbers'} from {least:,.6g} to {greatest:,.6g}"
    if not np.isfinite((least, greatest)).all():
        raise Unread(
            "image/tiff with samples that are no finite numbers", "fill them with a value of the picture's range"
        )
    black, white = _stated(tags, LEAST), _stated(tags, GREATEST)
    if white is not None and whole:  # a file may state its own greatest value: round up to whole bits
        white = float((1 << int(white).bit_length()) - 1) if 0 < white < 2**32 else None
    stated = white is not None and (black or 0) <= least and greatest <= white and (black or 0) < white
    nominal = _candidates(bits, kind)
    if not stated or (white not in _NOMINAL and least >= 0 and any(low <= greatest <= top for low, top in nominal)):
        black, white = 0.0, next((top for low, top in nominal if low <= greatest <= top), None)
        if greatest == least == 0:  # black in any range
            white = nominal[-1][1]
        if least < 0 or white is None:
            raise Unread(name, _ADVICE)
    return Levels(black or 0.0, float(white or 0), unsigned, whole, inverted)


def check_colours(image: Image.Image, tags: Tags) -> None:
    """Reject colours of 16 bits whose upper 8 bits, which are all that Pillow keeps, are almost zero."""
    if max(tags.get(BITS, (8,))) > 8 and image.mode in ("RGB", "RGBA"):
        most = max(int(high) for _, high in image.getextrema()[:3])  # type: ignore[misc]
        if 0 < most < 256 // DARKEST:
            raise Unread(f"image/tiff of 16-bit colours of at most {256 * most + 255:,}", _ADVICE)


_NOMINAL: Final = frozenset({1.0, *(float((1 << bits) - 1) for bits in (8, 10, 12, 14, 15, 16, 24, 31, 32))})
"""Values of a tag that are certainly a white level; others may be the greatest value that occurs."""


def _candidates(bits: int, kind: int) -> list[tuple[float, float]]:
    """Return ranges that programs use: the least value that must be reached, and white."""
    if kind == FLOATING:
        return [(1 / DARKEST, 1.0), (DARKEST, 255.0)]
    if bits == 12:
        return [(0.0, 4095.0)]
    if bits == 16:
        return [(DARKEST, 255.0)] if kind == SIGNED else [(65_536 / DARKEST, 65_535.0)]
    # For larger signed samples, readers differ about black: 0, or the least sample.
    whole = [] if kind == SIGNED else [(2.0**32 / DARKEST, 2.0**32 - 1)]
    return [(DARKEST, 255.0), (65_536 / DARKEST, 65_535.0), *whole]


def _stated(tags: Tags, names: tuple[int, int]) -> float | None:
    """Return the number of the first of these tags that has one."""
    for name in names:
        if name in tags:
            values = tags[name]
            value = values[0] if isinstance(values, tuple) else values
            if isinstance(value, int | float) and np.isfinite(value):
                return float(value)
    return None


def _extremes(image: Image.Image, unsigned: bool) -> tuple[float, float]:
    """Return the least and the greatest sample; NaN if there is one."""
    least, greatest = np.inf, -np.inf
    width, height = image.size
    for top in range(0, height, _BAND_ROWS):
        band = np.asarray(image.crop((0, top, width, min(height, top + _BAND_ROWS))))
        values = band.view(np.uint32) if unsigned else band
        least, greatest = min(least, float(values.min())), max(greatest, float(values.max()))
        if np.isnan(values.min()):
            return np.nan, np.nan
    return least, greatest
