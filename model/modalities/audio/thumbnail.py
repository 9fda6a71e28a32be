"""Short excerpts of recordings, for golden inputs of bundles and the pages that evaluation writes."""

from typing import Final

import numpy as np

from polymodal.model.modalities.audio.input import AudioInput, wav
from polymodal.model.modalities.audio.spectrum import RATE

MEDIA_TYPE: Final = "audio/wav"
RATE_OUT: Final = RATE // 2  # Hz
SAMPLES_A_PX: Final = 100
"""Samples of an excerpt for each pixel that an image would have: 1.2 s and 19 kB for 96 px."""


def thumbnail(content: bytes, side: int) -> bytes:
    """Return the loudest excerpt of a sound as a WAV of 8 kHz; its length grows with `side`. Raises InputError as decoding does."""
    samples = AudioInput().decode(content)
    length = min(len(samples), side * SAMPLES_A_PX * RATE // RATE_OUT)
    energy = np.concatenate([[0.0], np.square(samples, dtype=np.float64).cumsum()])
    start = int((energy[length:] - energy[:-length]).argmax())
    excerpt = samples[start : start + length]
    halved = np.convolve(excerpt, [0.25, 0.5, 0.25], "same")[::2]
    return wav(halved, RATE_OUT)
