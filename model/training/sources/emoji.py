"""Emoji images of three vendors with the English names and tags of emojibase.

Google's are Apache-2.0, Twitter's CC-BY-4.0, Fluent's and the names MIT. npm packages emoji-datasource-google,
emoji-datasource-twitter, @lobehub/fluent-emoji-3d and emojibase-data.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from polymodal.model.training.sources.captions import normalised
from polymodal.model.training.sources.items import Item, Reading
from polymodal.model.training.sources.taxonomy import label_by_emoji_group

SOURCE: Final = "emoji"


@dataclass(frozen=True, slots=True)
class Vendor:
    """A set of images: files named by code points, in a folder of a package."""

    name: str
    package: str
    folder: str
    suffix: str
    licence: str


VENDORS: Final = (
    Vendor("fluent", "@lobehub/fluent-emoji-3d", "package/assets", ".webp", "MIT"),
    Vendor("google", "emoji-datasource-google", "package/img/google/64", ".png", "Apache-2.0"),
    Vendor("twitter", "emoji-datasource-twitter", "package/img/twitter/64", ".png", "CC-BY-4.0"),
)
NAMES_PACKAGE: Final = "emojibase-data"
NAMES_FOLDER: Final = "package/en"

# Left out of a concept: "man running" and "woman running" are one, so are "family: man, woman, boy" and "family".
PERSON_WORDS: Final = frozenset(
    (
        *("man", "men", "woman", "women", "person", "people", "male", "female", "mr", "mrs"),
        *("boy", "girl", "child", "adult", "old", "older"),
    )
)
_DIRECTION = re.compile(r"\bfacing (left|right)\b")
_TONE = re.compile(r"\b(medium-)?(light|medium|dark) skin tone\b")


def read(names: Path, images: Mapping[str, Path]) -> Reading:
    """Read every emoji, for each vendor (name → folder of its images) that has drawn it; those of groups left out have no label."""
    emoji = json.loads((names / "data.json").read_bytes())
    messages = json.loads((names / "messages.json").read_bytes())
    groups = {group["order"]: group["key"] for group in messages["groups"]}
    subgroups = _subgroups(messages["subgroups"])
    items: list[Item] = []
    problems: list[str] = []
    for vendor in VENDORS:
        if vendor.name not in images:
            continue
        files = {
            code_points(file.stem): file
            for file in sorted(images[vendor.name].iterdir(), reverse=True)
            if file.suffix == vendor.suffix
        }
        if not files:
            problems.append(f"{SOURCE}/{vendor.name}: no {vendor.suffix} files in the package")
        items.extend(_items(vendor, files, emoji, groups, subgroups))
    return Reading(tuple(sorted(items, key=lambda item: item.id)), tuple(problems))


def _items(
    vendor: Vendor,
    files: Mapping[str, Path],
    emoji: list[dict[str, Any]],
    groups: Mapping[int, str],
    subgroups: Mapping[int, str],
) -> Iterator[Item]:
    for entry in emoji:
        code = code_points(entry["hexcode"])
        group, subgroup = groups.get(entry.get("group", -1), ""), subgroups.get(entry.get("subgroup", -1), "")
        label = label_by_emoji_group(group, subgroup)
        if code not in files:
            continue
        yield Item(
            id=f"{SOURCE}/{vendor.name}/{code}",
            source=SOURCE,
            image=files[code],
            label=label,
            title=entry["label"],
            keywords=tuple(entry.get("tags", ())),
            licence=vendor.licence,
            concept=concept(entry["label"]),
        )


def _subgroups(messages: list[dict[str, Any]]) -> dict[int, str]:
    """Return keys by order. In version 17 two subgroups of food have the same order; the first is used."""
    keys: dict[int, str] = {}
    for subgroup in messages:
        keys.setdefault(subgroup["order"], subgroup["key"])
    return keys


def code_points(name: str) -> str:
    """Normalise the code points of a file name or of emojibase: lower case, no variation selector."""
    return "-".join(code for code in name.lower().split("-") if code != "fe0f")


def concept(name: str) -> str:
    """Return an emoji's concept without skin tone, gender, age and direction, e.g. "running", "curly hair", "family"."""
    plain = _DIRECTION.sub("", _TONE.sub("", name.casefold()))
    words = [word for word in normalised(plain).split() if word not in PERSON_WORDS]
    return " ".join(words) or "person"
