"""Drawings as a source describes them, before masking, grouping and splitting."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """An image with its caption and the label of its folder or emoji group."""

    id: str
    """Unique and stable, e.g. "openclipart/animals/birds/cigno_01"; also the image's path below images/."""
    source: str
    image: Path
    label: str
    """Empty if its folder or emoji group has none; such an item is only used in pairs of an image and a text."""
    title: str = ""
    keywords: tuple[str, ...] = ()
    author: str = ""
    licence: str = ""
    series: str = ""
    """Key that numbered variants of one author and folder have in common; empty: no variants."""
    concept: str = ""
    """An emoji's concept, without skin tone and gender words, the same for all vendors; empty: no emoji."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Items of a source, and one line for each problem (a broken file, a missing program)."""

    items: tuple[Item, ...]
    problems: tuple[str, ...] = ()
