"""Fingerprints of images, 64 bits and 768 bytes each, and which images are nearly equal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

THUMB_SIDE: Final = 16  # px
MAX_ASPECT_DIFFERENCE: Final = 0.15  # of the logarithm of width / height


@dataclass(frozen=True, slots=True)
class Nearness:
    """Largest differences of images that count as near duplicates."""

    hash_bits: int
    """Of 64 bits of the hash."""
    colour: float
    """Mean difference over a thumbnail, of 255."""


# Chosen by looking at the pairs found in Open Clip Art and the emoji. ALIKE joins drawings of one series (a clock at
# one and at two); looser, all yellow faces become one group. EQUAL finds files that were stored or drawn twice.
ALIKE: Final = Nearness(hash_bits=4, colour=6.0)
EQUAL: Final = Nearness(hash_bits=1, colour=2.0)
RESAVED: Final = Nearness(hash_bits=3, colour=3.0)
"""Also finds images that were reduced and saved as JPEG; of the drawings it joins only a few variants."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hash, thumbnail and aspect of an image."""

    bits: int
    """Difference hash: 64 bits, whether brightness rises from each cell of an 8 × 9 grid to the next on its right."""
    thumb: bytes
    """16 × 16 RGB pixels."""
    aspect: float
    """Natural logarithm of width / height."""


def fingerprint(pixels: npt.NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of a preprocessed image: uint8 (H, W, 3)."""
    return fingerprint_of_image(Image.fromarray(pixels))


def fingerprint_of_image(image: Image.Image) -> Fingerprint:
    """Return the fingerprint of an RGB image."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    rising = (grey[:, 1:] > grey[:, :-1]).ravel()
    thumb = image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    return Fingerprint(
        bits=int("".join("1" if bit else "0" for bit in rising), 2),
        thumb=thumb.tobytes(),
        aspect=round(float(np.log(image.width / image.height)), 6),
    )


class _Fingerprints:
    """Fingerprints in arrays, so that one can be compared with all of them at once."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        self._bits = np.array([one.bits for one in fingerprints], dtype=np.uint64)
        thumbs = [np.frombuffer(one.thumb, dtype=np.uint8) for one in fingerprints]
        self._thumbs = np.array(thumbs, dtype=np.int16).reshape(len(fingerprints), 3 * THUMB_SIDE**2)
        self._aspects = np.array([one.aspect for one in fingerprints])

    def near(self, index: int, among: slice, nearness: Nearness) -> npt.NDArray[np.intp]:
        """Return which images of a slice are nearly equal to this one. Whole numbers only, so the same on every machine."""
        close = (np.bitwise_count(self._bits[among] ^ self._bits[index]) <= nearness.hash_bits) & (
            np.abs(self._aspects[among] - self._aspects[index]) <= MAX_ASPECT_DIFFERENCE
        )
        candidates: npt.NDArray[np.intp] = np.flatnonzero(close) + (among.start or 0)
        differences = np.abs(self._thumbs[candidates] - self._thumbs[index]).sum(axis=1, dtype=np.int64)
        return candidates[differences <= int(nearness.colour * self._thumbs.shape[1])]


def near_pairs(fingerprints: Sequence[Fingerprint], nearness: Nearness) -> Iterator[tuple[int, int]]:
    """Yield every two images that are nearly equal, as indices i < j."""
    arrays = _Fingerprints(fingerprints)
    for i in range(len(fingerprints) - 1):
        for j in arrays.near(i, slice(i + 1, None), nearness):
            yield i, int(j)


def first_near_duplicates(
    known: Sequence[Fingerprint], others: Sequence[Fingerprint], nearness: Nearness = RESAVED
) -> Iterator[int | None]:
    """Yield for each of `others` the index of the first of `known` that is nearly equal to it, or None."""
    arrays = _Fingerprints([*known, *others])
    for index in range(len(others)):
        near = arrays.near(len(known) + index, slice(0, len(known)), nearness)
        yield int(near[0]) if len(near) else None
