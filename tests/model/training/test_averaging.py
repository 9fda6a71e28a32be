"""The network that is validated and kept: an average of the trained one, drawn back a little to where it began."""

import pytest
import torch

from polymodal.model.network import build_network
from polymodal.model.training.averaging import Average
from polymodal.model.training.presets import TrainingConfig

AVERAGED = TrainingConfig(averaging=0.9)
RATES = {"image": 1e-4, "text": 1e-5}  # of encoders that began with trained weights
RETAINED = TrainingConfig(retained=0.25, encoder_learning_rates=RATES)


@pytest.fixture
def network(network_config):
    torch.manual_seed(0)
    return build_network(network_config)


@pytest.fixture
def average(network):
    def make(config):
        return Average(network, config)

    return make


def shift(network, by):
    with torch.no_grad():
        for each in network.state_dict().values():
            if each.is_floating_point():
                each.add_(by)


def weights(network):
    return {name: each.clone() for name, each in network.state_dict().items()}


def test_without_averaging_it_is_the_trained_network_itself(network, average):
    kept = average(TrainingConfig())
    shift(network, 1.0)
    kept.update(1)
    assert kept.network() is network
    assert kept.state_dict() == {}


def test_it_follows_the_trained_network_and_lags_behind(network, average):
    kept, before = average(AVERAGED), weights(network)
    shift(network, 1.0)
    distances = []
    for step in range(1, 60):
        kept.update(step)
        name = "head.classify.1.weight"
        distances.append(float((weights(kept.network())[name] - before[name]).mean()))
    assert distances == sorted(distances)
    assert 0 < distances[0] < 1
    assert distances[-1] == pytest.approx(1, abs=0.01)


def test_the_average_is_the_formula_s(network, average):
    kept, before = average(AVERAGED), weights(network)
    shift(network, 1.0)
    kept.update(10_000)  # where the decay is the full one
    for name, each in weights(kept.network()).items():
        if each.is_floating_point():
            torch.testing.assert_close(each, before[name] + 0.1)


def test_encoders_keep_a_share_of_what_they_began_with_and_the_rest_does_not(network, average):
    kept, before = average(RETAINED), weights(network)
    shift(network, 1.0)
    kept.update(1)
    after = weights(kept.network())
    for name, each in after.items():
        if not each.is_floating_point():
            continue
        drawn_back = name.startswith("encoders.") and ".project." not in name
        torch.testing.assert_close(each, before[name] + (0.75 if drawn_back else 1.0))


def test_nothing_is_drawn_back_to_random_weights(network, average):
    kept = average(TrainingConfig(retained=0.25))
    assert kept.network() is network


def test_an_encoder_from_scratch_beside_a_trained_one_is_not_drawn_back(network, average):
    kept, before = average(TrainingConfig(retained=0.25, encoder_learning_rates={"image": 1e-4})), weights(network)
    shift(network, 1.0)
    kept.update(1)
    for name, each in weights(kept.network()).items():
        if name.startswith("encoders.text.") and each.is_floating_point():
            torch.testing.assert_close(each, before[name] + 1.0)


def test_what_is_frozen_stays_and_is_not_kept_twice(network, average):
    kept, before = average(TrainingConfig(averaging=0.9, frozen=("encoders.text.",))), weights(network)
    shift(network, 1.0)
    kept.update(10_000)
    after = weights(kept.network())
    frozen = [name for name in before if name.startswith("encoders.text.") and ".project." not in name]
    assert frozen
    assert not set(frozen) & set(kept.state_dict())
    for name in frozen:
        torch.testing.assert_close(after[name], before[name])


def test_the_trained_network_is_not_touched(network, average):
    kept = average(TrainingConfig(averaging=0.9, retained=0.25, encoder_learning_rates=RATES))
    shift(network, 1.0)
    before = weights(network)
    kept.update(1)
    kept.network()
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
