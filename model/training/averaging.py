"""The weights that are kept: averaged over the last steps, and drawn back a little to where a trained encoder began."""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from model.network import MultimodalClassifier
from model.training.presets import PROJECT, TrainingConfig

YOUNG: Final = (
    10  # steps over which the average forgets the untrained weights, as in TensorFlow's ExponentialMovingAverage
)


class Average:
    """A second network beside the one that is trained; this one is validated and kept.

    Its weights are an exponential moving average of the trained ones (Polyak & Juditsky, 1992). Those of an encoder that began
    with trained weights are then interpolated with these: it loses less of what it could do on other data (WiSE-FT, Wortsman et
    al., arXiv:2109.01903). `initial` holds what a network began with; without averaging and interpolation nothing is copied.
    """

    def __init__(
        self, network: MultimodalClassifier, initial: Mapping[str, Tensor], config: TrainingConfig, *, trained: bool
    ) -> None:
        self._trained = network
        self._decay = config.averaging
        self._retained = config.retained if trained else 0.0
        self._needed = bool(self._decay or self._retained)
        self._initial = {
            name: each.clone()
            for name, each in (initial.items() if self._retained else ())
            if name.startswith("encoders.") and not PROJECT.match(name) and each.is_floating_point()
        }
        self._running: dict[str, Tensor] = {}
        if self._needed:
            self._running = {name: each.detach().clone() for name, each in network.state_dict().items()}
            self._copy = copy.deepcopy(network).eval()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after this step, counted from 1."""
        decay = min(self._decay, step / (step + YOUNG))
        for name, each in self._trained.state_dict().items() if self._needed else ():
            if each.is_floating_point():
                self._running[name].lerp_(each, 1.0 - decay)
            else:
                self._running[name].copy_(each)

    @torch.no_grad()
    def network(self) -> MultimodalClassifier:
        """The network with the averaged weights as they are now."""
        if not self._needed:
            return self._trained
        for name, each in self._copy.state_dict().items():
            each.copy_(self._running[name])
            if name in self._initial:
                each.lerp_(self._initial[name].to(each.device), self._retained)
        return self._copy

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return self._running

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, each in self._running.items():
            each.copy_(state[name])
