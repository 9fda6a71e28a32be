"""The network that is validated and kept: an average of the trained one, interpolated with its initial weights."""

import pytest
import torch

from polymodal.model.network import build_network
from polymodal.model.training.averaging import Average
from polymodal.model.training.presets import TrainingConfig

AVERAGED = TrainingConfig(averaging=0.9)
RATES = {"image": 1e-4, "text": 1e-5}  # of encoders with trained initial weights
LATE = 10_000  # a step with the full decay


@pytest.fixture
def network(network_config):
    torch.manual_seed(0)
    return build_network(network_config)


def shift(network, by):
    with torch.no_grad():
        for weight in network.state_dict().values():
            if weight.is_floating_point():
                weight.add_(by)


def weights(network):
    return {name: weight.clone() for name, weight in network.state_dict().items() if weight.is_floating_point()}


def averaged(network, config, step=LATE):
    """The weights before, and those that are kept after a step in which all trained weights grew by 1."""
    average, before = Average(network, config), weights(network)
    shift(network, 1.0)
    average.update(step)
    return before, weights(average.network()), average


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(TrainingConfig(), id="no-averaging"),
        pytest.param(TrainingConfig(retained=0.25), id="only-random-initial-weights"),
    ],
)
def test_without_averaging_it_is_the_trained_network(network, config):
    *_, average = averaged(network, config)
    assert average.network() is network
    assert average.state_dict() == {}


def test_it_lags_behind_the_trained_network(network):
    average, before = Average(network, AVERAGED), weights(network)
    shift(network, 1.0)
    distances = []
    for step in range(1, 60):
        average.update(step)
        name = "head.classify.1.weight"
        distances.append(float((weights(average.network())[name] - before[name]).mean()))
    assert distances == sorted(distances)
    assert 0 < distances[0] < 1
    assert distances[-1] == pytest.approx(1, abs=0.01)


def test_a_late_step_changes_the_average_by_one_minus_the_decay(network):
    before, after, _ = averaged(network, AVERAGED)
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name] + 0.1)


@pytest.mark.parametrize("modalities", [("image", "text"), ("image",)], ids=["both-trained", "text-from-scratch"])
def test_trained_encoders_keep_a_share_of_their_initial_weights(network, modalities):
    rates = {name: RATES[name] for name in modalities}
    before, after, _ = averaged(network, TrainingConfig(retained=0.25, encoder_learning_rates=rates))
    prefixes = tuple(f"encoders.{name}." for name in modalities)
    for name, weight in after.items():
        interpolated = name.startswith(prefixes) and ".project." not in name
        torch.testing.assert_close(weight, before[name] + (0.75 if interpolated else 1.0))


def test_frozen_weights_stay_and_are_not_stored_twice(network):
    before, after, average = averaged(network, TrainingConfig(averaging=0.9, frozen=("encoders.text.",)))
    frozen = [name for name in before if name.startswith("encoders.text.") and ".project." not in name]
    assert frozen
    assert not set(frozen) & set(average.state_dict())
    for name in frozen:
        torch.testing.assert_close(after[name], before[name])


def test_the_trained_network_does_not_change(network):
    average = Average(network, TrainingConfig(averaging=0.9, retained=0.25, encoder_learning_rates=RATES))
    shift(network, 1.0)
    before = weights(network)
    average.update(1)
    average.network()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(network).items())
