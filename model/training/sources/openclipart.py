"""Open Clip Art: PNG images with the title, keywords and author from the SVG of the same name.

Public domain dedication; Debian packages openclipart-png and openclipart-svg.
"""

import re
import xml.etree.ElementTree as ET  # its known weaknesses don't matter: the files come from a signed package
from pathlib import Path
from typing import Final

from polymodal.model.training.sources.items import Item, Reading
from polymodal.model.training.sources.taxonomy import OPENCLIPART, label_by_folder

SOURCE: Final = "openclipart"
LICENCE: Final = "CC-PDDC"  # SPDX: Creative Commons Public Domain Dedication and Certification
PNG_ROOT: Final = "usr/share/openclipart/png"  # in the package
SVG_ROOT: Final = "usr/share/openclipart/svg"

_DC = "{http://purl.org/dc/elements/1.1/}"
_NUMBER = re.compile(r"[\W_]*\d+[\W_]*$")


def read(png_root: Path, svg_root: Path) -> Reading:
    """Read all items in order of their ids; those of folders that are left out have no label."""
    items: list[Item] = []
    problems: list[str] = []
    for png in sorted(png_root.rglob("*.png")):
        relative = png.relative_to(png_root)
        label = label_by_folder(OPENCLIPART, relative.parent.as_posix())
        if label is None:
            problems.append(f"{SOURCE}/{relative.as_posix()}: unknown folder")
            continue
        try:
            items.append(_item(png, relative, svg_root, label))
        except (OSError, ValueError, ET.ParseError) as error:
            problems.append(f"{SOURCE}/{relative.as_posix()}: no metadata: {error}")
    return Reading(tuple(items), tuple(problems))


def _item(png: Path, relative: Path, svg_root: Path, label: str) -> Item:
    title, keywords, author = metadata((svg_root / relative).with_suffix(".svg"))
    folder = relative.parent.as_posix()
    return Item(
        id=f"{SOURCE}/{relative.with_suffix('').as_posix()}",
        source=SOURCE,
        image=png,
        label=label,
        title=title,
        keywords=keywords,
        author=author,
        licence=LICENCE,
        series=f"{folder}|{author.casefold()}|{_NUMBER.sub('', relative.stem).casefold()}",
    )


def metadata(svg: Path) -> tuple[str, tuple[str, ...], str]:
    """Return title, keywords and author from the RDF block of an SVG, which may be empty."""
    work = next((node for node in ET.parse(svg).iter() if node.tag.endswith("}Work")), None)  # noqa: S314
    if work is None:
        return "", (), ""
    title = " ".join((work.findtext(f"{_DC}title") or "").split())
    subject = work.find(f"{_DC}subject")
    nodes = [] if subject is None else subject.iter()
    keywords = tuple(" ".join((node.text or "").split()) for node in nodes if node.tag.endswith("}li"))
    creator = work.find(f"{_DC}creator")
    names = [] if creator is None else creator.iter(f"{_DC}title")
    author = next((" ".join(name.text.split()) for name in names if name.text), "")
    return title, keywords, author
