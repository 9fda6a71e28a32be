"""Vocabularies: the same texts give the same one, and a pruned one gives the same tokens for the texts it was pruned for."""

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


def test_a_vocabulary_begins_with_padding_and_splits_unknown_words(texts):
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
    """A vocabulary before pruning, as JSON."""
    return request.param()


def test_a_pruned_vocabulary_gives_the_same_tokens_for_its_texts(layout):
    whole = Tokenizer.from_str(json.dumps(layout))
    for kept in ([], TEXTS[:1], TEXTS[1:3], TEXTS):
        pruned, numbers = prune(layout, kept, frequent=0)
        assert len(numbers) == pruned.get_vocab_size() <= whole.get_vocab_size()
        assert [pruned.encode(text).tokens for text in kept] == [whole.encode(text).tokens for text in kept]
    assert prune(layout, TEXTS[:1], frequent=0)[0].get_vocab_size() < whole.get_vocab_size()


def test_pruning_returns_the_old_number_of_each_token(layout):
    pruned, numbers = prune(layout, TEXTS[:1], frequent=0)
    assert numbers == sorted(numbers)
    assert [layout["model"]["vocab"][pruned.id_to_token(number)] for number in range(len(numbers))] == numbers


def test_other_texts_are_split_into_letters_that_are_kept(layout):
    pruned, _ = prune(layout, TEXTS[:1], frequent=0)
    letters = "".join(pruned.encode("wise tomatoes").tokens).replace("##", "").replace(" ", "")
    assert letters == "wisetomatoes"


def test_special_and_frequent_tokens_are_kept():
    layout = byte_pairs()
    pruned, numbers = prune(layout, [], frequent=40)
    assert numbers[:40] == list(range(40))
    assert [pruned.token_to_id(token) for token in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert pruned.encode("</s>").ids == [2]


def test_special_tokens_of_a_template_get_new_numbers():
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
    encoding = pruned.encode("deep sea")
    assert encoding.tokens == ["[CLS]", "deep", "sea"]
    assert encoding.ids[0] == pruned.token_to_id("[CLS]") < numbers["[CLS]"]
