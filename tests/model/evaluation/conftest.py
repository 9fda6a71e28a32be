"""A manifest with good and bad rows, and the tiny bundle as it is served."""

import csv
import shutil
from pathlib import Path

import pytest

from polymodal.model import Network

BAD = [
    {"id": "lost", "image": "images/lost.png", "label": "sea"},
    {"id": "broken", "image": "images/broken.png", "text": "blue", "label": "sea"},
    {"id": "strange", "text": "a table", "label": "furniture"},
    {"id": "empty", "label": "sea"},
]
"""Rows added to the test split: some can't be read, and one has a label that the bundle lacks."""


@pytest.fixture(scope="session")
def served(predictors) -> Network:
    return predictors["onnx"]


@pytest.fixture(scope="session")
def with_bad_rows(manifest_folder, tmp_path_factory) -> Path:
    """Path of a manifest.csv with the test split of `manifest_folder` and the bad rows in between."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(manifest_folder / "images", folder / "images")
    (folder / "images/broken.png").write_bytes((folder / "images/test-sea-0.png").read_bytes()[:60])
    with (manifest_folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        good = [row for row in reader if row["split"] == "test"]
    rows = [*good[:3], *({"split": "test", **row} for row in BAD), *good[3:]]
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, reader.fieldnames, restval="")
        table.writeheader()
        table.writerows(rows)
    return folder / "manifest.csv"
