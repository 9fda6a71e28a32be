"""Texts without a visible character are blank."""

import sys
import unicodedata

import pytest

from polymodal.model.blank import is_blank

BLANK = {
    "nothing": "",
    "spaces": " \t\r\n\u00a0\u3000\u2028\u2029\x85",
    "controls": "\x00\x01\x1f\x7f\x9f",
    "zero-width-space": "\u200b",
    "joiners": "\u200c\u200d\u2060\u034f",
    "byte-order-marks": "\ufeff\ufeff",
    "soft-hyphens": "\u00ad\u00ad",
    "directions": "\u200e\u200f\u061c\u202a\u202e\u2066\u2069",
    "invisible-operators": "\u2061\u2064",
    "variation-selectors": "\ufe0e\ufe0f\U000e0100\u180b",
    "tags-without-a-flag": "\U000e0001\U000e0067\U000e0062\U000e007f",
    "mongolian-vowel-separator": "\u180e",
    "hangul-fillers": "\u115f\u1160\u3164\uffa0",
    "khmer-inherent-vowels": "\u17b4\u17b5",
    "blank-braille-cell": "\u2800",
    "private-use": "\ue000\uf8ff\U000f0000\U0010fffd",
    "noncharacters": "\ufdd0\uffff\U0001fffe\U0010ffff",
    "annotation-marks": "\ufff9\ufffa\ufffb",
    "place-of-an-attachment": "\ufffc",
    "musical-null-notehead": "\U0001d159",
    "hieroglyphic-blanks": "\U00013430\U00013441\U00013442",
    "all-together": " \u200b\ufeff\u00ad\u3164\u2800\ue000 ",
    "as-long-as-allowed": "\u200b" * 20_000,
}
SHOWN = {
    "letter": "a",
    "letter-among-hidden-ones": "\u200b\ufeffa\u200b",
    "digit-zero": "0",
    "full-stop": ".",
    "replacement-character": "\ufffd",
    "lone-accent": "\u0301",
    "lone-keycap": "\u20e3",
    "lone-regional-indicator": "\U0001f1e9",
    "lone-skin-tone": "\U0001f3fb",
    "emoji-joined": "\U0001f469\u200d\U0001f692",
    "emoji-with-variation-selector": "\u2764\ufe0f",
    "flag-of-tags": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "emoji-newer-than-python's-tables": "\U0001fae9",
    "arabic-number-sign": "\u0600",
    "persian-with-non-joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "braille": "\u2801",
    "hangul-letter": "\u1100",
    "visible-space-sign": "\u2423",
}


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_a_text_without_a_visible_character_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", SHOWN.values(), ids=SHOWN)
def test_a_text_with_a_visible_character_is_not_blank(text):
    assert not is_blank(text)


def test_every_character_of_an_invisible_category_is_blank():
    """Of Cf, only the signs in front of numbers and words are visible."""
    signs = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
    shown = [
        f"{ord(character):04X}"
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in {"Cc", "Cf", "Co", "Zl", "Zp", "Zs"}
        and character not in signs
        and not is_blank(character)
    ]
    assert shown == []


def test_of_visible_categories_only_listed_characters_are_blank():
    listed = {
        *("034F", "115F", "1160", "17B4", "17B5", "180B", "180C", "180D", "180F", "2800", "3164", "FFA0", "FFFC"),
        *("13440", "13441", "13442", "16FE4", "1D159"),
        *(f"{code:04X}" for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))),  # variation selectors
    }
    blank = {
        f"{ord(character):04X}"
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character)[0] in "LMNPS" and is_blank(character)
    }
    assert blank <= listed
