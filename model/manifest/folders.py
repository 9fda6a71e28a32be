"""Folders of images: which files are rows, and what is left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model.modalities.image.formats import SUFFIXES

PICTURE_SUFFIXES: Final = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
SYSTEM_NAMES: Final = frozenset(
    (
        *("__macosx", "desktop.ini", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "icon\r"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot"),
        *("network trash folder", "temporary items", "__pycache__", "node_modules"),
    )
)
"""What operating systems, network storage and tools put into folders; names that begin with a dot in addition."""
NAMED: Final = 5  # files or folders that a warning names; the rest is counted


@dataclass(slots=True)
class Found:
    """What is below a folder; paths are relative to it."""

    images: list[Path] = field(default_factory=list)
    hidden: Counter[str] = field(default_factory=Counter)
    """Hidden or system files and folders, by name."""
    other: list[str] = field(default_factory=list)
    """Files of other formats."""
    empty: list[str] = field(default_factory=list)
    """Image files of 0 bytes."""
    lost: list[str] = field(default_factory=list)
    """Links that lead nowhere or back, and what is neither file nor folder."""
    bare: list[str] = field(default_factory=list)
    """Folders without an image below them, the topmost ones."""
    garbled: list[str] = field(default_factory=list)
    """Names whose bytes are no UTF-8."""
    closed: list[str] = field(default_factory=list)
    """Folders without read permission."""

    def left_out(self) -> Iterator[str]:
        """Yield one sentence for each reason why files are no rows."""
        if self.hidden:
            yield f"left out, hidden or of the system: {numbered(self.hidden)}"
        if self.other:
            suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in self.other)
            allowed = ", ".join(sorted(PICTURE_SUFFIXES))
            yield f"left out, no picture by suffix: {numbered(suffixes)}: {listed(self.other)}; allowed: {allowed}"
        if self.empty:
            yield f"left out, pictures of 0 bytes: {listed(self.empty)}; allowed: files that are here as a whole"
        if self.lost:
            yield f"left out, links that lead nowhere or back: {listed(self.lost)}; allowed: files and folders"
        if self.garbled:
            yield f"left out, names that are no UTF-8: {listed(self.garbled)}; allowed: names in UTF-8"
        if self.bare:
            counts = Counter(dict.fromkeys(self.bare, 0))
            for name in (*self.other, *self.empty, *self.lost):
                counts.update(folder for parent in Path(name).parents if (folder := f"{parent.as_posix()}/") in counts)
            yield f"folders without a picture, with the files left out there: {numbered(counts)}"


def walk(top: Path) -> Found:
    """Find the images below a folder, in an order that does not depend on the file system. Links are followed."""
    found = Found()
    _walk(top, top, found, frozenset())
    found.images.sort(key=lambda path: [unicodedata.normalize("NFC", part) for part in path.parts])
    return found


def _walk(folder: Path, top: Path, found: Found, above: frozenset[tuple[int, int]]) -> None:
    place = folder.relative_to(top).as_posix()
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        found.lost.append(place)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        found.closed.append(place)
        return
    images, bare = len(found.images), len(found.bare)
    for entry in entries:
        path = (folder / entry.name).relative_to(top)
        if is_hidden(entry.name):
            name = "._*" if entry.name.startswith("._") else entry.name
            found.hidden[f"{name}/" if _holds(entry.is_dir) else name] += 1
        elif any("\ud800" <= character <= "\udfff" for character in entry.name):
            found.garbled.append(path.as_posix())
        elif _holds(entry.is_dir):
            _walk(folder / entry.name, top, found, above | {identity})
        elif not _holds(entry.is_file):
            found.lost.append(path.as_posix())
        elif path.suffix.lower() not in PICTURE_SUFFIXES:
            found.other.append(path.as_posix())
        elif entry.stat().st_size:
            found.images.append(path)
        else:
            found.empty.append(path.as_posix())
    if len(found.images) == images and folder != top:
        found.bare[bare:] = [f"{place}/"]  # in place of those below it


def _holds(test: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; one that a loop of links leads to is of none."""
    try:
        return test()
    except OSError:
        return False


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to an operating system or a tool."""
    return name.lower().startswith((".", "~$", "@syno")) or name.lower() in SYSTEM_NAMES


def listed(names: Sequence[str]) -> str:
    """Return the number of names and the first of them."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} ({', '.join(map(printable, names[:NAMED]))}{more})"


def numbered(counts: Counter[str]) -> str:
    """Return the most frequent names, each with its number."""
    more = f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else ""
    return ", ".join(f"{printable(name)} ({count:,})" for name, count in counts.most_common(NAMED)) + more


def printable(name: str) -> str:
    """Return a file's name with escapes for what a terminal would not print, or obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in name
    )
