"""What a picture looks like in 64 bits and 768 bytes, and which pictures are nearly equal."""

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
    """How much two pictures may differ and still count as nearly equal."""

    hash_bits: int
    """Of 64."""
    colour: float
    """Mean over a thumbnail, of 255."""


# Chosen by looking at the pairs found in Open Clip Art and the emoji. ALIKE joins drawings of one series (a clock at
# one and at two); looser, all yellow faces become one group. EQUAL finds files that were stored or drawn twice.
ALIKE: Final = Nearness(hash_bits=4, colour=6.0)
EQUAL: Final = Nearness(hash_bits=1, colour=2.0)
RESAVED: Final = Nearness(hash_bits=3, colour=3.0)
"""Also finds what was made smaller and saved as JPEG; of the drawings it joins no more than a few variants of one."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a picture looks like."""

    bits: int
    """Difference hash: 64 bits, whether brightness rises from each cell of an 8 × 9 grid to the next on its right."""
    thumb: bytes
    """16 × 16 RGB pixels."""
    aspect: float
    """Natural logarithm of width / height."""


def fingerprint_of(picture: Image.Image) -> Fingerprint:
    """Look at an RGB picture."""
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    rising = (grey[:, 1:] > grey[:, :-1]).ravel()
    thumb = picture.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    return Fingerprint(
        bits=int("".join("1" if bit else "0" for bit in rising), 2),
        thumb=thumb.tobytes(),
        aspect=round(float(np.log(picture.width / picture.height)), 6),
    )


def fingerprint_of_pixels(pixels: npt.NDArray[np.uint8]) -> Fingerprint:
    """Look at a picture that was decoded already: uint8 (H, W, 3)."""
    return fingerprint_of(Image.fromarray(pixels))


class Album:
    """Fingerprints in arrays, so that one can be compared with all of them at once."""

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        self._bits = np.array([one.bits for one in prints], dtype=np.uint64)
        thumbs = [np.frombuffer(one.thumb, dtype=np.uint8) for one in prints]
        self._thumbs = np.array(thumbs, dtype=np.int16).reshape(len(prints), 3 * THUMB_SIDE**2)
        self._aspects = np.array([one.aspect for one in prints])

    def like(self, index: int, among: slice, nearness: Nearness) -> npt.NDArray[np.intp]:
        """Which pictures of a stretch are nearly equal to this one. Whole numbers only, so the same on every machine."""
        close = (np.bitwise_count(self._bits[among] ^ self._bits[index]) <= nearness.hash_bits) & (
            np.abs(self._aspects[among] - self._aspects[index]) <= MAX_ASPECT_DIFFERENCE
        )
        candidates: npt.NDArray[np.intp] = np.flatnonzero(close) + (among.start or 0)
        differences = np.abs(self._thumbs[candidates] - self._thumbs[index]).sum(axis=1, dtype=np.int64)
        return candidates[differences <= int(nearness.colour * self._thumbs.shape[1])]


def near_pairs(prints: Sequence[Fingerprint], nearness: Nearness) -> Iterator[tuple[int, int]]:
    """Every two pictures that are nearly equal, as indices i < j."""
    album = Album(prints)
    for i in range(len(prints) - 1):
        for j in album.like(i, slice(i + 1, None), nearness):
            yield i, int(j)


def twins(
    known: Sequence[Fingerprint], others: Sequence[Fingerprint], nearness: Nearness
) -> Iterator[tuple[int, int | None]]:
    """For each of `others` the first of `known` that is nearly equal to it, or None; both as indices."""
    album = Album([*known, *others])
    for index in range(len(others)):
        found = album.like(len(known) + index, slice(0, len(known)), nearness)
        yield index, int(found[0]) if len(found) else None
