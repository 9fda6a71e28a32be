"""Augmentations of images that keep a drawing's subject; for training batches only.

B images, S side in pixels.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

# The wider ranges and the random changes were chosen on a source left out of the training: an encoder fine-tuned on emoji alone
# recognised more Open Clip Art with them (docs/training.md).
ROTATION = math.radians(15)
SMALLEST, LARGEST = 0.6, 1.2  # scale
SQUEEZE = 0.15  # logarithm of the largest change of the proportions
SHIFT = 0.1  # of the side
COLOUR = 0.4  # relative change of brightness, contrast and saturation
GREY, NEGATIVE, BACKGROUND = 0.12, 0.05, 0.15  # probabilities: no colour, inverted, another background than white
WHITE = 0.97  # least brightness of a pixel that counts as background
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def augment(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Mirror, turn, scale, squeeze, shift and recolour each image at random: uint8 (B, S, S, 3) to the same."""
    pixels = batch["pixels"]
    chance = _Chance(pixels, generator)
    # Ink instead of light, so that padding from outside the image is white.
    ink = 1.0 - pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    light = 1.0 - functional.grid_sample(
        ink, functional.affine_grid(_movement(chance), list(ink.shape), align_corners=False), align_corners=False
    )
    return {"pixels": (_recolour(light, chance).clamp(0, 1) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)}


class _Chance:
    """Uniform random numbers, one draw for each image, on the images' device."""

    def __init__(self, pixels: Tensor, generator: torch.Generator) -> None:
        self._size, self._device, self._generator = len(pixels), pixels.device, generator

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw numbers (B, *shape)."""
        drawn = torch.empty(self._size, *shape).uniform_(low, high, generator=self._generator)
        return drawn.to(self._device)

    def happens(self, probability: float) -> Tensor:
        """Draw (B, 1, 1, 1), true with this probability."""
        return self.between(0, 1, 1, 1, 1) < probability


def _movement(chance: _Chance) -> Tensor:
    """Draw affine matrices (B, 2, 3) from the new image's coordinates to the old one's."""
    angle, scale = chance.between(-ROTATION, ROTATION), 1.0 / chance.between(SMALLEST, LARGEST)
    squeeze = chance.between(-SQUEEZE, SQUEEZE).exp()
    mirror = torch.where(chance.between(0, 1) < 0.5, -1.0, 1.0)
    across = [squeeze * scale * mirror * angle.cos(), -scale * angle.sin(), chance.between(-SHIFT, SHIFT)]
    down = [scale * mirror * angle.sin(), scale / squeeze * angle.cos(), chance.between(-SHIFT, SHIFT)]
    return torch.stack([torch.stack(across, dim=1), torch.stack(down, dim=1)], dim=1)


def _recolour(light: Tensor, chance: _Chance) -> Tensor:
    """Change colours, contrast and background: (B, 3, S, S), 0 … 1, to the same, sometimes slightly outside."""
    light = torch.where(chance.happens(GREY), _grey(light).expand_as(light), light)
    light = torch.where(chance.happens(NEGATIVE), 1.0 - light, light)
    behind = (light.amin(dim=1, keepdim=True) > WHITE) & chance.happens(BACKGROUND)
    light = torch.where(behind, chance.between(0, 1, 3, 1, 1).expand_as(light), light)
    grey = _grey(light)
    light = grey + (light - grey) * chance.between(1 - COLOUR, 1 + COLOUR, 1, 1, 1)
    mean = light.mean(dim=(1, 2, 3), keepdim=True)
    light = mean + (light - mean) * chance.between(1 - COLOUR, 1 + COLOUR, 1, 1, 1)
    return light * chance.between(1 - COLOUR, 1, 1, 1, 1)


def _grey(light: Tensor) -> Tensor:
    """Compute the brightness: (B, 3, S, S) to (B, 1, S, S)."""
    weights = torch.tensor(GREY_WEIGHTS, device=light.device)
    return (light * weights[None, :, None, None]).sum(dim=1, keepdim=True)
