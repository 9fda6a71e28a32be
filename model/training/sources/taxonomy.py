"""Labels of folders and emoji groups, and the words that give a label away.

The longest matching prefix of a path decides; a path without a match is dropped.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

LABELS: Final = (
    *("animals", "flags", "food", "objects", "people"),
    *("places", "plants", "recreation", "symbols", "transport"),
)

DROPPED: Final = ""  # as a label: the folder is known and left out

OPENCLIPART: Final[Mapping[str, str]] = {
    "animals": "animals",
    "buildings": "places",
    "buttons": DROPPED,
    "computer": "objects",
    "computer/buttons": DROPPED,
    "computer/icons": DROPPED,
    "containers": "objects",
    "decorations": DROPPED,
    "education": "objects",
    "electronics": "objects",
    "food": "food",
    "geography": "places",
    "logos": DROPPED,
    "office": "objects",
    "people": "people",
    "people/clothing": "objects",
    "plants": "plants",
    "recreation": "recreation",
    "science": "objects",
    "shapes": DROPPED,
    "signs_and_symbols": "symbols",
    "signs_and_symbols/flags": "flags",
    "special": DROPPED,
    "tools": "objects",
    "transportation": "transport",
    "transportation/aiga-symbols": "symbols",
    "transportation/roadsigns": "symbols",
    "unsorted": DROPPED,
}

TUXPAINT: Final[Mapping[str, str]] = {
    "animals": "animals",
    "clothes": "objects",
    "food": "food",
    "hobbies": "recreation",
    "household": "objects",
    "medical": "objects",
    "military": "objects",
    "naturalforces": DROPPED,
    "people": "people",
    "plants": "plants",
    "seasonal": "recreation",
    "space": DROPPED,
    "sports": "recreation",
    "symbols": "symbols",
    "symbols/money": "objects",
    "town": "places",
    "town/flags": "flags",
    "town/roadsigns": "symbols",
    "vehicles": "transport",
}

# "group/subgroup" by their keys in emojibase; a subgroup prefix such as "plant-" matches plant-flower and plant-other.
EMOJI: Final[Mapping[str, str]] = {
    "smileys-emotion/": "people",
    "smileys-emotion/heart": "symbols",
    "smileys-emotion/emotion": "symbols",
    "people-body/": "people",
    "component/": DROPPED,
    "animals-nature/": "animals",
    "animals-nature/plant-": "plants",
    "food-drink/": "food",
    "food-drink/dishware": "objects",
    "travel-places/": DROPPED,  # hotel, time, sky and weather
    "travel-places/transport-": "transport",
    "travel-places/place-": "places",
    "activities/": "recreation",
    "objects/": "objects",
    "objects/musical-instrument": "recreation",
    "symbols/": "symbols",
    "flags/": "flags",
}

# Words of labels or names of groups, in addition to those of the folders.
GROUP_WORDS: Final = (
    *("aiga", "road", "icon", "theme"),
    *("smiley", "emotion", "heart", "body", "nature", "drink", "dishware", "travel", "activity"),
    *("musical", "instrument"),
)
# Words of folder names that name no label.
PLAIN_WORDS: Final = frozenset(("and", "led"))  # "led" is the lamp and the verb
# Singulars that are no prefix of their plural.
IRREGULAR: Final[Mapping[str, str]] = {"people": "person", "clothes": "cloth", "smilies": "smiley"}
# Number of names in a folder's path that name classes of things. Deeper ones name single things (dogs, hats, cards, Canada).
DEPTH: Final = 2

_WORD = re.compile(r"[^\W_]+")


def label_by_folder(table: Mapping[str, str], folder: str) -> str | None:
    """Return the label of a folder like "people/clothing/hats"; DROPPED if it is left out, None if it is unknown."""
    names = folder.split("/")
    for length in range(len(names), 0, -1):
        label = table.get("/".join(names[:length]))
        if label is not None:
            return label
    return None


def label_by_emoji_group(group: str, subgroup: str) -> str:
    """Return the label of an emoji; DROPPED if it is left out or the group is unknown."""
    path = f"{group}/{subgroup}"
    matching = [prefix for prefix in EMOJI if path.startswith(prefix)]
    return EMOJI[max(matching, key=len)] if matching else DROPPED


def taxonomy_words(folders: Iterable[str]) -> frozenset[str]:
    """Return the words that would give a label away, singular and plural, case folded.

    They are those of the labels, of the label tables, and of the first DEPTH names of every folder that is used.
    """
    names = [*LABELS, *GROUP_WORDS, *OPENCLIPART, *TUXPAINT]
    names += ["/".join(folder.split("/")[:DEPTH]) for folder in folders]
    words = {word for name in names for word in _WORD.findall(name.casefold().replace("_", " "))}
    words = {word for word in words if word.isalpha() and len(word) > 2} - PLAIN_WORDS
    return frozenset(form for word in words for form in number_forms(word))


def number_forms(word: str) -> frozenset[str]:
    """Return a word with its singular and plural, e.g. {"dish", "dishes"}; some are not words."""
    forms = {word}
    if word in IRREGULAR:
        return number_forms(IRREGULAR[word]) | forms
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    elif word.endswith(("ches", "shes", "sses", "xes")):
        forms.add(word[:-2])
    elif word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
    elif word.endswith("y") and word[-2:-1] not in "aeou":
        forms.add(word[:-1] + "ies")
    elif word.endswith(("ch", "sh", "ss", "x")):
        forms.add(word + "es")
    else:
        forms.add(word + "s")
    if word.endswith("man"):
        forms.add(word[:-3] + "men")
    elif word.endswith("men"):
        forms.add(word[:-3] + "man")
    return frozenset(forms)
