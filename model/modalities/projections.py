"""From an encoder's features to an embedding, where one linear layer is not enough."""

from torch import nn


def perceptron(features: int, hidden: int, width: int) -> nn.Sequential:
    """Normalise, then two layers with much dropout: for features that stay as they were trained, and few examples."""
    return nn.Sequential(
        nn.LayerNorm(features),
        nn.Dropout(0.2),
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.Dropout(0.4),
        nn.Linear(hidden, width),
    )
