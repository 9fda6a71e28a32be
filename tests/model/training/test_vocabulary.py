"""Vocabularies: the same texts give the same one, and one that is cut down still cuts the texts it was cut down for as before."""

import json

import pytest
from tokenizers import Tokenizer, models, trainers

from polymodal.model.modalities.text.vocabulary import prune, train_tokenizer

TEXTS = ["a deep blue sea", "blue waves, deep water", "the sea is deep", "ripe red tomatoes", "red sea waves"]


@pytest.fixture
def texts(manifest):
    return [row.inputs["text"] for row in manifest.by_split("train") if "text" in row.inputs]


def test_the_same_texts_give_the_same_vocabulary(texts):
    vocabularies = {train_tokenizer(texts).to_str() for _ in range(8)}
    assert len(vocabularies) == 1


def test_a_vocabulary_begins_with_padding_and_spells_what_it_does_not_know(texts):
    tokenizer = train_tokenizer(texts)
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (0, 1)
    assert tokenizer.encode("RED water").tokens == ["red", "water"]
    assert tokenizer.encode("waters").tokens[0].startswith("wat")
    assert "[UNK]" not in tokenizer.encode("a waterside").tokens
    assert tokenizer.encode("深").tokens == ["[UNK]"]


def byte_pairs():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return json.loads(tokenizer.to_str())


def word_pieces():
    return json.loads(train_tokenizer(TEXTS).to_str())


@pytest.fixture(params=[byte_pairs, word_pieces], ids=["BPE", "WordPiece"])
def layout(request):
    """A whole vocabulary."""
    return request.param()


def test_the_texts_are_cut_into_the_same_tokens_by_fewer(layout):
    whole = Tokenizer.from_str(json.dumps(layout))
    for kept in ([], TEXTS[:1], TEXTS[1:3], TEXTS):
        pruned, numbers = prune(layout, kept, frequent=0)
        assert len(numbers) == pruned.get_vocab_size() <= whole.get_vocab_size()
        assert [pruned.encode(text).tokens for text in kept] == [whole.encode(text).tokens for text in kept]
    assert prune(layout, TEXTS[:1], frequent=0)[0].get_vocab_size() < whole.get_vocab_size()


def test_the_numbers_say_where_each_token_was(layout):
    pruned, numbers = prune(layout, TEXTS[:1], frequent=0)
    assert numbers == sorted(numbers)
    assert [layout["model"]["vocab"][pruned.id_to_token(number)] for number in range(len(numbers))] == numbers


def test_every_other_text_can_still_be_spelt(layout):
    pruned, _ = prune(layout, TEXTS[:1], frequent=0)
    spelt = "".join(pruned.encode("wise tomatoes").tokens).replace("##", "").replace(" ", "")
    assert spelt == "wisetomatoes"


def test_special_tokens_and_what_is_frequent_stay():
    layout = byte_pairs()
    pruned, numbers = prune(layout, [], frequent=40)
    assert numbers[:40] == list(range(40))
    assert [pruned.token_to_id(token) for token in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert pruned.encode("</s>").ids == [2]


def test_a_frame_of_special_tokens_is_numbered_anew():
    layout = word_pieces()
    numbers = layout["model"]["vocab"]
    numbers["[CLS]"] = len(numbers)
    layout["added_tokens"].append({**layout["added_tokens"][0], "id": numbers["[CLS]"], "content": "[CLS]"})
    layout["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [numbers["[CLS]"]], "tokens": ["[CLS]"]}},
    }
    pruned, _ = prune(layout, TEXTS[:1], frequent=0)
    found = pruned.encode("deep sea")
    assert found.tokens == ["[CLS]", "deep", "sea"]
    assert found.ids[0] == pruned.token_to_id("[CLS]") < numbers["[CLS]"]
