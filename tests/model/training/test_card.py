"""The text of a model card depends on the inputs of the network and on the metrics."""

import pytest

from polymodal.model import MODALITIES
from polymodal.model.config import BundleConfig, EncoderConfig, ModalityConfig, NetworkConfig, Scale, subsets
from polymodal.model.training.card import write_card
from tests.toys.tone import TONE

FIGURES = {
    "single-label": ("accuracy", "macro_f1", "calibration_error"),
    "multi-label": ("macro_f1", "micro_f1", "mean_average_precision", "exact_match", "calibration_error"),
    "regression": ("mae", "rmse", "r2", "coverage", "mean_interval_width"),
}


def card(target, *modalities, measured=None, calibrated=None, intervals=None):
    network = NetworkConfig(
        modalities={name: ModalityConfig(input={}, encoder=EncoderConfig(name="any")) for name in modalities},
        width=1,
        fusion="sum",
        target=target,
        labels=() if target == "regression" else ("sea", "tomato"),
        scale=Scale(mean=0, std=1) if target == "regression" else None,
    )
    sets = subsets(network.order)
    calibration = {
        "single-label": {"temperatures": dict.fromkeys(calibrated or sets, 1.0)},
        "multi-label": {
            "temperatures": dict.fromkeys(sets, 1.0),
            "thresholds": dict.fromkeys(network.labels, 0.5),
        },
        "regression": {"half_widths": {}},
    }[target]
    figures = {"items": 2, **dict.fromkeys(FIGURES[target], 1.0), "intervals": intervals or {}, "sources": {}}
    report = {
        "preset": "any",
        "metrics": {"validation": dict.fromkeys(measured or sets, figures)},
        "data": {"items": {}, "digest": "0"},
        "training": {"epochs_run": 1, "best_epoch": 1, "seed": 0},
        "code": {"revision": "0"},
    }
    return write_card(BundleConfig(name="things", network=network, **calibration), report, ())


@pytest.mark.parametrize(
    ("target", "modalities", "sentence"),
    [
        pytest.param("single-label", ["text"], "Chooses one of 2 labels for text: sea, tomato.", id="one"),
        pytest.param(
            "single-label",
            ["image", "text"],
            "Chooses one of 2 labels for image and text together, or any one of them alone: sea, tomato.",
            id="two",
        ),
        pytest.param(
            "single-label",
            ["image", "text", "tone"],
            "Chooses one of 2 labels for image, text and tone together, or any of them without the others: sea, tomato.",
            id="three",
        ),
        pytest.param(
            "multi-label",
            ["image"],
            "Says which of 2 labels fit image; any number may, also none: sea, tomato.",
            id="labels",
        ),
        pytest.param(
            "multi-label",
            ["image", "text"],
            "fit image and text together, or any one of them alone; any number",
            id="labels-of-two",
        ),
        pytest.param("regression", ["text"], "Estimates a number from text.", id="number"),
        pytest.param(
            "regression",
            ["image", "text"],
            "Estimates a number from image and text together, or any one of them alone.",
            id="number-from-two",
        ),
        pytest.param("single-label", ["text"], "also for a text that shows none of them", id="limits-of-texts"),
        pytest.param(
            "regression", ["image"], "also for a picture that has nothing to do with it", id="limits-of-images"
        ),
        pytest.param(
            "regression", ["image", "text"], "also for a picture or a text that has nothing", id="limits-of-both"
        ),
    ],
)
def test_a_card_names_the_inputs_of_the_network(target, modalities, sentence, monkeypatch):
    monkeypatch.setitem(MODALITIES, TONE.name, TONE)
    text = card(target, *modalities)
    assert sentence in text
    if len(modalities) == 1:
        assert "together" not in text
        assert "alone" not in text
        assert ("image" if modalities == ["text"] else "text") not in text


def test_a_missing_interval_is_left_out():
    text = card("single-label", "text", intervals={"accuracy": (0.342, 1.0), "macro_f1": None})
    assert "| text | 2 | 1.000 [0.342, 1.000] | 1.000 | 1.000 |" in text


def test_sets_of_inputs_with_the_calibration_of_another_set_are_named():
    text = card("single-label", "image", "text", measured=["text"], calibrated=["text"])
    assert "These are image + text (as text), image (as text)." in text
    assert "calibrated as the nearest set" not in card("single-label", "image", "text")


def test_with_more_than_two_inputs_the_rule_for_other_sets_is_stated(monkeypatch):
    monkeypatch.setitem(MODALITIES, TONE.name, TONE)
    assert "calibrated as the nearest set that has enough" in card("single-label", "image", "text", "tone")
