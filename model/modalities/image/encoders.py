"""Networks that turn preprocessed pixels into an embedding.

B pictures, S side in pixels, C channels, D embedding width. Every encoder is built with D and takes `pixels` uint8
(B, S, S, 3), RGB, to float32 (B, D). It normalises inside, so that a graph exported from it can't be fed differently than it was
trained.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0: mobile inverted bottlenecks with ReLU6 and without squeeze-and-excitation.

    Architecture: Tan & Le, "EfficientNet" (arXiv:1905.11946), table 1, as changed by the "lite" variants of TensorFlow's
    TPU models: stem and head keep their width, no squeeze-and-excitation, ReLU6, inputs (x − 127) / 128.
    `model.training.pretrained` knows where ImageNet weights come from.
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

    def __init__(self, width: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = 32
        for expansion, outputs, repeats, kernel, stride in self.STAGES:
            for repeat in range(repeats):
                blocks.append(_Bottleneck(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(inputs, self.FEATURES, 1)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.FEATURES, width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch: uint8 (B, S, S, 3) to (B, D)."""
        features = self.head(self.blocks(self.stem(_centred(pixels))))  # (B, 1280, S / 32, S / 32)
        return self.project(features.mean(dim=(2, 3)))


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
    """TensorFlow's "SAME" for stride 2 on even sides: the odd pixel of padding goes right and below."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        total = kernel - 2
        self.padding = (total // 2, total - total // 2) * 2

    def forward(self, features: Tensor) -> Tensor:
        return functional.pad(features, self.padding)


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU6, padded as TensorFlow pads."""
    halving = stride == 2
    padding = 0 if halving else kernel // 2
    return nn.Sequential(
        _SamePadding(kernel) if halving else nn.Identity(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        _batch_norm(outputs),
        nn.ReLU6(),
    )


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # As in TensorFlow's EfficientNet: momentum 0.99 there is 0.01 here, epsilon 1e-3.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _centred(pixels: Tensor) -> Tensor:
    """From uint8 (B, S, S, 3) to about −1 … 1 (B, 3, S, S), by the constants that the lite weights were trained with."""
    return (pixels.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 128.0


ENCODERS: Final[Mapping[str, type[nn.Module]]] = {"cnn": ConvEncoder, "efficientnet-lite0": EfficientNetLite0}
