"""The weights that are kept: averaged over the last steps, and drawn back a little to where a trained encoder began."""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from model.network import MultimodalClassifier
from model.training.presets import PROJECT, TrainingConfig

YOUNG: Final = 10  # steps in which a young average forgets the untrained weights, whatever the decay


class Average:
    """A second network beside the one that is trained; this one is validated and kept.

    Its weights are an exponential moving average of the trained ones (Polyak & Juditsky, 1992). Those of an encoder that began
    with trained weights, as `encoder_learning_rates` says, are then interpolated with what they are in `network` now, before
    training: it loses less of what it could do on other data (WiSE-FT, Wortsman et al., arXiv:2109.01903). With neither, nothing
    is copied.
    """

    def __init__(self, network: MultimodalClassifier, config: TrainingConfig) -> None:
        self._trained = network
        self._decay = config.averaging
        self._retained = config.retained
        encoders = tuple(f"encoders.{name}." for name in config.encoder_learning_rates) if config.retained else ()
        self._initial = {
            name: each.clone()
            for name, each in network.state_dict().items()
            if name.startswith(encoders)
            and each.is_floating_point()
            and not (PROJECT.match(name) or config.freezes(name))
        }
        self._running: dict[str, Tensor] = {}
        if self._decay or self._initial:
            self._running = {
                name: each.clone() for name, each in network.state_dict().items() if not config.freezes(name)
            }
            self._copy = copy.deepcopy(network).eval()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after this step, counted from 1."""
        decay = min(self._decay, step / (step + YOUNG))
        trained = self._trained.state_dict()
        for name, each in self._running.items():
            if each.is_floating_point():
                each.lerp_(trained[name], 1.0 - decay)
            else:
                each.copy_(trained[name])

    @torch.no_grad()
    def network(self) -> MultimodalClassifier:
        """The network with the averaged weights as they are now."""
        if not self._running:
            return self._trained
        average = self._copy.state_dict()
        for name, each in self._running.items():
            average[name].copy_(each)
            if name in self._initial:
                average[name].lerp_(self._initial[name], self._retained)
        return self._copy

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return self._running

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, each in self._running.items():
            each.copy_(state[name])
