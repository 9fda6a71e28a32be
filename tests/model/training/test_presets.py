"""Recipes begin from what the data has, and the same data gives the same recipe."""

from dataclasses import replace

import pytest

from model.training.presets import PRESETS, TrainingConfig, cnn_rnn, train_tokenizer


def only(manifest, modality):
    """Every row keeps this modality alone; rows without it are gone."""
    other = {"image": "text", "text": "image"}[modality]
    rows = tuple(replace(row, **{other: None}) for row in manifest.rows if getattr(row, modality))
    return replace(manifest, rows=rows)


def test_the_same_texts_give_the_same_vocabulary(manifest):
    vocabularies = {train_tokenizer(manifest).to_str() for _ in range(8)}
    assert len(vocabularies) == 1


def test_a_vocabulary_begins_with_padding_and_spells_what_it_does_not_know(manifest):
    tokenizer = train_tokenizer(manifest)
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (0, 1)
    assert tokenizer.encode("RED water").tokens == ["red", "water"]
    assert tokenizer.encode("waters").tokens[0].startswith("wat")
    assert "[UNK]" not in tokenizer.encode("a waterside").tokens
    assert tokenizer.encode("深").tokens == ["[UNK]"]


def test_only_training_texts_shape_the_vocabulary(manifest):
    rows = tuple(row if row.split == "train" or not row.text else replace(row, text="zyzzyva") for row in manifest.rows)
    assert train_tokenizer(replace(manifest, rows=rows)).to_str() == train_tokenizer(manifest).to_str()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_what_the_data_lacks_is_not_in_the_network(manifest, tmp_path, modality):
    recipe = cnn_rnn(only(manifest, modality), tmp_path)
    assert recipe.network.order == (modality,)
    assert list(recipe.inputs) == [modality]


def test_a_modality_that_only_other_parts_have_cannot_be_learned(manifest, tmp_path):
    rows = tuple(replace(row, text=None) if row.split == "train" else row for row in manifest.rows)
    assert cnn_rnn(replace(manifest, rows=rows), tmp_path).network.order == ("image",)


def test_presets_are_the_two_that_the_manual_names():
    assert set(PRESETS) == {"cnn-rnn", "pretrained"}


def test_the_network_says_what_its_inputs_need(manifest, tmp_path):
    recipe = cnn_rnn(manifest, tmp_path)
    for name, each in recipe.inputs.items():
        assert recipe.network.modalities[name].input == each.settings()
    assert recipe.network.labels == manifest.labels
    assert recipe.training.epochs >= recipe.training.patience > 0
    assert TrainingConfig().modality_dropout > 0
