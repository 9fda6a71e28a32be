"""Texts in any script and of any length become tokens; anything else is rejected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from polymodal.model.errors import InputError, TooLarge, Undecodable
from polymodal.model.modalities.text.input import TextInput

VOCABULARY = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "deep", "blue", "sea", ","))}
PADDING, UNKNOWN, DEEP, BLUE, SEA, COMMA = range(6)


def make_tokenizer(vocabulary=VOCABULARY):
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


INPUT = TextInput(make_tokenizer(), max_tokens=6, max_characters=1000)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("deep blue sea", "deep blue sea", id="str"),
        pytest.param(b"deep blue sea", "deep blue sea", id="bytes"),
        pytest.param("grüße 深い 🌊".encode(), "grüße 深い 🌊", id="utf-8"),
        pytest.param(b"\xef\xbb\xbfdeep", "deep", id="byte-order-mark"),
        pytest.param("\ufeffdeep", "deep", id="byte-order-mark-in-str"),
        pytest.param("  deep\r\n\tblue\u00a0 sea\u2003", "deep blue sea", id="blanks"),
        pytest.param("e\u0301", "é", id="normal-form"),
        pytest.param("", None, id="empty"),
        pytest.param(b"", None, id="empty-bytes"),
        pytest.param(" \n\t\u00a0", None, id="blank"),
        pytest.param(b"\xef\xbb\xbf", None, id="only-a-byte-order-mark"),
        pytest.param("\u200b \u2060", None, id="nothing-visible"),
        pytest.param("\u200b deep\u00ad \ue000", "\u200b deep\u00ad \ue000", id="hidden-characters-of-a-text-stay"),
        pytest.param("x" * 1000, "x" * 1000, id="as-long-as-allowed"),
    ],
)
def test_a_text_is_decoded_with_single_spaces(content, text):
    assert INPUT.decode(content) == text


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        pytest.param(b"deep \xff sea", Undecodable, "a byte that is not UTF-8 at position 5", id="not-utf-8"),
        pytest.param("größe".encode("latin-1"), Undecodable, "not UTF-8 at position 2", id="latin-1"),
        pytest.param("deep".encode("utf-16"), Undecodable, "not UTF-8 at position 0", id="utf-16"),
        pytest.param(b"\xed\xa0\x80", Undecodable, "not UTF-8", id="surrogate-in-bytes"),
        pytest.param("deep\ud800", Undecodable, "half a surrogate pair at position 4", id="surrogate-in-str"),
        pytest.param("deep\x00sea", Undecodable, "a NUL character at position 4", id="nul"),
        pytest.param(b"\x00", Undecodable, "a NUL character at position 0", id="only-nul"),
        pytest.param("x" * 1001, TooLarge, "1,001 characters", id="too-long"),
        pytest.param(" " * 1001, TooLarge, "1,001 characters", id="too-long-though-blank"),
    ],
)
def test_content_that_is_no_valid_text_is_rejected(content, error, problem):
    with pytest.raises(error) as caught:
        INPUT.decode(content)
    assert caught.value.input == "text"
    assert problem in caught.value.found


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        pytest.param("Deep, BLUE sea", [DEEP, COMMA, BLUE, SEA], id="words"),
        pytest.param("深い", [UNKNOWN, UNKNOWN], id="unknown"),
        pytest.param("\u0301", [UNKNOWN], id="removed-by-the-tokenizer"),
        pytest.param("sea " * 50, [SEA] * 6, id="longer-than-the-encoder-reads"),
    ],
)
def test_a_text_becomes_token_ids(text, ids):
    prepared = INPUT.preprocess(INPUT.decode(text))
    assert prepared.dtype == np.int64
    assert prepared.tolist() == ids


def test_a_batch_is_padded_to_its_longest_text():
    batch = INPUT.collate([INPUT.preprocess("sea"), INPUT.preprocess("deep blue sea")])
    assert batch["ids"].tolist() == [[SEA, PADDING, PADDING], [DEEP, BLUE, SEA]]
    assert batch["mask"].tolist() == [[True, False, False], [True, True, True]]
    assert (batch["ids"].dtype, batch["mask"].dtype) == (np.int64, np.bool_)


def test_the_limits_are_described():
    spec = INPUT.describe()
    assert (spec.name, spec.media_types) == ("text", ("text/plain",))
    assert spec.limits == {"max_characters": 1000, "max_tokens": 6}


def test_the_workload_grows_with_the_text():
    assert ("text", 0) < INPUT.workload("sea") < INPUT.workload(b"deep blue sea")


def test_the_large_probe_has_the_most_tokens():
    (probe,) = INPUT.probes()
    assert len(INPUT.preprocess(INPUT.decode(probe.large))) == INPUT.max_tokens == probe.most
    assert len(INPUT.preprocess(INPUT.decode(probe.small))) < INPUT.max_tokens
    assert INPUT.workload(probe.large).units >= probe.most


def test_a_saved_input_loads_as_the_same_input(tmp_path):
    INPUT.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(TextInput.files)
    again = TextInput.load(INPUT.settings(), tmp_path)
    assert again.settings() == INPUT.settings()
    assert again.vocabulary == INPUT.vocabulary == len(VOCABULARY)
    for text in ("Deep, blue", "sea " * 50, "深い"):
        assert again.preprocess(text).tolist() == INPUT.preprocess(text).tolist()


def test_the_padding_and_truncation_of_a_tokenizer_are_ignored():
    tokenizer = make_tokenizer()
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(1)
    assert TextInput(tokenizer, max_tokens=4).preprocess("deep blue sea").tolist() == [DEEP, BLUE, SEA]


@pytest.mark.parametrize("missing", ["[PAD]", "[UNK]"])
def test_a_vocabulary_needs_its_special_tokens(missing):
    words = [word for word in VOCABULARY if word != missing]
    tokenizer = make_tokenizer({word: number for number, word in enumerate(words)})
    with pytest.raises(ValueError, match=r"tokenizer\.json has no token \[(PAD|UNK)\]"):
        TextInput(tokenizer)


def test_a_vocabulary_may_have_other_tokens_for_padding_and_unknown_words(tmp_path):
    theirs = {"[PAD]": "</s>", "[UNK]": "<unk>"}
    tokenizer = Tokenizer(models.WordLevel({theirs.get(word, word): at for word, at in VOCABULARY.items()}, "<unk>"))
    text_input = TextInput(tokenizer, padding="</s>", unknown="<unk>")
    text_input.save(tmp_path)
    loaded = TextInput.load(text_input.settings(), tmp_path)
    assert loaded.padding_id == VOCABULARY["[PAD]"]
    assert loaded.blank().tolist() == [VOCABULARY["[UNK]"]] * 2


@given(
    st.binary(max_size=100)
    | st.text(max_size=100)
    | st.text(st.characters(), max_size=60)
    | st.text(alphabet="e\u0301\u0327\ud800\x00\ufeff \u2028", max_size=40)
)
def test_any_content_becomes_tokens_or_is_blank_or_rejected(content):
    try:
        text = INPUT.decode(content)
    except InputError as error:
        text = error
    if isinstance(text, InputError):
        assert text.input == "text"
        return
    if text is None:
        return
    assert text == text.strip()
    assert "\x00" not in text
    assert INPUT.decode(f" {text}") == text
    ids = INPUT.preprocess(text)
    assert ids.dtype == np.int64
    assert 1 <= len(ids) <= INPUT.max_tokens
    assert (ids >= 0).all()
    assert (ids < INPUT.vocabulary).all()


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5))
def test_collating_keeps_every_token(texts):
    arrays = [INPUT.preprocess(text) for text in texts]
    batch = INPUT.collate(arrays)
    for ids, row, mask in zip(arrays, batch["ids"], batch["mask"], strict=True):
        assert row[mask].tolist() == ids.tolist()
        assert (row[~mask] == PADDING).all()


@pytest.mark.parametrize(
    ("marks", "accepted"),
    [
        pytest.param("\u0301" * 256, True, id="as-many-as-allowed"),
        pytest.param("\u0301" * 257, False, id="one-more"),
        pytest.param("\u0301\u0327" * 200, False, id="of-different-classes"),
        pytest.param("\u0301e" * 400, True, id="one-on-each-letter"),
    ],
)
def test_the_number_of_combining_characters_in_a_row_is_limited(marks, accepted):
    if accepted:
        assert INPUT.decode("e" + marks)
    else:
        with pytest.raises(TooLarge, match="combining characters in a row; allowed: at most 256"):
            INPUT.decode("e" + marks)


def test_texts_of_a_fixed_length_are_padded_to_it(tmp_path):
    padded = TextInput(make_tokenizer(), max_tokens=9, padded=True)
    padded.save(tmp_path)
    again = TextInput.load(padded.settings(), tmp_path)
    batch = again.collate([again.preprocess("sea"), again.preprocess("deep blue sea")])
    assert batch["ids"].shape == batch["mask"].shape == (2, 9)
    assert (batch["ids"][~batch["mask"]] == again.padding_id).all()
    assert "padded" not in TextInput(make_tokenizer()).settings()
