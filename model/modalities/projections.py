"""Projections from an encoder's features to an embedding."""

import torch
from torch import Tensor, nn


def perceptron(features: int, hidden: int, width: int) -> nn.Sequential:
    """Build normalisation and two layers with much dropout, for frozen features and few examples."""
    return nn.Sequential(
        nn.LayerNorm(features),
        nn.Dropout(0.2),
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.Dropout(0.4),
        nn.Linear(hidden, width),
    )


class Fork(nn.Module):
    """Two projections of the same features: the classifier's embedding (B, D), then the aligned vector (B, A), as (B, D + A)."""

    def __init__(self, classify: nn.Module, align: nn.Module) -> None:
        super().__init__()
        self.classify = classify
        self.align = align

    def forward(self, features: Tensor) -> Tensor:
        """Project a batch: (B, F) to (B, D + A)."""
        return torch.cat([self.classify(features), self.align(features)], dim=1)


def feature_width(project: nn.Module) -> int:
    """Return F, the width of the features that a projection takes. Raises TypeError for one without a layer that names it."""
    for module in project.modules():
        if isinstance(module, nn.LayerNorm):
            return int(module.normalized_shape[-1])
        if isinstance(module, nn.Linear):
            return module.in_features
    raise TypeError(f"no linear layer or layer normalisation in {type(project).__name__}")
