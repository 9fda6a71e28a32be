"""Log-mel windows of a sound at 16 kHz: the front end of YAMNet, so that encoders with its weights can be used.

S samples, N windows, F frames of a window, M mel bands. Constants as in yamnet/params.py and features.py of TensorFlow's models.
"""

from functools import cache
from typing import Final

import numpy as np

from polymodal.model.types import FloatArray

RATE: Final = 16_000  # Hz
FRAME, HOP, FFT = 400, 160, 512  # samples: 25 ms every 10 ms
MELS: Final = 64
LOWEST, HIGHEST = 125.0, 7500.0  # Hz
OFFSET: Final = 0.001  # added before the logarithm
FLOOR: Final = float(np.log(OFFSET))
"""The value of silence."""


def window_samples(frames: int) -> int:
    """Return the number of samples that a window of `frames` frames covers."""
    return (frames - 1) * HOP + FRAME


def log_mel(samples: FloatArray, frames: int) -> FloatArray:
    """Return the logarithms of mel energies of one window: float32 (S,) of `window_samples(frames)` to (F, M)."""
    views = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP][:frames]
    magnitudes = np.abs(np.fft.rfft(views * _hann(), FFT))  # (F, FFT / 2 + 1)
    return np.log(magnitudes @ _mel_bands() + OFFSET).astype(np.float32)


@cache
def _hann() -> FloatArray:
    """Return a periodic Hann window (FRAME,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)


@cache
def _mel_bands() -> FloatArray:
    """Return triangles in the mel scale: (FFT / 2 + 1, M)."""
    bins = _mel(np.linspace(0.0, RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(np.asarray(LOWEST)), _mel(np.asarray(HIGHEST)), MELS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bands = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    bands[0] = 0.0  # no constant
    return bands.astype(np.float32)


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hertz / 700.0)
