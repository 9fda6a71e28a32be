"""The data digest of a manifest, which identifies the rows and bytes that a model was trained on."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from polymodal.model.digest import file_sha256
from polymodal.model.manifest.paths import portable_name
from polymodal.model.manifest.rows import Row
from polymodal.model.modalities import MODALITIES


def data_digest(rows: Sequence[Row], roots: Sequence[Path], file_digests: Sequence[Mapping[str, str]]) -> str:
    """Return the SHA-256 over a JSON line per row: its cells and the SHA-256 of each of its files, such as `image_sha256`.

    `file_digests` has these by modality, for each row. Keys are sorted, without spaces; only what JSON requires is escaped. The
    path of a file is relative to the innermost of the folders `roots` above it and in normal form C, so that it is portable.
    A row has keys of a missing modality only where this is `always_digested`.
    """
    total = hashlib.sha256()
    for row, digests in zip(rows, file_digests, strict=True):
        cells = cells_of(row, roots[0])
        for name, modality in MODALITIES.items():
            value = row.inputs.get(name)
            if value is None and not modality.always_digested:
                del cells[name]
            elif not modality.textual:
                cells[name] = portable_name(value, roots) if isinstance(value, Path) else ""
                cells[f"{name}_sha256"] = digests.get(name, "")
        line = json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total.update(line.encode() + b"\n")
    return total.hexdigest()


def cells_of(row: Row, root: Path) -> dict[str, str]:
    """Return the row as text cells by column, with paths relative to `root` and "" for missing cells."""
    inputs = {
        name: Path(os.path.relpath(value, root)).as_posix() if isinstance(value, Path) else value
        for name, value in row.inputs.items()
    }
    return {
        "id": row.id,
        **dict.fromkeys(MODALITIES, ""),
        **inputs,
        "label": row.label,
        "group": row.group,
        "split": row.split,
        "source": row.source,
        "licence": row.licence,
    }


def digests_of_files(row: Row) -> dict[str, str]:
    """Return the SHA-256 of each of a row's files, by modality."""
    return {name: file_sha256(value) for name, value in row.inputs.items() if isinstance(value, Path)}
