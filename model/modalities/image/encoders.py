"""Image encoders: networks from preprocessed pixels to an embedding.

B images, S side in pixels, C channels, D embedding width. Every encoder is built with D and takes `pixels` uint8
(B, S, S, 3), RGB, to float32 (B, D). It normalises inside, so that an exported graph gets the same inputs as in training.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from polymodal.model.modalities import libraries
from polymodal.model.modalities.projections import perceptron


class ConvEncoder(nn.Module):
    """A small convolutional network, trained from scratch: four halvings, then the mean over what is left."""

    def __init__(self, width: int, channels: int = 48, dropout: float = 0.1) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for outputs in (channels, 2 * channels, 4 * channels, 6 * channels):
            stages += [_convolution(inputs, outputs, 3, stride=2), _convolution(outputs, outputs, 3)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch: uint8 (B, S, S, 3) to (B, D)."""
        features = self.stages(_centred(pixels))  # (B, C, S / 16, S / 16)
        return self.project(features.mean(dim=(2, 3)))


class EfficientNetLite(nn.Module):
    """EfficientNet-lite0 … lite4: mobile inverted bottlenecks with ReLU6 and without squeeze-and-excitation.

    Architecture: Tan & Le, "EfficientNet" (arXiv:1905.11946), table 1, as changed by the "lite" variants of TensorFlow's
    TPU models: stem and head keep their width, first and last stage their depth, no squeeze-and-excitation, ReLU6, inputs
    (x − 127) / 128. `width_multiplier` applies to the channels of every stage, `depth_multiplier` to its blocks.
    `presets.py` has its ImageNet weights.
    """

    # expansion, output channels, repeats, kernel, stride of the first
    STAGES: Final = (
        (1, 16, 1, 3, 1),
        (6, 24, 2, 3, 2),
        (6, 40, 2, 5, 2),
        (6, 80, 3, 3, 2),
        (6, 112, 3, 5, 1),
        (6, 192, 4, 5, 2),
        (6, 320, 1, 3, 1),
    )
    FEATURES: Final = 1280

    def __init__(
        self,
        width: int,
        width_multiplier: float = 1.0,
        depth_multiplier: float = 1.0,
        dropout: float = 0.2,
        projection: int = 0,
    ) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = 32
        for expansion, channels, repeats, kernel, stride in self.STAGES:
            outputs = _eights(channels * width_multiplier)
            at_an_end = len(blocks) == 0 or channels == self.STAGES[-1][1]
            for repeat in range(repeats if at_an_end else math.ceil(repeats * depth_multiplier)):
                blocks.append(_Bottleneck(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(inputs, self.FEATURES, 1)
        if projection:
            self.project = perceptron(self.FEATURES, projection, width)
        else:
            self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.FEATURES, width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch: uint8 (B, S, S, 3) to (B, D)."""
        features = self.head(self.blocks(self.stem(_centred(pixels))))  # (B, 1280, S / 32, S / 32)
        return self.project(features.mean(dim=(2, 3)))


class _LibraryEncoder(nn.Module):
    """Base of encoders with a model of another library.

    `features` is the width of the pooled features; `mean` and `std` of each colour, for values from 0 to 1, are those of the
    model's training.
    """

    def __init__(
        self, model: nn.Module, width: int, features: int, mean: Sequence[float], std: Sequence[float], dropout: float
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.model = model
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch: uint8 (B, S, S, 3) to (B, D)."""
        return self.project(self.pool(pixels))

    def pool(self, pixels: Tensor) -> Tensor:
        """Return the model's pooled features: uint8 (B, S, S, 3) to (B, `features`)."""
        return self.model(self.normalise(pixels))


class TransformersEncoder(_LibraryEncoder):
    """Any image model of Hugging Face transformers that takes pixel values, built from its `config` alone.

    Uses its own pooling where it has one, otherwise the mean over positions.
    """

    def __init__(
        self,
        width: int,
        config: Mapping[str, Any],
        features: int,
        mean: Sequence[float],
        std: Sequence[float],
        dropout: float = 0.1,
    ) -> None:
        super().__init__(libraries.transformers_model(config), width, features, mean, std, dropout)

    def pool(self, pixels: Tensor) -> Tensor:
        """Return the model's pooled features: uint8 (B, S, S, 3) to (B, `features`)."""
        output = self.model(pixel_values=self.normalise(pixels))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            states = output.last_hidden_state  # (B, T, C) of a transformer, (B, C, H, W) of a convolutional network
            pooled = states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))
        return pooled.flatten(1)


