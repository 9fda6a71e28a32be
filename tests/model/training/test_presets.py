"""Recipes depend on the inputs that the data have, and the same data give the same recipe."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from polymodal.model.errors import ModelError
from polymodal.model.modalities import MODALITIES
from polymodal.model.modalities.branch import Branch
from polymodal.model.network import build_network, encoders_of
from polymodal.model.training import presets
from polymodal.model.training.presets import PRESETS, TrainingConfig, cnn_rnn, presets_of, pretrained_encoders

BRANCHES = {name: presets_of(name).BRANCHES for name in MODALITIES}


def only(manifest, modality):
    """The manifest with this modality alone, without the rows that lack it."""
    kept = [row for row in manifest.rows if modality in row.inputs]
    return replace(manifest, rows=tuple(replace(row, inputs={modality: row.inputs[modality]}) for row in kept))


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_modality_that_the_data_lack_is_not_in_the_network(manifest, tmp_path, modality):
    recipe = cnn_rnn(only(manifest, modality), tmp_path, {})
    assert recipe.network.order == (modality,)
    assert list(recipe.inputs) == [modality]


def test_a_modality_that_only_other_splits_have_is_not_in_the_network(manifest, tmp_path):
    rows = tuple(
        replace(row, inputs={name: row.inputs[name] for name in row.inputs if name != "text" or row.split != "train"})
        for row in manifest.rows
    )
    assert cnn_rnn(replace(manifest, rows=rows), tmp_path, {}).network.order == ("image",)


def test_frozen_encoders_are_not_augmented():
    augmented = {name: presets_of(name).PRESETS["pretrained"].augmented for name in MODALITIES}
    assert augmented == {"image": True, "text": False, "audio": False}


def test_the_documented_presets_exist():
    assert set(PRESETS) == {"cnn-rnn", "pretrained", "align"}


def test_the_network_config_has_the_settings_of_the_inputs(manifest, tmp_path):
    recipe = cnn_rnn(manifest, tmp_path, {})
    for name, entry in recipe.inputs.items():
        assert recipe.network.modalities[name].input == entry.settings()
    assert recipe.network.labels == manifest.labels
    assert recipe.training.epochs >= recipe.training.patience > 0
    assert TrainingConfig().modality_dropout > 0


def test_the_vocabulary_is_made_from_training_texts_alone(manifest, tmp_path):
    rows = tuple(
        row if row.split == "train" else replace(row, inputs={**row.inputs, "text": "zyzzyva"}) for row in manifest.rows
    )
    vocabularies = set()
    for data in (replace(manifest, rows=rows), manifest):
        cnn_rnn(data, tmp_path, {}).inputs["text"].save(tmp_path)
        vocabularies.add((tmp_path / "tokenizer.json").read_bytes())
    assert len(vocabularies) == 1


def test_every_encoder_has_a_name_for_the_presets():
    """Encoders of other libraries have addresses; see test_hub."""
    for modality, branches in BRANCHES.items():
        assert set(encoders_of(modality)) - {"transformers", "timm"} == set(branches)


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality, table in BRANCHES.items() for name in table]
)
def test_any_encoder_can_replace_that_of_the_preset(manifest, tmp_path, modality, name):
    rows = tuple(replace(row, inputs={modality: tmp_path, **row.inputs}) for row in manifest.rows)
    recipe = cnn_rnn(replace(manifest, rows=rows), tmp_path, {modality: name})
    assert recipe.network.modalities[modality].encoder.name == name
    assert recipe.weights == {}
    with torch.device("meta"):
        build_network(recipe.network)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_error_for_an_unknown_encoder_names_the_known_ones(manifest, tmp_path, modality):
    known = ", ".join(BRANCHES[modality])
    with pytest.raises(
        ModelError, match=f"{modality} encoder 'abacus' is not known; known are {known}, a model's folder"
    ):
        cnn_rnn(manifest, tmp_path, {modality: "abacus"})


@pytest.fixture
def trained(monkeypatch, manifest, tmp_path):
    """`trained(image, text)`: the pretrained recipe, with branches that have weights of these names."""
    plain = cnn_rnn(manifest, tmp_path, {})

    def recipe(image=(), text=()):
        def make(modality, *_):
            weights = {key: np.zeros(1) for key in {"image": image, "text": text}[modality]}
            encoder = plain.network.modalities[modality].encoder
            return Branch(plain.inputs[modality], encoder, weights, origin=modality if weights else None)

        monkeypatch.setattr(presets, "make_branch", make)
        return pretrained_encoders(manifest, tmp_path, {})

    return recipe


def test_encoders_from_scratch_learn_at_the_full_rate(trained):
    rates = trained(["stem.weight"], ["layers.0.weight"]).training.encoder_learning_rates
    assert set(rates) == {"image", "text"}
    assert set(trained([], ["layers.0.weight"]).training.encoder_learning_rates) == {"text"}
    assert (
        trained(text=["embed.weight"]).training.encoder_learning_rates == {}
    )  # an encoder of which only the embeddings are trained


def test_weights_are_named_as_in_the_network_and_their_origins_listed(trained):
    recipe = trained(["stem.weight"], ["embed.weight"])
    assert set(recipe.weights) == {"encoders.image.stem.weight", "encoders.text.embed.weight"}
    assert recipe.origins == ("image", "text")
    assert trained(text=["embed.weight"]).origins == ("text",)


@pytest.mark.parametrize(
    ("frozen", "name", "freezes"),
    [
        pytest.param(("encoders.image.",), "encoders.image.stem.1.weight", True, id="weight"),
        pytest.param(("encoders.image.",), "encoders.image.", True, id="encoder"),
        pytest.param(("encoders.image.",), "encoders.image.project.1.weight", False, id="project"),
        pytest.param(("encoders.image.",), "encoders.image.model.project.weight", True, id="another-project"),
        pytest.param(("encoders.image.",), "encoders.text.embed.weight", False, id="other-encoder"),
        pytest.param(
            ("encoders.text.embed.",), "encoders.text.layers.0.query.weight", False, id="after-the-embeddings"
        ),
        pytest.param((), "head.classify.0.weight", False, id="nothing"),
    ],
)
def test_weights_are_frozen_by_prefix_except_projections(frozen, name, freezes):
    assert TrainingConfig(frozen=frozen).freezes(name) == freezes
