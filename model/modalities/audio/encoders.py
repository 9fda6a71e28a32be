"""Audio encoders: networks from log-mel windows to an embedding.

B sounds, N windows of the longest, F frames and M mel bands of a window, C channels, D embedding width. Every encoder is built with
D and takes `windows` float32 (B, N, F, M) and `mask` bool (B, N), true where there is a window, to float32 (B, D); padding never
changes the result.
"""

from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor, nn

from polymodal.model.modalities.projections import perceptron

MEAN, DEVIATION = -3.0, 3.0  # about those of log-mel energies, whose floor is ln 0.001


class ConvEncoder(nn.Module):
    """A small convolutional network over log-mel energies, trained from scratch: four halvings, then the mean over what is left.

    Windows are encoded one by one; the mean of their features is projected.
    """

    def __init__(self, width: int, channels: int = 24, dropout: float = 0.2) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 1
        for outputs in (channels, 2 * channels, 4 * channels, 6 * channels):
            stages += [_convolution(inputs, outputs, stride=2), _convolution(outputs, outputs, stride=1)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, width))

    def forward(self, windows: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, N, F, M) to (B, D)."""
        single = (_single(windows) - MEAN) / DEVIATION  # (B · N, 1, F, M)
        features = self.stages(single).mean(dim=(2, 3))  # (B · N, C)
        return self.project(_masked_mean(features.unflatten(0, windows.shape[:2]), mask))


class YamNet(nn.Module):
    """MobileNet v1 over log-mel energies, without batch normalisation, which is folded into its trained weights.

    Howard et al., "MobileNets" (arXiv:1704.04861), table 1, as in yamnet/yamnet.py of TensorFlow's models, without its classifier.
    `multiplier` applies to the channels of every layer. `presets.py` has weights that were trained on AudioSet.
    """

    # Stride and output channels of each pair of a depthwise and a pointwise convolution.
    LAYERS: Final = (
        *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
        *((1, 512),) * 5,
        *((2, 1024), (1, 1024)),
    )

    def __init__(self, width: int, multiplier: float = 1.0, projection: int = 256) -> None:
        super().__init__()
        inputs = round(32 * multiplier)
        layers: list[nn.Module] = [_same(1, inputs, 3, stride=2)]
        for stride, channels in self.LAYERS:
            outputs = round(channels * multiplier)
            layers += [_same(inputs, inputs, 3, stride=stride, groups=inputs), _same(inputs, outputs, 1)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.project = perceptron(inputs, projection, width)

    def forward(self, windows: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, N, F, M) to (B, D)."""
        features = self.layers(_single(windows)).mean(dim=(2, 3))  # (B · N, C)
        return self.project(_masked_mean(features.unflatten(0, windows.shape[:2]), mask))


def _single(windows: Tensor) -> Tensor:
    """Return each window by itself: (B, N, F, M) to (B · N, 1, F, M)."""
    return windows.reshape(-1, 1, *windows.shape[2:])


def _same(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build a convolution with bias and ReLU, padded as TensorFlow pads an even number of frames and bands."""
    halving = stride == 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, 0 if halving else kernel // 2, groups=groups)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)) if halving else nn.Identity(), convolution, nn.ReLU())


def _convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()
    )


def _masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the windows of each sound, as a product of matrices: (B, N, C) to (B, C)."""
    weights = mask.to(features.dtype)[:, None, :]  # (B, 1, N)
    return (weights @ features).squeeze(1) / weights.sum(dim=2)


ENCODERS: Final[Mapping[str, Callable[..., nn.Module]]] = {"cnn": ConvEncoder, "yamnet": YamNet}
