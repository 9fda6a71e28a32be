"""One drawing as a source describes it, before masking, grouping and splitting."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """A picture with its caption and the label of its folder or emoji group."""

    id: str
    """Unique and stable, e.g. "openclipart/animals/birds/cigno_01"; also the picture's path below images/."""
    source: str
    picture: Path
    label: str
    title: str = ""
    keywords: tuple[str, ...] = ()
    author: str = ""
    licence: str = ""
    series: str = ""
    """Numbered variants of one author and folder share it; empty: none."""
    concept: str = ""
    """An emoji's concept, without skin tone and gender words; vendors share it. Empty: no emoji."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Items of a source, and a line for each problem (a broken file, a missing program)."""

    items: tuple[Item, ...]
    problems: tuple[str, ...] = ()
