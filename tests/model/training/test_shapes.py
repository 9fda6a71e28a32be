"""The toy data set is reproducible, has no errors, and needs both inputs."""

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from polymodal.model.errors import ModelError
from polymodal.model.manifest import read_manifest
from polymodal.model.training.checks import inspect
from polymodal.model.training.sources.shapes import MATERIALS, build


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    out = tmp_path_factory.mktemp("toys") / "shapes"
    build(out, rows=120)
    return out


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_depend_on_the_seed_alone(shapes, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        build(tmp_path / name, rows=120, seed=seed)
    assert files_in(tmp_path / "same") == files_in(shapes)
    assert files_in(tmp_path / "other") != files_in(shapes)


def test_checks_report_no_errors_and_no_warnings(shapes):
    result = inspect(shapes, "single-label", 0, 2).result
    assert (result.errors, result.warnings) == ([], [])


def test_the_image_shows_the_colour_and_the_caption_names_the_material(shapes):
    counts = Counter()
    for row in read_manifest(shapes).rows:
        colour, material = row.label.split()
        pixels = np.asarray(Image.open(row.inputs["image"])).reshape(-1, 3).astype(int)
        painted = pixels[(pixels.max(axis=1) - pixels.min(axis=1)) > 60].mean(axis=0)
        assert ("red" if painted[0] > painted[2] else "blue") == colour
        named = {word for word in row.inputs["text"].replace(",", "").split() if word in sum(MATERIALS.values(), ())}
        assert len(named) == 1
        assert named < set(MATERIALS[material])
        assert not {"red", "blue", "wood", "metal"} & set(row.inputs["text"].split())
        counts[row.label] += 1
    assert set(counts.values()) == {30}


def test_groups_and_splits_are_written_with_the_options(tmp_path):
    build(tmp_path / "new", rows=40, groups=True, splits=True)
    rows = read_manifest(tmp_path / "new").rows
    assert {row.split for row in rows} == {"train", "validation", "test"}
    members = {}
    for row in rows:
        members.setdefault(row.group, []).append((row.label, row.split))
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in members.values())


def test_older_shapes_are_replaced_but_not_other_files(tmp_path):
    build(tmp_path / "shapes", rows=20)
    build(tmp_path / "shapes", rows=10)
    assert len(list((tmp_path / "shapes/images").iterdir())) == 10
    with (tmp_path / "shapes/manifest.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 10
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ModelError, match="holds other files"):
        build(tmp_path)
