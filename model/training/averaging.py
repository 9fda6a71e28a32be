"""A moving average of the weights over steps, interpolated with the initial weights of trained encoders."""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from polymodal.model.network import MultimodalClassifier
from polymodal.model.training.presets import PROJECT, TrainingConfig

WARM_UP: Final = 10  # steps with a smaller decay, so that the average soon contains little of the untrained weights


class Average:
    """The network that is validated and kept, next to the one that is trained.

    Its weights are an exponential moving average of the trained ones (Polyak & Juditsky, 1992). Those of encoders with trained
    initial weights (keys of `encoder_learning_rates`) are then interpolated with their values in `network` before training, which
    improves accuracy on other data (WiSE-FT, Wortsman et al., arXiv:2109.01903). Without both, nothing is copied.
    """

    def __init__(self, network: MultimodalClassifier, config: TrainingConfig) -> None:
        self._trained = network
        self._decay = config.averaging
        self._retained = config.retained
        encoders = tuple(f"encoders.{name}." for name in config.encoder_learning_rates) if config.retained else ()
        self._initial = {
            name: weight.clone()
            for name, weight in network.state_dict().items()
            if name.startswith(encoders)
            and weight.is_floating_point()
            and not (PROJECT.match(name) or config.freezes(name))
        }
        self._running: dict[str, Tensor] = {}
        if self._decay or self._initial:
            self._running = {
                name: weight.clone() for name, weight in network.state_dict().items() if not config.freezes(name)
            }
            self._copy = copy.deepcopy(network).eval()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after this step, counted from 1, to the average."""
        decay = min(self._decay, step / (step + WARM_UP))
        trained = self._trained.state_dict()
        for name, weight in self._running.items():
            if weight.is_floating_point():
                weight.lerp_(trained[name], 1.0 - decay)
            else:
                weight.copy_(trained[name])

    @torch.no_grad()
    def network(self) -> MultimodalClassifier:
        """Return the network with the current averaged weights."""
        if not self._running:
            return self._trained
        average = self._copy.state_dict()
        for name, weight in self._running.items():
            average[name].copy_(weight)
            if name in self._initial:
                average[name].lerp_(self._initial[name], self._retained)
        return self._copy

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint."""
        return self._running

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of a checkpoint."""
        for name, weight in self._running.items():
            weight.copy_(state[name])
