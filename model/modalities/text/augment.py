"""Augmentations of texts that keep their subject; for training batches only.

B texts, L tokens of the longest.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

DROPPED = 0.15  # probability of leaving out one token


def augment(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Leave out some tokens of each text, never its first: ids and mask (B, L) to the same, still without gaps."""
    ids, mask = batch["ids"], batch["mask"]
    kept = mask & (torch.rand(mask.shape, generator=generator) >= DROPPED).to(mask.device)
    kept[:, 0] = True
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)  # kept tokens move to the front, in their order
    return {"ids": ids.gather(1, order), "mask": kept.gather(1, order)}
