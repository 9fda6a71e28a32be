"""Reading, checking, splitting and writing manifests."""

import builtins
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.model.blank import is_blank
from polymodal.model.errors import ModelError
from polymodal.model.manifest import (
    SPLITS,
    ManifestError,
    Row,
    column_names,
    open_table,
    read_inputs,
    read_manifest,
    read_rows,
    read_splits,
    write_manifest,
)
from polymodal.model.spelling import spelled
from polymodal.model.training.splits import write_split


@pytest.fixture
def folder(tmp_path):
    """A folder with two image files, which the reader only digests, and no manifest."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"first picture")
    (tmp_path / "images/b.png").write_bytes(b"second picture")
    return tmp_path


def save(folder, *lines, name="manifest.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems_of(path, target="single-label"):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, target)
    return caught.value.problems


every_format = pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])


TABLE = [
    {"image": "images/a.png", "text": "a lamp, green", "label": "lamps"},
    {"image": "images/b.png", "text": "", "label": "chairs"},
    {"image": "", "text": "zwei Stühle", "label": "chairs"},
]


def save_table(folder, suffix, table=TABLE, stem="manifest"):
    path = folder / f"{stem}{suffix}"
    columns = list(table[0])
    if suffix == ".csv":
        quoted = [",".join(f'"{row[column]}"' for column in columns) for row in table]
        save(folder, ",".join(columns), *quoted, name=path.name)
    elif suffix == ".jsonl":
        save(folder, *(json.dumps(row) for row in table), name=path.name)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


# --- forms ---


@every_format
def test_every_format_holds_the_same_table(folder, suffix):
    manifest = read_manifest(save_table(folder, suffix))
    first, second, third = manifest.rows
    inputs = {"image": folder / "images/a.png", "text": "a lamp, green"}
    assert first == Row("1", inputs, "lamps", group="1", split="", source="", licence="")
    assert second.inputs == {"image": folder / "images/b.png"}
    assert third.inputs == {"text": "zwei Stühle"}
    assert manifest.labels == ("chairs", "lamps")
    assert manifest.root == folder
    assert manifest.digest == read_manifest(save_table(folder, ".csv", stem="other")).digest


def test_two_manifests_in_a_folder_are_an_error(folder):
    save_table(folder, ".jsonl")
    save_table(folder, ".csv")
    assert "holds manifest.csv, manifest.jsonl; allowed: one of them" in problems_of(folder)[0]


def test_a_relative_path_gives_absolute_images(folder, monkeypatch):
    save_table(folder, ".csv")
    monkeypatch.chdir(folder)
    assert read_manifest(Path()).rows[0].inputs["image"] == folder / "images/a.png"


def test_a_null_is_a_missing_text(folder):
    path = save(folder, '{"text": null, "image": "images/a.png", "label": "x"}', name="m.jsonl")
    assert "text" not in read_manifest(path).rows[0].inputs


def test_numbers_may_be_labels_and_ids(folder):
    path = save(folder, '{"id": 7, "text": "seven", "label": 3}', name="m.jsonl")
    assert (read_manifest(path).rows[0].id, read_manifest(path).rows[0].label) == ("7", "3")


SEVERAL = [
    {"text": "a green lamp", "label": "lamps|green"},
    {"text": "something", "label": ""},
    {"text": "a chair", "label": "chairs"},
]


@every_format
def test_a_cell_of_a_multi_label_manifest_holds_any_number_of_labels(folder, suffix):
    manifest = read_manifest(save_table(folder, suffix, SEVERAL), "multi-label")
    assert [row.label for row in manifest.rows] == ["lamps|green", "", "chairs"]
    assert manifest.labels == ("chairs", "green", "lamps")
    assert (manifest.target, manifest.scale) == ("multi-label", None)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_list_of_labels_is_the_same_as_a_cell_with_bars(folder, suffix):
    lists = [{**row, "label": row["label"].split("|") if row["label"] else []} for row in SEVERAL]
    manifest = read_manifest(save_table(folder, suffix, lists, stem="lists"), "multi-label")
    assert manifest.digest == read_manifest(save_table(folder, ".csv", SEVERAL), "multi-label").digest


@every_format
def test_a_label_may_be_a_number(folder, suffix):
    table = [{"text": "cheap", "label": 1.5, "split": "train"}, {"text": "dear", "label": 3.5, "split": "train"}]
    manifest = read_manifest(save_table(folder, suffix, table), "regression")
    assert [row.label for row in manifest.rows] == ["1.5", "3.5"]
    assert (manifest.labels, manifest.scale.mean, manifest.scale.std) == ((), 2.5, 1.0)


def test_a_label_that_is_not_a_number_is_reported_with_its_line(folder):
    assert problems_of(save(folder, "text,label", "a,1.5", "b,cheap", "c,", "d,nan"), "regression") == (
        "line 3: label 'cheap'; allowed: a finite number such as 12.5",
        "line 4: no label; allowed: a finite number such as 12.5",
        "line 5: label 'nan'; allowed: a finite number such as 12.5",
    )


def test_blanks_around_a_label_are_removed_and_those_around_a_text_are_kept(folder):
    row = read_manifest(save(folder, "text,label", '"  two\nlines ", x ')).rows[0]
    assert (row.inputs["text"], row.label) == ("  two\nlines ", "x")


def test_without_pyarrow_the_message_names_the_package_to_install(folder, monkeypatch):
    path = save_table(folder, ".parquet")
    real_import = builtins.__import__

    def without_pyarrow(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    assert "pip install 'polymodal[train]'" in problems_of(path)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_json_lines_may_be_utf_16(folder, encoding):
    path = folder / "manifest.ndjson"
    path.write_bytes('{"text": "zwei Stühle\u2028", "label": "x"}\r\n\r\n{"text": "b", "label": "y"}'.encode(encoding))
    assert [row.inputs["text"] for row in read_manifest(path).rows] == ["zwei Stühle\u2028", "b"]


def test_bytes_in_json_lines_that_are_not_utf_8_are_reported_with_their_line(folder):
    path = folder / "manifest.jsonl"
    path.write_bytes('{"text": "fine", "label": "x"}\n{"text": "Stühle"}\n[]\n'.encode("latin-1"))
    assert problems_of(path) == (
        "line 2: broken JSON (byte 0xfc is not UTF-8)",
        "line 3: a JSON list; allowed: an object, {…}",
    )


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.tsv", "manifest.jsonl", "manifest.ndjson"])
def test_the_manifest_of_a_folder_may_have_any_suffix_of_tables(folder, name):
    lines = {"manifest.csv": "text,label\na,x", "manifest.tsv": "text\tlabel\na\tx"}
    save(folder, lines.get(name, '{"text": "a", "label": "x"}'), name=name)
    assert len(read_manifest(folder).rows) == 1


def test_a_txt_file_in_a_folder_is_not_read_as_metadata(folder):
    save(folder, "image", name="metadata.txt")
    (folder / "images/c.png").write_bytes(b"third picture")
    assert len(read_manifest(folder).rows) == 3


# --- the imagefolder convention ---


def test_class_folders_are_labels(tmp_path):
    for name in ("cats/1.png", "cats/2.JPG", "dogs/1.webp", "dogs/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    manifest = read_manifest(tmp_path)
    assert [row.label for row in manifest.rows] == ["cats", "cats", "dogs"]
    assert {row.split for row in manifest.rows} == {""}


def test_split_folders_are_splits_under_their_usual_names(tmp_path):
    for name in ("train/cats/1.png", "val/cats/2.png", "test/dogs/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(name.encode())
    rows = {(row.inputs["image"].name, row.label, row.split) for row in read_manifest(tmp_path).rows}
    assert rows == {("1.png", "cats", "train"), ("2.png", "cats", "validation"), ("1.png", "dogs", "test")}


@every_format
def test_metadata_lists_images_captions_and_labels(folder, suffix):
    table = [{"file_name": "images/a.png", "caption": "a lamp", "label": "lamps"}]
    save_table(folder, suffix, table, stem="metadata")
    row = read_manifest(folder).rows[0]
    assert (row.inputs["image"], row.inputs["text"], row.label) == (folder / "images/a.png", "a lamp", "lamps")


def test_images_of_metadata_without_labels_are_labelled_by_their_folders(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / split / "cats").mkdir(parents=True)
        (tmp_path / split / "cats/1.png").write_bytes(split.encode())
        save(tmp_path / split, "file_name,text", "cats/1.png,a cat", name="metadata.csv")
    rows = read_manifest(tmp_path).rows
    assert [(row.label, row.split, row.inputs["text"]) for row in rows] == [
        ("cats", "validation", "a cat"),
        ("cats", "train", "a cat"),
    ]


def test_images_of_metadata_above_split_folders_have_the_split_of_their_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cats").mkdir(parents=True)
        (tmp_path / split / "cats/1.png").write_bytes(split.encode())
    save(tmp_path, "file_name", "train/cats/1.png", "test/cats/1.png", name="metadata.csv")
    assert [(row.label, row.split) for row in read_manifest(tmp_path).rows] == [("cats", "train"), ("cats", "test")]


# --- problems ---


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(["image,label", "images/c.png,x"], "line 2: image 'images/c.png' is not there", id="missing-file"),
        pytest.param(["image,label", "../secret.png,x"], "leaves the folder", id="leaves-upwards"),
        pytest.param(["image,label", "/etc/passwd,x"], "leaves the folder", id="absolute"),
        pytest.param(["image,label", "images,x"], "is not there", id="a-folder"),
        pytest.param(["text,label", "hello,"], "line 2: no label", id="empty-label"),
        pytest.param(["text,label", "hello,  "], "line 2: no label", id="blank-label"),
        pytest.param(["image,text,label", ", ,x"], "none of image, text, audio", id="nothing-given"),
        pytest.param(["text,label,split", "a,x,holdout"], "split 'holdout'; allowed: train", id="unknown-split"),
        pytest.param(["id,text,label", "1,a,x", "1,b,x"], "id '1' is taken by line 2", id="duplicate-id"),
        pytest.param(
            ["text,lable", "a,x"],
            "no column 'label'; found: 'text', 'lable' (did you mean 'label'?), separated by commas; allowed: a manifest with one",
            id="misspelt-column",
        ),
        pytest.param(
            ["a:b", "c:d"],
            "found: 'a:b', separated by commas; allowed: a manifest with one",
            id="other-separator",
        ),
        pytest.param(["text", "a"], "no column 'label'", id="no-label-column"),
        pytest.param(["label", "x"], "no column 'image' or 'text'", id="no-input-column"),
        pytest.param(["text,label", "a\0b,x"], "text holds a NUL byte", id="nul"),
        pytest.param(["text,label", "a,x,more"], "line 2: 3 cells; allowed: 2", id="too-many-cells"),
        pytest.param(
            ["text,text,label", "a,b,x"], "line 1: column 'text' occurs 2 times; allowed: once", id="column-twice"
        ),
        pytest.param(
            ["text,Text ,label", "a,b,x"],
            "line 1: columns 'text' and 'Text ' are the same",
            id="column-twice-in-capitals",
        ),
        pytest.param(["text,label", 'a,"x'], "broken CSV", id="open-quote"),
        pytest.param(["text,label,split", "a,x,train", "b,x,"], "1 of 2 rows have no split", id="mixed-splits"),
        pytest.param(["text,label"], "no rows", id="no-rows"),
    ],
)
def test_a_bad_csv_is_explained(folder, lines, problem):
    (folder.parent / "secret.png").write_bytes(b"not ours")
    assert problem in "\n".join(problems_of(save(folder, *lines)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param('{"text": "a", "label": ', "line 2: broken JSON", id="broken"),
        pytest.param('["a", "x"]', "line 2: a JSON list; allowed: an object", id="no-object"),
        pytest.param('{"text": ["a"], "label": "x"}', "line 2: text is a list; allowed: text", id="text-no-text"),
        pytest.param('{"image": {"bytes": "…"}, "label": "x"}', "image is a dict; allowed: a path", id="bytes"),
        pytest.param('{"text": "a", "label": true}', "label is a bool", id="label-no-text"),
        pytest.param(
            '{"text": "a", "label": ["x"]}', "line 2: label is a list; allowed: text, or lists with", id="labels"
        ),
        pytest.param('{"text": "a", "label": 0.5}', "label is a float; allowed: text, or numbers with", id="number"),
        pytest.param('{"text": "\\ud800", "label": "x"}', "half a surrogate pair", id="surrogate"),
        pytest.param(
            '{"text": "a", "label": "x", "text": "b"}',
            "line 2: key 'text' occurs 2 times; allowed: once",
            id="key-twice",
        ),
        pytest.param(
            '{"text": "a", "label": "x", "Text": "b"}', "line 2: columns 'text' and 'Text' are the same", id="same-key"
        ),
    ],
)
def test_a_bad_json_line_is_explained_once(folder, line, problem):
    path = save(folder, '{"text": "fine", "label": "x"}', line, name="manifest.jsonl")
    (reported,) = problems_of(path)
    assert problem in reported


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("nothing.csv", "no such file or folder", id="missing"),
        pytest.param("table.xlsx", "format '.xlsx'; allowed: .csv, .jsonl, .parquet", id="format"),
        pytest.param("table.xls", "in a spreadsheet, save the sheet as «CSV UTF-8»", id="old-excel"),
        pytest.param("table.ods", "in a spreadsheet, save the sheet as «CSV UTF-8»", id="opendocument"),
        pytest.param("table.csv.gz", "format '.gz'; allowed: .csv, .jsonl", id="compressed"),
        pytest.param("table.zip", "unpack the file first", id="zip"),
        pytest.param("table.json", "to_json(orient='records', lines=True)", id="json"),
        pytest.param("table.pickle", "format '.pickle'; allowed: .csv", id="other"),
        pytest.param("renamed.csv", "a workbook or another zip file; allowed: a table as text", id="renamed-workbook"),
        pytest.param("dos.csv", "line 2: byte 0x81 is neither UTF-8 nor Windows-1252; allowed: UTF-8", id="encoding"),
        pytest.param("broken.parquet", "broken parquet", id="parquet"),
        pytest.param("twice.parquet", "columns 'text' and 'Text' are the same", id="parquet-column-twice"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, name, problem):
    for empty in ("table.xlsx", "table.xls", "table.ods", "table.csv.gz", "table.zip", "table.json", "table.pickle"):
        (tmp_path / empty).write_bytes(b"")
    (tmp_path / "renamed.csv").write_bytes(b"PK\x03\x04\x14\0")
    (tmp_path / "dos.csv").write_bytes("text,label\nStühle,x\n".encode("cp850"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "Text": ["b"]}), tmp_path / "twice.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    assert problem in problems_of(tmp_path / name)[0]


def test_all_bad_rows_are_reported_at_once_and_equal_problems_in_one_line(folder):
    path = save(folder, "image,label", *(f"images/{number}.png," for number in range(30)))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert len(caught.value.problems) == 60
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        f"{path}: 60 problems",
        "30 × no label: line 2, line 3, line 4 and 27 more; allowed: any text",
        "30 × image … is not there: line 2 ('images/0.png'), line 3 ('images/1.png'), line 4 ('images/2.png') and 27 more; "
        f"allowed: a file below {folder.name}/",
    ]
    assert isinstance(caught.value, ModelError)


def test_twenty_kinds_of_problems_are_listed_and_the_rest_is_counted(tmp_path):
    lines = str(ManifestError(tmp_path, [f"problem {chr(97 + number)}" for number in range(25)])).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1].strip() == "… and 5 more; `polymodal check` lists them all"


COLUMNS = {
    "text": ("caption", "Title", "product_description"),
    "label": ("class", "target", "category", "Labels"),
    "image": ("file", "path", "img", "image_path"),
    "licence": ("license",),
    "split": ("subset",),
}


@pytest.mark.parametrize(("name", "column"), [(name, column) for column, names in COLUMNS.items() for name in names])
def test_an_unknown_column_with_a_usual_name_gets_a_hint(folder, name, column):
    columns = {"text": "a", "label": "x"}
    columns.pop(column, None)
    path = save(folder, ",".join([name, *columns]), ",".join(["images/a.png", *columns.values()]))
    _, result = read_rows(path)
    assert f"unknown column {name!r} (did you mean {column!r}?) is ignored; allowed: id, image" in result.warnings[0]


def test_a_message_about_a_missing_column_lists_the_existing_ones(folder):
    existing = (
        "found: 'file' (did you mean 'image'?), 'caption' (did you mean 'text'?), 'category' (did you mean 'label'?)"
    )
    separated = "separated by commas, semicolons, tabs, vertical bars"
    assert problems_of(save(folder, "file,caption,category", "images/a.png,a lamp,lamps")) == (
        f"no column 'label'; {existing}, separated by commas; allowed: a manifest with one, {separated}",
        f"no column 'image' or 'text' or 'audio'; {existing}, separated by commas; allowed: a manifest with one or more,"
        f" {separated}",
    )


def test_a_message_about_a_missing_key_of_json_lines_names_no_separator(folder):
    (problem,) = problems_of(save(folder, '{"text": "a", "class": "x"}', name="manifest.jsonl"))
    assert problem == "no column 'label'; found: 'text', 'class' (did you mean 'label'?); allowed: a manifest with one"


@every_format
def test_unknown_columns_are_ignored_with_one_warning_each(folder, suffix):
    table = [
        {"Text": row["text"] or "words", "LABEL ": row["label"], "mood": "sad", "Unnamed: 0": "0"} for row in TABLE
    ]
    path = save_table(folder, suffix, table)
    manifest = read_manifest(path)
    assert [row.inputs["text"] for row in manifest.rows] == ["a lamp, green", "words", "zwei Stühle"]
    known = ", ".join(column_names())
    warnings = (
        f"unknown column 'mood' is ignored; allowed: {known}",
        f"unknown column 'Unnamed: 0' is ignored; allowed: {known}",
    )
    assert manifest.warnings == open_table(path).warnings == warnings
    without = [{"text": row["Text"], "label": row["LABEL "]} for row in table]
    other = read_manifest(save_table(folder, suffix, without, stem="other"))
    assert (other.digest, other.warnings) == (manifest.digest, ())


def test_an_image_without_read_permission_is_a_problem(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: "a.png" not in str(path))
    (problem,) = problems_of(save(folder, "image,label", "images/a.png,x", "images/b.png,y"))
    assert problem.startswith("line 2: image 'images/a.png' must not be read by this user")


def test_a_column_that_is_missing_is_not_reported_for_every_row(folder):
    assert len(problems_of(save(folder, "text", *"abcdefgh"))) == 1


# --- digest ---


def test_the_digest_changes_with_an_image_and_with_a_cell(folder):
    path = save_table(folder, ".csv")
    before = read_manifest(path).digest
    assert read_manifest(path).digest == before
    (folder / "images/a.png").write_bytes(b"other picture")
    with_other_image = read_manifest(path).digest
    save_table(folder, ".csv", [{**TABLE[0], "text": "a blue lamp"}, *TABLE[1:]])
    with_other_cell = read_manifest(path).digest
    assert len({before, with_other_image, with_other_cell}) == 3


def test_the_digest_does_not_depend_on_the_path_of_the_folder(folder, tmp_path_factory):
    before = read_manifest(save_table(folder, ".csv")).digest
    moved = tmp_path_factory.mktemp("moved") / "data"
    folder.rename(moved)
    assert read_manifest(moved / "manifest.csv").digest == before


# --- numbers ---


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        pytest.param(
            ["text;label", "a;1,5", "b;-0,25", "c;7", "d;2,5e3"], ["1.5", "-0.25", "7.0", "2500.0"], id="commas"
        ),
        pytest.param(["text;label", "a;1.5", "b;7"], ["1.5", "7.0"], id="points"),
        pytest.param(["text\tlabel", "a\t1,5"], ["1.5"], id="tabs"),
    ],
)
def test_numbers_have_a_decimal_comma_where_cells_are_not_separated_by_commas(folder, lines, labels):
    manifest = read_manifest(save(folder, *lines), "regression")
    assert [row.label for row in manifest.rows] == labels
    assert any("has a decimal comma" in warning for warning in manifest.warnings) == ("," in lines[1])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(
            ["text,label", 'a,"1,5"'], "line 2: label '1,5'; allowed: a finite number such as 12.5", id="commas"
        ),
        pytest.param(
            ["text;label", "a;1,5", "b;1.234"],
            "line 3: label '1.234'; allowed: a number with a decimal comma",
            id="both",
        ),
        pytest.param(
            ["text;label", "a;1.234", "b;1,5"], "line 3: label '1,5'; allowed: a finite number", id="points-first"
        ),
        pytest.param(["text;label", "a;1.234,5"], "line 2: label '1.234,5'; allowed", id="thousands"),
    ],
)
def test_numbers_with_an_ambiguous_decimal_mark_are_rejected(folder, lines, problem):
    assert problem in "\n".join(problems_of(save(folder, *lines), "regression"))


def test_a_label_with_a_comma_is_unchanged_for_other_targets(folder):
    assert read_manifest(save(folder, "text;label", "a;1,5")).rows[0].label == "1,5"


# --- splits ---


CELLS = {
    "train": ("train", "Training"),
    "validation": ("val", "valid", "dev", "Validation ", "development"),
    "test": ("TEST", "testing"),
    "unseen": ("Unseen",),
}


@pytest.mark.parametrize(("cell", "split"), [(cell, split) for split, cells in CELLS.items() for cell in cells])
def test_a_cell_names_a_split_in_any_usual_spelling(folder, cell, split):
    assert read_manifest(save(folder, "text,label,split", f"a,x,{cell}")).rows[0].split == split


def test_rows_are_selected_by_their_split(folder):
    manifest = read_manifest(save(folder, "text,label,split", "a,x,test", "b,y,train"))
    assert [row.inputs["text"] for row in manifest.by_split("train")] == ["b"]
    with pytest.raises(ValueError, match="allowed: train, validation, test, unseen"):
        manifest.by_split("training")


@pytest.mark.parametrize("text", [" ", "\u200b", "\ufeff", "\u3164", "\ue000", "\u2800"], ids=ascii)
def test_a_text_without_visible_characters_is_missing(folder, text):
    path = save(folder, "image,text,label", f"images/a.png,{text},x", f',"{text}",x')
    assert problems_of(path) == ("line 3: none of image, text, audio; allowed: at least one of them",)
    save(folder, "image,text,label", f"images/a.png,{text},x")
    assert "text" not in read_manifest(path).rows[0].inputs


# --- writing ---


def test_a_written_manifest_has_all_columns_and_unix_line_ends(folder):
    rows = read_manifest(save_table(folder, ".csv")).rows
    write_manifest(folder / "out.csv", rows)
    written = (folder / "out.csv").read_bytes()
    assert written.startswith(",".join(column_names()).encode() + b"\n1,images/a.png,")
    assert b"\r" not in written


cell = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
word = cell.map(spelled).filter(bool)


@given(
    st.lists(
        st.builds(
            Row,
            id=word,
            inputs=st.fixed_dictionaries({"text": cell.filter(lambda text: not is_blank(text))}),
            label=word,
            group=word,
            split=st.sampled_from(SPLITS),
            source=cell.map(spelled),
            licence=cell.map(spelled),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row.id,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_manifest_is_read_back(tmp_path, rows):
    path = tmp_path / "manifest.csv"
    write_manifest(path, rows)
    first = path.read_bytes()
    assert list(read_manifest(path).rows) == rows
    write_manifest(path, [replace(row) for row in rows])
    assert path.read_bytes() == first


def test_formulas_in_a_written_manifest_are_escaped(folder):
    row = Row("-7", {"text": "=1+1"}, "@x", group="'+1", split="", source="", licence="")
    write_manifest(folder / "out.csv", [row])
    assert (folder / "out.csv").read_text(encoding="utf-8").splitlines()[1] == "'-7,,'=1+1,,'@x,''+1,,,"
    assert read_manifest(folder / "out.csv").rows == (row,)


def test_a_written_split_file_is_read_back(folder):
    rows = [
        Row(name, {"text": "a"}, "x", name, "train", "", "")
        for name in ("=1+1", "-7", "'=1", "plain", "a;b", 'say "hi"')
    ]
    write_split(folder / "split.csv", rows)
    assert list(read_splits(folder / "split.csv")) == [row.id for row in rows]
    assert "\n=1" not in (folder / "split.csv").read_text(encoding="utf-8")


def test_a_split_file_may_be_saved_by_a_spreadsheet(folder):
    (folder / "split.csv").write_bytes("\ufeffID;Split\r\nStühle;val\r\n;\r\n".encode())
    assert read_splits(folder / "split.csv") == {"Stühle": "validation"}


# --- tables ---


def test_a_table_has_the_rows_of_the_manifest(folder):
    path = save_table(folder, ".csv")
    table = open_table(path)
    assert table.length == 3
    assert tuple(row for row, errors in table.rows("single-label") if not errors) == read_manifest(path).rows


def test_good_rows_of_a_table_are_read_next_to_bad_ones(folder):
    path = save(folder, "image,text,label", "lost.png,,lamps", ",words,lamps", ",,chairs", ",words,")
    rows = open_table(path).rows("single-label")
    assert [(row.id, [error.split(";")[0] for error in errors]) for row, errors in rows] == [
        ("1", ["image 'lost.png' is not there"]),
        ("2", []),
        ("3", ["none of image, text, audio"]),
        ("4", ["no label"]),
    ]


def test_labels_may_be_missing_where_they_are_not_needed(folder):
    path = save(folder, "image,text", ",words")
    ((row, errors),) = open_table(path, labelled=False).rows(None)
    assert (row.inputs["text"], errors) == ("words", ())
    with pytest.raises(ManifestError, match="no column 'label'"):
        open_table(path)


def test_labels_are_not_checked_where_they_are_not_needed(folder):
    path = save(folder, json.dumps({"text": "words", "label": {"not": "a label"}}), name="manifest.jsonl")
    assert [(row.label, errors) for row, errors in open_table(path).rows(None)] == [("", ())]


@pytest.mark.parametrize(
    ("label", "text"),
    [("lamp", "lamp"), (["a", "b"], "a|b"), (3, "3"), (2.5, "2.5"), (None, ""), ([None, {}], "")],
    ids=str,
)
def test_labels_that_no_target_reads_are_texts_as_they_are(folder, label, text):
    path = save(folder, json.dumps({"text": "words", "label": label}), name="manifest.jsonl")
    assert [(row.label, errors) for row, errors in open_table(path).rows(None)] == [(text, ())]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(["text,label"], "no rows", id="empty"),
        pytest.param(["txt,label", "words,lamps"], "did you mean 'text'", id="misspelt-column"),
        pytest.param(["label", "lamps"], "no column 'image' or 'text'", id="nothing-to-classify"),
        pytest.param(["text,label", "words,lamps,chairs"], "line 2: 3 cells", id="broken-line"),
    ],
)
def test_errors_of_a_table_as_a_whole_are_reported_when_it_is_opened(folder, lines, problem):
    with pytest.raises(ManifestError, match=problem):
        open_table(save(folder, *lines))


def test_the_digest_of_a_table_changes_with_its_cells_but_not_with_its_images(folder):
    first = open_table(save_table(folder, ".csv")).digest
    (folder / "images/a.png").write_bytes(b"another picture")
    assert open_table(folder / "manifest.csv").digest == first
    save_table(folder, ".csv", [{**TABLE[0], "text": "a lamp, red"}, *TABLE[1:]])
    assert open_table(folder / "manifest.csv").digest != first


def test_a_table_has_splits_by_column_or_by_folder(folder):
    assert not open_table(save_table(folder, ".csv")).has_splits
    assert open_table(save_table(folder, ".csv", [{**row, "split": "test"} for row in TABLE])).has_splits
    (folder / "manifest.csv").unlink()
    (folder / "train/lamps").mkdir(parents=True)
    (folder / "images/a.png").rename(folder / "train/lamps/a.png")
    assert open_table(folder).has_splits


def test_a_row_has_the_inputs_of_the_named_modalities(folder):
    both, image, text = read_manifest(save_table(folder, ".csv")).rows
    assert read_inputs(both, ("image", "text")) == {"image": b"first picture", "text": "a lamp, green"}
    assert read_inputs(both, ("text",)) == {"text": "a lamp, green"}
    assert read_inputs(image, ("image", "text")) == {"image": b"second picture"}
    assert read_inputs(text, ("image",)) == {}
