"""Augmentations of sounds that keep their subject; for training batches only.

B sounds, N windows of the longest, F frames and M mel bands of a window.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from polymodal.model.modalities.audio.spectrum import FLOOR

GAIN = 1.5  # largest change of the logarithm of the amplitude: 13 dB
SHIFT = 24  # frames
NOISE = (-7.0, -3.0)  # logarithms of the noise's amplitude, from below the floor to clearly heard
NOISY = 0.5  # probability of noise
FRAMES, MELS = 16, 10  # most masked frames and bands of a window (SpecAugment, arXiv:1904.08779)


def augment(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Change the level, shift, add noise and mask frames and bands, at random: windows (B, N, F, M) to the same."""
    windows = batch["windows"]
    items, count, frames, mels = windows.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(low, high, generator=generator).to(windows.device)

    louder = (windows + between(-GAIN, GAIN, items, 1, 1, 1)).clamp(min=FLOOR)
    steps = torch.arange(frames, device=windows.device)
    order = (steps + between(-SHIFT, SHIFT, items, 1).round().long()) % frames  # (B, F)
    shifted = louder.gather(2, order[:, None, :, None].expand_as(louder))
    level = torch.where(
        between(0, 1, items, 1, 1, 1) < NOISY, between(*NOISE, items, 1, 1, 1), torch.tensor(-torch.inf)
    )
    noisy = torch.logaddexp(shifted, level + between(-0.5, 0.5, items, count, frames, mels))
    masked = (
        _span(frames, FRAMES, between, items, count)[..., None] | _span(mels, MELS, between, items, count)[:, :, None]
    )
    return {**batch, "windows": noisy.masked_fill(masked, FLOOR)}


def _span(length: int, most: int, between: Callable[..., Tensor], items: int, count: int) -> Tensor:
    """Draw a span of up to `most` places for each window: bool (B, N, `length`)."""
    width = between(0, most, items, count, 1).floor()
    start = between(0, 1, items, count, 1) * (length - width)
    steps = torch.arange(length, device=width.device)
    return (steps >= start) & (steps < start + width)
