"""Find the files below a folder that are rows of a manifest, and count those that are left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from polymodal.model.modalities import MODALITIES

SYSTEM_NAMES: Final = frozenset(
    (
        *("__macosx", "desktop.ini", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "icon\r"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot"),
        *("network trash folder", "temporary items", "__pycache__", "node_modules"),
    )
)
"""Names that operating systems, network storage and tools create, in addition to those that begin with a dot."""
NAMED: Final = 5  # most files or folders that a warning names; the rest is counted


@dataclass(slots=True)
class Listing:
    """Entries below a folder; paths are relative to it."""

    files: list[Path] = field(default_factory=list)
    """Files of the modalities, by their suffixes."""
    hidden: Counter[str] = field(default_factory=Counter)
    """Hidden or system files and folders, by name."""
    other: list[str] = field(default_factory=list)
    """Files of other formats."""
    empty: list[str] = field(default_factory=list)
    """Files of a modality that have 0 bytes."""
    lost: list[str] = field(default_factory=list)
    """Links that lead nowhere or back, and entries that are neither file nor folder."""
    without_files: list[str] = field(default_factory=list)
    """Folders without a file of a modality below them, the topmost ones."""
    garbled: list[str] = field(default_factory=list)
    """Names that are not UTF-8."""
    closed: list[str] = field(default_factory=list)
    """Folders without read permission."""

    def left_out(self) -> Iterator[str]:
        """Yield a warning for each reason why files are left out."""
        if self.hidden:
            yield f"left out, hidden or of the system: {numbered(self.hidden)}"
        if self.other:
            suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in self.other)
            allowed = ", ".join(sorted(suffix for modality in MODALITIES.values() for suffix in modality.suffixes))
            yield f"left out, no {file_noun()} by suffix: {numbered(suffixes)}: {listed(self.other)}; allowed: {allowed}"
        if self.empty:
            yield f"left out, {file_noun('s')} of 0 bytes: {listed(self.empty)}; allowed: files that are here as a whole"
        if self.lost:
            yield f"left out, links that lead nowhere or back: {listed(self.lost)}; allowed: files and folders"
        if self.garbled:
            yield f"left out, names that are no UTF-8: {listed(self.garbled)}; allowed: names in UTF-8"
        if self.without_files:
            counts = Counter(dict.fromkeys(self.without_files, 0))
            for name in (*self.other, *self.empty, *self.lost):
                counts.update(folder for parent in Path(name).parents if (folder := f"{parent.as_posix()}/") in counts)
            yield f"folders without a {file_noun()}, with the files left out there: {numbered(counts)}"


def walk(top: Path) -> Listing:
    """Find the files of the modalities below a folder, following links, in an order that does not depend on the file system."""
    listing = Listing()
    _walk(top, top, listing, frozenset())
    listing.files.sort(key=lambda path: [unicodedata.normalize("NFC", name) for name in path.parts])
    return listing


def _walk(folder: Path, top: Path, listing: Listing, above: frozenset[tuple[int, int]]) -> None:
    place = folder.relative_to(top).as_posix()
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        listing.lost.append(place)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        listing.closed.append(place)
        return
    files_before, without_files = len(listing.files), len(listing.without_files)
    for entry in entries:
        path = (folder / entry.name).relative_to(top)
        if is_hidden(entry.name):
            name = "._*" if entry.name.startswith("._") else entry.name
            listing.hidden[f"{name}/" if _is_true(entry.is_dir) else name] += 1
        elif any("\ud800" <= character <= "\udfff" for character in entry.name):
            listing.garbled.append(path.as_posix())
        elif _is_true(entry.is_dir):
            _walk(folder / entry.name, top, listing, above | {identity})
        elif not _is_true(entry.is_file):
            listing.lost.append(path.as_posix())
        elif modality_of(path) is None:
            listing.other.append(path.as_posix())
        elif entry.stat().st_size:
            listing.files.append(path)
        else:
            listing.empty.append(path.as_posix())
    if len(listing.files) == files_before and folder != top:
        listing.without_files[without_files:] = [f"{place}/"]  # in place of those below it


def _is_true(test: Callable[[], bool]) -> bool:
    """Return the result of a test of an entry; False for a loop of links."""
    try:
        return test()
    except OSError:
        return False


def modality_of(path: PurePath) -> str | None:
    """Return the modality of a file by its suffix, None for other files."""
    suffix = path.suffix.lower()
    return next((name for name, modality in MODALITIES.items() if suffix in modality.suffixes), None)


def file_noun(plural: str = "") -> str:
    """Return users' noun for a file of any modality, with the plural's ending if it is given."""
    return " or ".join(f"{modality.common_noun}{plural}" for modality in MODALITIES.values() if not modality.textual)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or belongs to an operating system or a tool."""
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
    """Return a file's name with escapes for characters that a terminal would not print, or interpret."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in name
    )
