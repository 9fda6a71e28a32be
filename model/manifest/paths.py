"""Paths of a manifest's files, and their portable names."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from polymodal.model.faults import Fault
from polymodal.model.spelling import spelled

SHOWN: Final = 200
"""Most characters of a path in a message."""


class FilePaths:
    """Finds files below the manifest's folder and further allowed folders."""

    def __init__(self, root: Path, allowed: Sequence[Path] = ()) -> None:
        self._roots = (root, *allowed)
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, modality: str, cell: str, base: Path) -> Path | Fault:
        """Return the absolute path of a modality's cell that is relative to `base`, or the fault."""
        path = Path(os.path.normpath(base / cell))
        root = _root_of(path, self._roots)
        name = repr(cell if len(cell) <= SHOWN else f"{cell[:SHOWN]}…")
        if root is None:
            allowed = "a path below the manifest's folder, or below a folder that --root names"
            return Fault(f"{modality} {{}} leaves the folder", name, allowed=allowed)
        if not os.path.isfile(path) and path.is_relative_to(root):
            path = self._spelled_otherwise(path, root)
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            return Fault(f"{modality} {{}} is not there", name, allowed=f"a file below {base.name}/")
        if not os.access(path, os.R_OK):
            allowed = "a file with read permission"
            return Fault(f"{modality} {{}} must not be read by this user", name, allowed=allowed)
        return path

    def _spelled_otherwise(self, path: Path, root: Path) -> Path:
        """Return the one path that looks the same, such as one in normal form D; `path` itself if there is none."""
        actual = root
        for name in path.relative_to(root).parts:
            alike = [name] if os.path.exists(actual / name) else self._listing(actual).get(spelled(name), [])
            if len(alike) != 1:
                return path
            actual /= alike[0]
        return actual

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            names: dict[str, list[str]] = {}
            for name in os.listdir(folder) if folder.is_dir() and os.access(folder, os.R_OK) else ():
                names.setdefault(spelled(name), []).append(name)
            self._listings[folder] = names
        return self._listings[folder]


def portable_name(path: Path, roots: Sequence[Path]) -> str:
    """Return a path in normal form C, relative to the innermost of these folders above it.

    It does not depend on where the folders are, nor on how the file system spells names.
    """
    root = _root_of(path, roots)
    if root is None:
        name = os.path.relpath(path, roots[0])
    elif path.is_relative_to(root):
        name = os.path.relpath(path, root)
    else:
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    return unicodedata.normalize("NFC", Path(name).as_posix())


def _root_of(path: Path, roots: Sequence[Path]) -> Path | None:
    """Return the innermost folder that a path is below as it is written, or else when its links are followed."""
    written = [root for root in roots if path.is_relative_to(root)]
    if not written:
        real = os.path.realpath(path)
        written = [root for root in roots if Path(real).is_relative_to(os.path.realpath(root))]
    return max(written, key=lambda root: len(root.parts), default=None)
