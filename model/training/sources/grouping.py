"""Groups: items that show one thing, and must therefore be in one split.

Two items belong together when one of these holds, directly or through others:

(a) they are one emoji concept, drawn by several vendors, or with another skin tone or gender
(b) their captions are equal, masked or unmasked ("Canada" and "flag of Canada": the second is masked to the first)
(c) they are numbered variants of one author in one folder
(d) their pictures are nearly equal
"""

from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from polymodal.model.modalities.image.near_duplicates import (
    ALIKE,
    EQUAL,
    Fingerprint,
    first_near_duplicates,
    near_pairs,
)
from polymodal.model.training.sources.captions import Mask, caption_of, normalised
from polymodal.model.training.sources.items import Item

MAX_GROUP: Final = 12  # items of one group that are kept

CONTRADICTORY: Final = "filed under several labels"
REPEATED: Final = "filed several times under one label"
SURPLUS: Final = "beyond the cap of its group"


class Union:
    """Disjoint sets of 0 … n − 1; the smallest member names its set."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, member: int) -> int:
        """Return the set of `member`."""
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]  # halve the path
            member = self._parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        """Make the two sets one."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


def group_names(items: Sequence[Item], prints: Sequence[Fingerprint], mask: Mask) -> list[str]:
    """Return the name of each item's group: the id of the group's first member in order of ids."""
    order = sorted(range(len(items)), key=lambda index: items[index].id)
    ranked = [items[index] for index in order]
    union = Union(len(ranked))
    first: dict[Hashable, int] = {}
    for rank, item in enumerate(ranked):
        for key in _keys(item, mask):
            union.join(first.setdefault(key, rank), rank)
    for one, other in near_pairs([prints[index] for index in order], ALIKE):
        union.join(one, other)
    names = [""] * len(items)
    for rank, index in enumerate(order):
        names[index] = ranked[union.find(rank)].id
    return names


def _keys(item: Item, mask: Mask) -> Iterable[Hashable]:
    """Yield keys of the rules (a) to (c): items with a common key belong together."""
    if item.concept:
        yield (
            "caption",
            item.concept,
        )  # one namespace with captions, so that a concept matches an equal caption of another source
    unmasked = caption_of(item.title, item.keywords)
    masked = caption_of(mask.title(item.title), mask.keywords(item.keywords))
    for caption in (unmasked, masked, mask.text(item.title, item.keywords)):
        if normalised(caption):
            yield "caption", normalised(caption)
    if item.series:
        yield "series", item.series


def duplicates(items: Sequence[Item], prints: Sequence[Fingerprint]) -> dict[str, str]:
    """Return ids of items to drop because they are filed several times (nearly equal picture, equal caption), with the rule.

    If the labels differ, all of them are dropped; otherwise the first one in order of ids stays.
    """
    union = Union(len(items))
    captions = [normalised(caption_of(item.title, item.keywords)) for item in items]
    for one, other in near_pairs(prints, EQUAL):
        if captions[one] == captions[other]:
            union.join(one, other)
    leaving: dict[str, str] = {}
    for members in _sets([union.find(index) for index in range(len(items))]):
        ids = sorted(items[index].id for index in members)
        if len({items[index].label for index in members}) > 1:
            leaving |= dict.fromkeys(ids, CONTRADICTORY)
        else:
            leaving |= dict.fromkeys(ids[1:], REPEATED)
    return leaving


def over_the_cap(items: Sequence[Item], groups: Sequence[str]) -> dict[str, str]:
    """Return ids of all but MAX_GROUP items of each group; a hash of the id decides which ones stay, so sources mix."""
    leaving: dict[str, str] = {}
    for members in _sets(groups):
        ids = sorted((items[index].id for index in members), key=lambda name: sha256(name.encode()).digest())
        leaving |= dict.fromkeys(ids[MAX_GROUP:], SURPLUS)
    return leaving


def _sets(names: Sequence[Hashable]) -> Iterable[list[int]]:
    """Yield the indices of each name."""
    sets: dict[Hashable, list[int]] = {}
    for index, name in enumerate(names):
        sets.setdefault(name, []).append(index)
    return sets.values()


def seen_before(unseen: Sequence[Fingerprint], trained: Sequence[Fingerprint]) -> list[int]:
    """Return indices of the unseen pictures that are nearly equal to a trained one."""
    duplicates = first_near_duplicates(trained, unseen, ALIKE)
    return [index for index, duplicate in enumerate(duplicates) if duplicate is not None]
