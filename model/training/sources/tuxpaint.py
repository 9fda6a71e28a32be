"""Tux Paint's stamps: images with an English caption, the test of an unseen source (never trained or tuned on).

GPL-2; Debian package tuxpaint-stamps-default. 158 stamps are SVG only and need rsvg-convert.
"""

from pathlib import Path
from typing import Final

from polymodal.model.training.sources.images import UnusableImage, render_svg, svg_renderer
from polymodal.model.training.sources.items import Item, Reading
from polymodal.model.training.sources.taxonomy import DROPPED, TUXPAINT, label_by_folder

SOURCE: Final = "tuxpaint"
LICENCE: Final = "GPL-2.0-only"
ROOT: Final = "usr/share/tuxpaint/stamps"  # in the package


def read(root: Path, rendered: Path) -> Reading:
    """Read all stamps with a caption file and a label; SVG is rendered into the folder `rendered`."""
    program = svg_renderer()
    items: list[Item] = []
    problems: list[str] = []
    skipped = 0
    for captions in sorted(root.rglob("*.txt")):
        relative = captions.relative_to(root)
        label = label_by_folder(TUXPAINT, relative.parent.as_posix())
        if label is None:
            problems.append(f"{SOURCE}/{relative.as_posix()}: unknown folder")
            continue
        if label == DROPPED:
            continue
        image = captions.with_suffix(".png")
        drawing = captions.with_suffix(".svg")
        if not image.exists():
            if not drawing.exists():
                continue  # a caption for a stamp that the package has no image of
            if program is None:
                skipped += 1
                continue
            image = (rendered / relative).with_suffix(".png")
            try:
                render_svg(program, drawing, image)
            except UnusableImage as error:
                problems.append(f"{SOURCE}/{relative.as_posix()}: {error}")
                continue
        name = relative.with_suffix("").as_posix()
        items.append(Item(f"{SOURCE}/{name}", SOURCE, image, label, title=english(captions), licence=LICENCE))
    if skipped:
        problems.append(f"{SOURCE}: {skipped} SVG stamps skipped: rsvg-convert is missing (Debian: librsvg2-bin)")
    return Reading(tuple(items), tuple(problems))


def english(captions: Path) -> str:
    """Return the first line of a caption file; translations ("fr.utf8=…") follow it."""
    with captions.open(encoding="utf-8", errors="replace") as file:
        line = " ".join(file.readline().split())
    return "" if ".utf8=" in line else line
