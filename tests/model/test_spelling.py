"""Names that look the same are equal, and names that are easily mistaken for each other have one key."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.model.spelling import look, shown, spelled, visible

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("cafe\u0301", "café", id="normal-form-d"),
        pytest.param("\u1112\u1161\u11ab", "한", id="conjoining-jamo"),
        pytest.param("Alpha\u200b", "Alpha", id="zero-width-space"),
        pytest.param("\ufeffAlpha", "Alpha", id="byte-order-mark"),
        pytest.param("Al\u00adpha", "Alpha", id="soft-hyphen"),
        pytest.param("Al\u2060pha", "Alpha", id="word-joiner"),
        pytest.param("Al\u200dpha", "Alpha", id="joiner-between-latin-letters"),
        pytest.param("Alpha\u200c", "Alpha", id="joiner-at-the-end"),
        pytest.param("\u202aAlpha\u202c", "Alpha", id="embedding"),
        pytest.param("\u2066Alpha\u2069\u200f", "Alpha", id="isolate-and-mark"),
        pytest.param("Alpha\ufe0f", "Alpha", id="variation-selector"),
        pytest.param("Alpha\u180b", "Alpha", id="mongolian-variation-selector"),
        pytest.param("Alpha\U000e0041", "Alpha", id="tag"),
        pytest.param("Alpha\u3164", "Alpha", id="hangul-filler"),
        pytest.param("Alpha\u2800", "Alpha", id="blank-braille-cell"),
        pytest.param("Al\u034fpha", "Alpha", id="grapheme-joiner"),
        pytest.param("Al\x00\x01pha\x7f", "Alpha", id="controls"),
        pytest.param("e\u200b\u0301", "é", id="composed-without-the-character-between"),
        pytest.param("desk\u00a0lamp", "desk lamp", id="no-break-space"),
        pytest.param("desk  lamp", "desk lamp", id="double-space"),
        pytest.param("desk \t\r\n lamp\u3000", "desk lamp", id="other-blanks"),
        pytest.param("\u200b\ufeff ", "", id="nothing"),
    ],
)
def test_invisible_characters_are_removed_from_a_name(written, read):
    assert spelled(written) == read


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(FAMILY, id="emoji-of-several"),
        pytest.param("\U0001f3c3\U0001f3fd\u200d\u2642\ufe0f", id="emoji-with-skin-tone"),
        pytest.param("❤\ufe0f", id="emoji-in-colour"),
        pytest.param(ENGLAND, id="flag"),
        pytest.param("می\u200cخواهم", id="persian"),
        pytest.param("क\u094d\u200dष", id="devanagari"),
        pytest.param("葛\U000e0100", id="variant-of-an-ideograph"),
        pytest.param("\u1820\u180b", id="form-of-a-mongolian-letter"),
        pytest.param("Straße", id="letters"),
        pytest.param("ﬁsh", id="ligature"),
        pytest.param("１２", id="fullwidth"),
        pytest.param("\u0600\u0661", id="arabic-number-sign"),
    ],
)
def test_visible_characters_stay(name):
    assert spelled(name) == unicodedata.normalize("NFC", name)


def test_blanks_inside_a_visible_name_stay():
    assert visible("a  b\u200b\nc") == "a  b\nc"


@given(st.text())
def test_a_spelled_name_does_not_change_again(name):
    assert spelled(spelled(name)) == spelled(name)
    assert unicodedata.is_normalized("NFC", spelled(name))


@pytest.mark.parametrize(
    ("name", "other", "alike"),
    [
        pytest.param("Alpha", "alpha", True, id="case"),
        pytest.param("Straße", "STRASSE", True, id="case-of-several-letters"),
        pytest.param("lamps.", "lamps", True, id="full-stop"),
        pytest.param("'lamps'", "lamps", True, id="quotes"),
        pytest.param("ﬁsh", "fish", True, id="ligature"),
        pytest.param("５", "5", True, id="fullwidth"),
        pytest.param("c\u0430t", "cat", True, id="cyrillic"),
        pytest.param("\u039flaf", "Olaf", True, id="greek"),
        pytest.param("desk_lamp", "desk-lamp", True, id="separators"),
        pytest.param("❤\ufe0f", "❤", True, id="emoji-in-black"),
        pytest.param("bar", "bär", False, id="accent"),
        pytest.param("-1", "1", False, id="sign"),
        pytest.param("C", "C#", False, id="sharp"),
        pytest.param("1.0", "10", False, id="point"),
        pytest.param("?", "!", False, id="punctuation-alone"),
    ],
)
def test_names_that_are_easily_mistaken_for_each_other_have_one_look(name, other, alike):
    assert (look(name) == look(other)) is alike


def test_a_name_that_looks_like_another_is_escaped():
    assert shown("c\u0430t", ["cat", "c\u0430t"]) == r"'c\u0430t'"
    assert shown("Äpfel", ["Äpfel", "äpfel"]) == "'Äpfel'"
