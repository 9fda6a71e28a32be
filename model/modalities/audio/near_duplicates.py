"""Fingerprints of sounds, and which sounds are nearly equal. N windows of F frames and M mel bands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from polymodal.model.types import FloatArray

CELLS: Final = (16, 16)  # in time and in frequency
NEAR: Final = 0.25
"""Largest mean difference of near duplicates, of the logarithms of amplitudes: 2 dB. Of synthetic melodies, copies in other formats
differed by up to 0.17, and the same tones in reverse by 0.71."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A coarse spectrogram, without its level."""

    windows: int
    cells: FloatArray
    """Mean log-mel energies, (16 · 16,)."""


def fingerprint(windows: FloatArray) -> Fingerprint:
    """Return the fingerprint of a preprocessed sound: float32 (N, F, M)."""
    rows, columns = CELLS
    frames = windows.reshape(-1, windows.shape[2])
    in_bands = frames.reshape(len(frames), columns, -1).mean(axis=2)
    cells = np.stack([chunk.mean(axis=0) for chunk in np.array_split(in_bands, rows)]).ravel()
    return Fingerprint(len(windows), (cells - cells.mean()).astype(np.float32))


def first_near_duplicates(known: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> Iterator[int | None]:
    """Yield for each of `others` the index of the first of `known` that is nearly equal to it, or None."""
    cells = np.stack([one.cells for one in known]) if known else np.empty((0, CELLS[0] * CELLS[1]))
    counts = np.asarray([one.windows for one in known])
    for other in others:
        near = (np.abs(cells - other.cells).mean(axis=1) <= NEAR) & (abs(counts - other.windows) <= 1)
        yield int(near.argmax()) if near.any() else None
