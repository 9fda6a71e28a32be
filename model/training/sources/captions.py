"""Captions: what is masked in them, how a text is put together, and when two count as equal.

Labels come from folder names, so a caption must not repeat them: words of the taxonomy are cut out of titles, and a
keyword that contains one is dropped. Other words stay, "horse" in a picture of a horse too: that is what captions say.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_WORD = re.compile(r"[^\W_]+")
# Written together with a label word, e.g. "kansasflag", "mapsymbol", "seafood". Words that many others merely begin or
# end with ("plant" in eggplant, "place" in fireplace, "sign" in design) are not among them.
COMPOUND_WORDS: Final = ("flag", "flags", "symbol", "symbols", "food", "foods", "animal", "animals", "roadsign")
STOP_WORDS: Final = frozenset(
    (
        "a",
        "an",
        "and",
        "at",
        "by",
        "de",
        "for",
        "from",
        "in",
        "is",
        "it",
        "la",
        "le",
        "of",
        "on",
        "or",
        "the",
        "this",
        "to",
        "with",
        "your",
    )
)
# Left by the tool that once released Open Clip Art, or said of nearly anything.
JUNK_KEYWORD = re.compile(r"hash(\(0x[0-9a-f]+\))?|unsorted|clip ?art|svg|png|\W*", re.IGNORECASE)


class Mask:
    """Cuts the words that give a label away."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)

    def hides(self, word: str) -> bool:
        """Whether one word gives a label away, by itself or as part of a compound."""
        word = word.casefold()
        return word in self.words or word.startswith(COMPOUND_WORDS) or word.endswith(COMPOUND_WORDS)

    def title(self, title: str) -> str:
        """A title without the hidden words, and without the punctuation that then stands alone."""
        kept = _WORD.sub(lambda found: "" if self.hides(found[0]) else found[0], title)
        kept = re.sub(r"[\s_]+", " ", kept)
        kept = re.sub(r"\(\s*\)|\[\s*\]", "", kept)
        says_something = any(word.casefold() not in STOP_WORDS for word in _WORD.findall(kept))
        return kept.strip(" \t,;:.-–—/&+") if says_something else ""  # "A flower" leaves nothing, not "A"

    def keywords(self, keywords: Iterable[str]) -> tuple[str, ...]:
        """The keywords that neither contain a hidden word nor are junk, once each, in their order."""
        kept: dict[str, None] = {}
        for keyword in keywords:
            plain = re.sub(r"[\s_]+", " ", keyword).strip()
            if JUNK_KEYWORD.fullmatch(plain) or any(self.hides(word) for word in _WORD.findall(plain)):
                continue
            kept.setdefault(plain.casefold())
        return tuple(kept)

    def text(self, title: str, keywords: Iterable[str]) -> str:
        """What the network reads: the masked title, then the remaining keywords that it does not say already."""
        masked = self.title(title)
        said = masked.casefold()
        more = (keyword for keyword in self.keywords(keywords) if keyword != said)
        return ", ".join(part for part in (masked, *more) if part)


def normalised(caption: str) -> str:
    """The form in which captions are compared: no case, accents, punctuation, stop words, nor a final number."""
    decomposed = unicodedata.normalize("NFKD", caption.casefold())
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    words = [word for word in _WORD.findall(plain) if word not in STOP_WORDS]
    while words and words[-1].isdigit():
        words.pop()
    return " ".join(words)


def caption_of(title: str, keywords: Iterable[str]) -> str:
    """The title, or the keywords of an item that has none."""
    return title if _WORD.search(title) else ", ".join(keywords)
