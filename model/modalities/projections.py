"""Projections from an encoder's features to an embedding."""

from torch import nn


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
