"""The data digest of a manifest: which rows and which bytes a model was trained on."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from model.manifest.paths import portable_name
from model.manifest.rows import Row


def data_digest(rows: Sequence[Row], roots: Sequence[Path], image_digests: Sequence[str]) -> str:
    """SHA-256 over one line per row: its cells and `image_sha256`, the SHA-256 of its picture's bytes, as JSON.

    Keys are sorted, there are no spaces, nothing but what JSON demands is escaped. The image's path is relative to the innermost
    of the folders `roots` that it is below, and in normal form C, so that it is the same on every machine.
    """
    total = hashlib.sha256()
    for row, image_digest in zip(rows, image_digests, strict=True):
        image = "" if row.image is None else portable_name(row.image, roots)
        cells = cells_of(row, roots[0]) | {"image": image, "image_sha256": image_digest}
        line = json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total.update(line.encode() + b"\n")
    return total.hexdigest()


def cells_of(row: Row, root: Path) -> dict[str, str]:
    """Return the row as text cells by column, its image's path relative to `root`."""
    image = "" if row.image is None else Path(os.path.relpath(row.image, root)).as_posix()
    return asdict(row) | {"image": image, "text": row.text or ""}


def file_digest(path: Path | None) -> str:
    """Return the SHA-256 of a file's bytes, "" without a file."""
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # reads in blocks
