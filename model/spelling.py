"""Spelling of names: labels, groups and ids that look the same are equal."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from polymodal.model.blank import IGNORABLE

# Joiners, variation selectors and tags, which change the look of some characters only.
_SOMETIMES: Final = re.compile(
    r"[\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
# Characters that are never visible: the other ignorable ones, controls but white space, and marks of annotations.
_HIDDEN: Final = re.compile(rf"(?!{_SOMETIMES.pattern})[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f{IGNORABLE}\ufff9-\ufffb]")
_VIRAMA: Final = 9  # canonical combining class
_BLANK_BRAILLE: Final = "\u2800"

_BETWEEN_WORDS: Final = re.compile(r"(?<=\w)[-_\u2010-\u2015](?=\w)|_")
_QUOTES: Final = "'\"`\u00b4\u2018\u2019\u201c\u201d"
_ENDS: Final = f" .,;:!?\u2026{_QUOTES}"
# Cyrillic and Greek letters that are drawn as Latin ones (confusables.txt of Unicode, UTS 39), after case folding.
_DRAWN_ALIKE: Final = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxsijdqwabeikvoptux",
)


def visible(name: str) -> str:
    """Return a name in normal form C, without invisible characters."""
    if name.isascii() and name.isprintable():
        return name
    name = unicodedata.normalize("NFC", _HIDDEN.sub("", name))
    return unicodedata.normalize("NFC", _SOMETIMES.sub(_if_visible, name).replace(_BLANK_BRAILLE, " "))


def spelled(name: str) -> str:
    """Return a visible name with single spaces between its words, as it looks."""
    return " ".join(visible(name).split())


def _if_visible(match: re.Match[str]) -> str:
    character, name = match[0], match.string
    before, after = name[: match.start()][-1:], name[match.end() :][:1]
    if not before:
        return ""
    emoji = unicodedata.category(before) in ("So", "Sk") or "\ufe00" <= before <= "\ufe0f"
    if character in "\u200c\u200d":  # between emoji, in Arabic and its like, and next to a virama of Indic scripts
        is_visible = bool(after) and (
            (emoji and unicodedata.category(after) == "So")
            or "AL" in (unicodedata.bidirectional(before), unicodedata.bidirectional(after))
            or _VIRAMA in (unicodedata.combining(before), unicodedata.combining(after))
        )
    elif character <= "\u180f":  # forms of Mongolian letters
        is_visible = "\u1820" <= before <= "\u18aa"
    elif "\U000e0000" <= character <= "\U000e007f":  # flags of England, Scotland, Wales
        is_visible = before == "\U0001f3f4" or "\U000e0020" <= before <= "\U000e007f"
    elif character >= "\U000e0100":  # variants of ideographs
        is_visible = unicodedata.category(before) == "Lo"
    else:
        is_visible = emoji
    return character if is_visible else ""


def look(name: str) -> str:
    """Return a key that is equal for names which are easily mistaken for each other."""
    folded = unicodedata.normalize("NFKC", _SOMETIMES.sub("", spelled(name))).casefold()
    words = _BETWEEN_WORDS.sub(" ", folded).translate(_DRAWN_ALIKE).lstrip(_QUOTES).rstrip(_ENDS)
    return " ".join(words.split()) or folded


def shown(name: str, others: Iterable[str] = ()) -> str:
    """Return a name in quotes, with escaped characters where it would look like one of the others."""
    same = (look(name) == look(other) and name.lower() != other.lower() for other in others)
    return ascii(name) if any(same) else repr(name)
