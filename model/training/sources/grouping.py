"""Groups: items that show one thing, and must therefore be in one split.

Two items belong together if one of these is true, directly or through other items:

(a) they are one emoji concept, drawn by several vendors, or with another skin tone or gender
(b) their captions are equal, masked or unmasked ("Canada" and "flag of Canada": the second is masked to the first)
(c) they are numbered variants of one author in one folder
(d) their images are nearly equal
"""

from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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


def group_names(items: Sequence[Item], prints: Sequence[Fingerprint], mask: Mask) -> list[str]:
    """Return the name of each item's group: the id of the group's first member in order of ids."""
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, index), index) for index, item in enumerate(items) for key in _keys(item, mask)]
    names: dict[int, str] = {}
    for members in _components(len(items), chain(pairs, near_pairs(prints, ALIKE))):
        names |= dict.fromkeys(members, min(items[index].id for index in members))
    return [names[index] for index in range(len(items))]


def _components(size: int, pairs: Iterable[tuple[int, int]]) -> Iterable[list[int]]:
    """Return the connected components of a graph of `size` nodes, whose edges are `pairs`, as lists of nodes."""
    edges = np.array([*pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    return _members(components.tolist())


def _keys(item: Item, mask: Mask) -> Iterable[Hashable]:
    """Yield keys of the rules (a) to (c): items with a common key belong together."""
    if item.concept:
        yield "caption", item.concept  # as captions do, so that it matches an equal caption of another source
    unmasked = caption_of(item.title, item.keywords)
    masked = caption_of(mask.title(item.title), mask.keywords(item.keywords))
    for caption in (unmasked, masked, mask.text(item.title, item.keywords)):
        if normalised(caption):
            yield "caption", normalised(caption)
    if item.series:
        yield "series", item.series


def duplicates(items: Sequence[Item], prints: Sequence[Fingerprint]) -> dict[str, str]:
    """Return ids of items to drop because they are filed several times (nearly equal image, equal caption), with the rule.

    If the labels differ, all of them are dropped; otherwise the first one in order of ids stays.
    """
    captions = [normalised(caption_of(item.title, item.keywords)) for item in items]
    pairs = ((one, other) for one, other in near_pairs(prints, EQUAL) if captions[one] == captions[other])
    leaving: dict[str, str] = {}
    for members in _components(len(items), pairs):
        ids = sorted(items[index].id for index in members)
        if len({items[index].label for index in members}) > 1:
            leaving |= dict.fromkeys(ids, CONTRADICTORY)
        else:
            leaving |= dict.fromkeys(ids[1:], REPEATED)
    return leaving


def over_the_cap(items: Sequence[Item], groups: Sequence[str]) -> dict[str, str]:
    """Return ids of all but MAX_GROUP items of each group; a hash of the id decides which ones stay, so that sources mix."""
    leaving: dict[str, str] = {}
    for members in _members(groups):
        ids = sorted((items[index].id for index in members), key=lambda name: sha256(name.encode()).digest())
        leaving |= dict.fromkeys(ids[MAX_GROUP:], SURPLUS)
    return leaving


def _members(groups: Sequence[Hashable]) -> Iterable[list[int]]:
    """Return the indices of the items of each group."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return members.values()


def seen_before(unseen: Sequence[Fingerprint], trained: Sequence[Fingerprint]) -> list[int]:
    """Return indices of the unseen images that are nearly equal to a trained one."""
    duplicates = first_near_duplicates(trained, unseen, ALIKE)
    return [index for index, duplicate in enumerate(duplicates) if duplicate is not None]
