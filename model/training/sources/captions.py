"""Captions: masking of labels, composition of texts, and comparison.

Labels come from folder names, so a caption must not repeat them: words of the taxonomy are cut out of titles, and a
keyword that contains one is dropped. Other words stay, even "horse" for an image of a horse, because captions have such words.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_WORD = re.compile(r"[^\W_]+")
# Label words that compounds begin or end with, e.g. "kansasflag", "mapsymbol", "seafood". Words that many unrelated words
# contain ("plant" in eggplant, "place" in fireplace, "sign" in design) are not among them.
COMPOUND_WORDS: Final = ("flag", "flags", "symbol", "symbols", "food", "foods", "animal", "animals", "roadsign")
STOP_WORDS: Final = frozenset(
    (
        *("a", "an", "and", "at", "by", "de", "for", "from", "in", "is", "it"),
        *("la", "le", "of", "on", "or", "the", "this", "to", "with", "your"),
    )
)
# Left by the tool that once released Open Clip Art, or common to nearly all items.
JUNK_KEYWORD = re.compile(r"hash(\(0x[0-9a-f]+\))?|unsorted|clip ?art|svg|png|\W*", re.IGNORECASE)


class Mask:
    """Cuts the words that give a label away."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)

    def hides(self, word: str) -> bool:
        """Return whether a word gives a label away, by itself or in a compound."""
        word = word.casefold()
        return word in self.words or word.startswith(COMPOUND_WORDS) or word.endswith(COMPOUND_WORDS)

    def title(self, title: str) -> str:
        """Return a title without the hidden words and the punctuation around them."""
        kept = _WORD.sub(lambda match: "" if self.hides(match[0]) else match[0], title)
        kept = re.sub(r"[\s_]+", " ", kept)
        kept = re.sub(r"\(\s*\)|\[\s*\]", "", kept)
        has_content = any(word.casefold() not in STOP_WORDS for word in _WORD.findall(kept))
        return kept.strip(" \t,;:.-–—/&+") if has_content else ""  # "A flower" leaves nothing, not "A"

    def keywords(self, keywords: Iterable[str]) -> tuple[str, ...]:
        """Return the different keywords that neither contain a hidden word nor are junk, in their order."""
        kept: dict[str, None] = {}
        for keyword in keywords:
            phrase = re.sub(r"[\s_]+", " ", keyword).strip()
            if not (JUNK_KEYWORD.fullmatch(phrase) or any(map(self.hides, _WORD.findall(phrase)))):
                kept.setdefault(phrase.casefold())
        return tuple(kept)

    def text(self, title: str, keywords: Iterable[str]) -> str:
        """Return the text for the network: the masked title, then the remaining keywords that differ from it."""
        masked = self.title(title)
        more = (keyword for keyword in self.keywords(keywords) if keyword != masked.casefold())
        return ", ".join(phrase for phrase in (masked, *more) if phrase)


def normalised(caption: str) -> str:
    """Normalise a caption for comparison: without case, accents, punctuation, stop words and a final number."""
    decomposed = unicodedata.normalize("NFKD", caption.casefold())
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    words = [word for word in _WORD.findall(plain) if word not in STOP_WORDS]
    while words and words[-1].isdigit():
        words.pop()
    return " ".join(words)


def caption_of(title: str, keywords: Iterable[str]) -> str:
    """Return the title, or the keywords of an item without one."""
    return title if _WORD.search(title) else ", ".join(keywords)