class TimmEncoder(_LibraryEncoder):
    """Any architecture of timm, with its own pooling and without its classifier.

    `arguments` are keyword arguments of timm's constructor.
    """

    def __init__(
        self,
        width: int,
        architecture: str,
        features: int,
        mean: Sequence[float],
        std: Sequence[float],
        arguments: Mapping[str, Any] = MappingProxyType({}),
        dropout: float = 0.1,
    ) -> None:
        super().__init__(libraries.timm_model(architecture, arguments), width, features, mean, std, dropout)


class _Bottleneck(nn.Module):
    """Expand with 1 × 1, filter each channel by itself, project with 1 × 1; add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = _convolution(inputs, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(middle, middle, kernel, stride=stride, groups=middle)
        self.contract = nn.Sequential(nn.Conv2d(middle, outputs, 1, bias=False), _batch_norm(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        result = self.contract(self.depthwise(self.expand(features)))
        return result + features if self.residual else result


class _SamePadding(nn.Module):
    """TensorFlow's "SAME" for stride 2: ⌈S / 2⌉ remain of a side; an odd pixel of padding goes right and below."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        left, right = self._ends(width)
        return functional.pad(features, (left, right, *self._ends(height)))

    def _ends(self, side: int) -> tuple[int, int]:
        total = self.kernel - 2 + side % 2
        return total // 2, total - total // 2


class Normalise(nn.Module):
    """Convert uint8 (B, S, S, 3) to (B, 3, S, S): each colour, from 0 to 1, minus `mean`, divided by `std`."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Constants from config.json, not weights.
        self.register_buffer("mean", 255.0 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise a batch: (B, S, S, 3) to (B, 3, S, S)."""
        return (pixels.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build convolution, batch normalisation and ReLU6, padded as TensorFlow pads."""
    halving = stride == 2
    padding = 0 if halving else kernel // 2
    return nn.Sequential(
        _SamePadding(kernel) if halving else nn.Identity(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        _batch_norm(outputs),
        nn.ReLU6(),
    )


def _eights(channels: float) -> int:
    """Round to the nearest multiple of 8, but not below nine tenths, as EfficientNet rounds scaled channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # As in TensorFlow's EfficientNet: momentum 0.99 there is 0.01 here, epsilon 1e-3.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _centred(pixels: Tensor) -> Tensor:
    """Convert uint8 (B, S, S, 3) to about −1 … 1 (B, 3, S, S), by the constants of the lite weights."""
    return (pixels.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 128.0


# Multipliers of width and depth, and dropout: efficientnet_lite_builder.py of TensorFlow's TPU models.
ENCODERS: Final[Mapping[str, Callable[..., nn.Module]]] = {
    "cnn": ConvEncoder,
    "efficientnet-lite0": partial(EfficientNetLite, width_multiplier=1.0, depth_multiplier=1.0, dropout=0.2),
    "efficientnet-lite1": partial(EfficientNetLite, width_multiplier=1.0, depth_multiplier=1.1, dropout=0.2),
    "efficientnet-lite2": partial(EfficientNetLite, width_multiplier=1.1, depth_multiplier=1.2, dropout=0.3),
    "efficientnet-lite3": partial(EfficientNetLite, width_multiplier=1.2, depth_multiplier=1.4, dropout=0.3),
    "efficientnet-lite4": partial(EfficientNetLite, width_multiplier=1.4, depth_multiplier=1.8, dropout=0.3),
    "transformers": TransformersEncoder,
    "timm": TimmEncoder,
}
