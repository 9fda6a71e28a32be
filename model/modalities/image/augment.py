"""Changes that leave a drawing's subject what it is; applied to training batches alone.

B pictures, S side in pixels.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

# Chosen by eye for drawings on white: what they show survives all of these.
ROTATION = math.radians(12)
SMALLEST, LARGEST = 0.75, 1.15  # scale
SHIFT = 0.08  # of the side
COLOUR = 0.3  # relative change of brightness, contrast and saturation
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def augment(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Mirror, turn, scale, shift and recolour each picture by its own chance: uint8 (B, S, S, 3) to the same."""
    pixels = batch["pixels"]
    size = pixels.shape[0]

    def chance(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(size, *shape).uniform_(low, high, generator=generator).to(pixels.device)

    # Ink instead of light, so that what comes in from outside the picture is white.
    ink = 1.0 - pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    angle, scale = chance(-ROTATION, ROTATION), 1.0 / chance(SMALLEST, LARGEST)
    mirror = torch.where(chance(0, 1) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([scale * mirror * angle.cos(), -scale * angle.sin(), chance(-SHIFT, SHIFT)], dim=1),
        torch.stack([scale * mirror * angle.sin(), scale * angle.cos(), chance(-SHIFT, SHIFT)], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(ink.shape), align_corners=False)
    light = 1.0 - functional.grid_sample(ink, grid, align_corners=False)
    grey = (light * torch.tensor(GREY_WEIGHTS, device=light.device)[None, :, None, None]).sum(dim=1, keepdim=True)
    light = grey + (light - grey) * chance(1 - COLOUR, 1 + COLOUR, 1, 1, 1)
    mean = light.mean(dim=(1, 2, 3), keepdim=True)
    light = (mean + (light - mean) * chance(1 - COLOUR, 1 + COLOUR, 1, 1, 1)) * chance(1 - COLOUR, 1, 1, 1, 1)
    return {"pixels": (light.clamp(0, 1) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)}
