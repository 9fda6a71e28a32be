"""Paths, names and labels in a manifest are read as they look, and paths only below allowed folders."""

import json
import os
from pathlib import Path

import pytest

from polymodal.model.manifest import ManifestError, open_table, read_manifest
from polymodal.model.targets.weights import class_weights
from polymodal.model.training.splits import with_splits

NFC, NFD = "café.png", "cafe\u0301.png"


@pytest.fixture
def data(tmp_path):
    """Return `data(*lines)`, which writes data/manifest.csv. There are images next to it and in the folders next to data/."""
    for name in ("data/a.png", "images/b.png", "images/deep/c.png", "secret/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())

    def save(*lines):
        (tmp_path / "data/manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "data"

    return save


def label_lines(*labels):
    return ["text,label", *(f"words {number},{label}" for number, label in enumerate(labels))]


# --- names of files ---


@pytest.mark.parametrize(
    ("on_disk", "in_the_table"),
    [
        pytest.param(NFD, NFC, id="disk-in-form-d"),
        pytest.param(NFC, NFD, id="table-in-form-d"),
        pytest.param("a b.png", "a\u00a0b.png", id="no-break-space"),
        pytest.param("x.png", "x.png\u200b", id="zero-width-space"),
        pytest.param(f"cafe\u0301/{NFD}", f"café/{NFC}", id="folders-too"),
    ],
)
def test_a_file_is_found_by_a_name_that_looks_the_same(data, on_disk, in_the_table):
    folder = data("image,label", f"{in_the_table},x")
    (folder / on_disk).parent.mkdir(exist_ok=True)
    (folder / on_disk).write_bytes(b"bytes")
    assert read_manifest(folder).rows[0].inputs["image"] == folder / on_disk
    assert [problems for _, problems in open_table(folder).rows("single-label")] == [()]


def test_a_file_of_exactly_the_same_name_takes_precedence(data):
    folder = data("image,label", f"{NFC},x", f"{NFD},y")
    for name in (NFC, NFD):
        (folder / name).write_bytes(name.encode())
    assert [row.inputs["image"].name for row in read_manifest(folder).rows] == [NFC, NFD]


def test_a_name_that_looks_like_two_files_is_rejected(data):
    folder = data("image,label", "caf\u200be\u0301.png,x")
    for name in (NFC, NFD):
        (folder / name).write_bytes(b"bytes")
    with pytest.raises(ManifestError, match="is not there"):
        read_manifest(folder)


def test_the_digest_does_not_depend_on_how_the_disk_spells_a_name(data):
    folder = data("image,label", f"{NFC},x")
    digests = set()
    for name in (NFC, NFD):
        (folder / name).write_bytes(b"bytes")
        digests.add(read_manifest(folder).digest)
        (folder / name).unlink()
    assert len(digests) == 1


def test_base64_in_place_of_a_path_is_a_problem_with_a_short_message(data):
    with pytest.raises(ManifestError) as caught:
        read_manifest(data("image,label", f"{'iVBORw0KGgo' * 1000},x"))
    (problem,) = caught.value.problems
    assert "is not there; allowed: a file below data/" in problem
    assert len(problem) < 300


# --- --root ---


def test_a_path_outside_the_folder_is_rejected_with_a_hint_to_root(data, tmp_path):
    folder = data("image,label", f"{tmp_path}/images/b.png,x", "../images/b.png,y")
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    allowed = "allowed: a path below the manifest's folder, or below a folder that --root names"
    assert [problem.partition("; ")[2] for problem in caught.value.problems] == [allowed] * 2
    assert str(caught.value).count(allowed) == 1


def test_paths_below_a_root_are_read(data, tmp_path):
    cells = ["a.png", f"{tmp_path}/images/b.png", "../images/deep/c.png", f"{tmp_path}/data/a.png"]
    folder = data("image,label", *(f"{cell},x" for cell in cells))
    roots = [tmp_path / "images"]
    expected = [tmp_path / name for name in ("data/a.png", "images/b.png", "images/deep/c.png", "data/a.png")]
    assert [row.inputs["image"] for row in read_manifest(folder, roots=roots).rows] == expected
    table = open_table(folder, roots=roots)
    assert [(row.inputs["image"], problems) for row, problems in table.rows("single-label")] == [
        (path, ()) for path in expected
    ]


@pytest.mark.parametrize("cell", ["../secret/d.png", "../images/../secret/d.png", "../images-2/e.png", "/etc/passwd"])
def test_a_root_allows_only_paths_below_it(data, tmp_path, cell):
    (tmp_path / "images-2").mkdir()
    (tmp_path / "images-2/e.png").write_bytes(b"bytes")
    with pytest.raises(ManifestError, match="leaves the folder"):
        read_manifest(data("image,label", f"{cell},x"), roots=[tmp_path / "images"])


def test_several_roots_are_allowed_and_may_be_relative(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = data("image,label", "../secret/d.png,x", "../images/b.png,x")
    assert len(read_manifest(folder, roots=[Path("secret"), Path("images")]).rows) == 2


def test_a_root_and_its_images_may_be_links(data, tmp_path):
    os.symlink(tmp_path / "images", tmp_path / "disk")
    os.symlink(tmp_path / "secret/d.png", tmp_path / "images/link.png")
    folder = data("image,label", f"{tmp_path}/images/b.png,x", f"{tmp_path}/disk/link.png,x")
    assert len(read_manifest(folder, roots=[tmp_path / "disk"]).rows) == 2


def test_the_digest_does_not_depend_on_where_a_root_is(data, tmp_path):
    folder = data("image,label", f"{tmp_path}/images/deep/c.png,x", "a.png,y")
    before = with_splits(read_manifest(folder, roots=[tmp_path / "images"]), 0).digest
    (tmp_path / "images").rename(tmp_path / "moved")
    data("image,label", "../moved/deep/c.png,x", "a.png,y")
    assert with_splits(read_manifest(folder, roots=[tmp_path / "moved"]), 0).digest == before


# --- labels ---


def test_labels_that_look_the_same_are_one_label_with_a_warning(data):
    manifest = read_manifest(data(*label_lines("café", "cafe\u0301", "Al\u200bpha", "\ufeffAlpha", "a\u00a0b", "a  b")))
    assert manifest.labels == ("Alpha", "a b", "café")
    (warning,) = manifest.warnings
    assert warning.startswith("column label: 5 cells read without what cannot be seen")
    assert r"'cafe\u0301' as 'café', 'Al\u200bpha' as 'Alpha', '\ufeffAlpha' as 'Alpha' and others" in warning


def test_labels_in_a_cell_are_read_as_they_look(data):
    folder = data(*label_lines("red\u200b|cafe\u0301", "red|café"))
    assert read_manifest(folder, "multi-label").labels == ("café", "red")


def test_a_list_of_labels_is_read_as_it_looks(tmp_path):
    rows = [{"text": "a", "label": ["red\u200b", "cafe\u0301"]}, {"text": "b", "label": ["red"]}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    manifest = read_manifest(tmp_path, "multi-label")
    assert manifest.labels == ("café", "red")
    assert "column label: 2 cells read" in manifest.warnings[0]


def test_an_invisible_label_is_missing(data):
    with pytest.raises(ManifestError, match="line 2: no label"):
        read_manifest(data(*label_lines("\u200b\ufeff", "x")))


def test_groups_ids_splits_and_sources_are_read_as_they_look(data):
    folder = data(
        "id,text,label,group,split,source",
        "a\u200b,words,x,cafe\u0301,train\u200b,shop\u00a01",
        "b,words,y,café,train,shop 1",
    )
    first, second = read_manifest(folder).rows
    assert (first.id, first.group, first.split, first.source) == ("a", "café", "train", "shop 1")
    assert (second.group, second.split, second.source) == (first.group, first.split, first.source)


def test_ids_that_look_the_same_are_rejected(data):
    with pytest.raises(ManifestError, match="line 3: id 'a' is taken by line 2"):
        read_manifest(data("id,text,label", "a,words,x", "a\u200b,words,y"))


def test_labels_that_differ_in_case_are_different_with_a_warning(data):
    manifest = read_manifest(data(*label_lines("Alpha", "Alpha", "alpha", "beta")))
    assert manifest.labels == ("Alpha", "alpha", "beta")
    (warning,) = manifest.warnings
    assert warning.startswith("labels 'Alpha' (2 rows) and 'alpha' (1 row) differ in case alone, and stay apart")


def test_labels_with_letters_that_look_alike_are_escaped_in_the_warning(data):
    (warning,) = read_manifest(data(*label_lines("cat", "c\u0430t"))).warnings
    assert r"labels 'cat' (1 row) and 'c\u0430t' (1 row) differ by little" in warning


@pytest.mark.parametrize("column", ["group", "source"])
def test_groups_and_sources_that_differ_in_case_have_a_warning(data, column):
    manifest = read_manifest(data(f"text,label,{column}", "a,x,Shop", "b,y,shop"))
    (warning,) = manifest.warnings
    assert warning.startswith(f"{column}s 'Shop' (1 row) and 'shop' (1 row) differ in case alone")


def test_usual_names_have_no_warning(data):
    assert read_manifest(data("id,text,label,group", "a,x,Größe,A", "b,y,red lamp,B")).warnings == ()


def test_class_weights_are_assigned_to_labels_that_look_the_same():
    weights = class_weights("cafe\u0301=2,red\u200b=0.5", "single-label", ["café", "red"], ("café", "red"))
    assert weights == {"café": 2.0, "red": 0.5}
