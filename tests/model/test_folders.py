"""Folders of images: image files are rows, and all other files are counted and named in warnings."""

import os
import unicodedata

import pytest

from polymodal.model.manifest import ManifestError, open_table, read_manifest, read_rows


@pytest.fixture
def things(tmp_path):
    """Return a function that writes files of these names below a folder and returns the folder."""

    def write(*names, content=b"bytes"):
        for name in names:
            path = tmp_path / "things" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "things"

    return write


CLASSES = ("cats/1.png", "dogs/1.png")


def warnings_of(folder):
    manifest = read_manifest(folder)
    assert open_table(folder).warnings == manifest.warnings, "score and evaluate have the same warnings"
    return "\n".join(manifest.warnings)


# --- rows ---


SUFFIXES = "apng avif avifs bmp dib gif heic heif hif jfif jif jpe jpeg jpg pjp pjpeg png tif tiff webp PNG Jpg JFIF"


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_files_with_any_suffix_of_images_are_rows(things, suffix):
    folder = things(*CLASSES, f"birds/1.{suffix}")
    assert read_manifest(folder).labels == ("birds", "cats", "dogs")
    assert warnings_of(folder) == ""


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/1-checkpoint.png",
        "cats/.ipynb_checkpoints/1-checkpoint.png",
        ".thumbnails/1.png",
        "cats/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
        "#recycle/1.png",
        "@Recycle/1.png",
        ".@__thumb/1.png",
        "$RECYCLE.BIN/1.png",
        "System Volume Information/1.png",
        "lost+found/1.png",
        ".Trash-1000/files/1.png",
        ".AppleDouble/1.png",
        "__MACOSX/cats/1.png",
        "__MACOSX/cats/._1.png",
        "cats/._1.png",
        "cats/.1.png.icloud",
        "cats/.hidden.png",
        ".git/1.png",
        ".cache/huggingface/1.png",
        "cats/Thumbs.db",
        "cats/desktop.ini",
        "cats/Icon\r",
        ".DS_Store",
    ],
)
def test_hidden_and_system_files_are_left_out_and_named(things, name):
    folder = things(*CLASSES, name)
    manifest = read_manifest(folder)
    assert [(row.label, row.inputs["image"].name) for row in manifest.rows] == [("cats", "1.png"), ("dogs", "1.png")]
    (warning,) = manifest.warnings
    assert warning.startswith("left out, hidden or of the system: ")
    assert warning.endswith("(1)")


def test_hidden_files_are_counted_by_name(things):
    folder = things(*CLASSES, ".DS_Store", "cats/.DS_Store", "cats/._1.png", "cats/._2.png", "cats/._3.png")
    assert "hidden or of the system: ._* (3), .DS_Store (2)" in warnings_of(folder)


@pytest.mark.parametrize("name", ["cats/1.svg", "cats/1.PSD", "cats/1.jp2", "cats/1.pdf", "cats/notes.txt", "cats/1"])
def test_files_of_other_formats_are_counted_by_suffix_and_named(things, name):
    suffix = os.path.splitext(name)[1].lower() or "no suffix"
    warning = warnings_of(things(*CLASSES, name))
    assert (
        f"left out, no picture or recording by suffix: {suffix} (1): 1 ({name}); allowed: .aac, .apng, .avif" in warning
    )


def test_empty_files_are_left_out_and_named(things):
    things("cats/2.jpg", content=b"")
    folder = things(*CLASSES)
    assert len(read_manifest(folder).rows) == 2
    assert "pictures or recordings of 0 bytes: 1 (cats/2.jpg)" in warnings_of(folder)


def test_links_are_followed_but_not_in_circles(things, tmp_path):
    folder = things(*CLASSES)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/9.png").write_bytes(b"bytes")
    os.symlink(tmp_path / "linked", folder / "birds")
    os.symlink(folder, folder / "cats/loop")
    os.symlink("self.png", folder / "cats/self.png")
    os.symlink("nowhere.png", folder / "cats/gone.png")
    os.mkfifo(folder / "cats/pipe.png")
    assert read_manifest(folder).labels == ("birds", "cats", "dogs")
    lost = "cats/gone.png, cats/loop, cats/pipe.png, cats/self.png"
    assert f"links that lead nowhere or back: 4 ({lost})" in warnings_of(folder)


def test_a_class_folder_without_images_is_named_with_the_number_of_its_files(things):
    folder = things(*CLASSES, "birds/1.svg", "birds/2.svg", "fish/deep/deeper/1.txt")
    (folder / "frogs").mkdir()
    warning = warnings_of(folder)
    assert (
        "folders without a picture or recording, with the files left out there: birds/ (2), fish/ (1), frogs/ (0)"
        in warning
    )


def test_names_that_are_not_utf_8_are_left_out_and_named(things):
    folder = things(*CLASSES)
    with open(os.path.join(os.fsencode(folder), b"cats/caf\xe9.png"), "wb") as file:
        file.write(b"bytes")
    assert r"names that are no UTF-8: 1 (cats/caf\udce9.png)" in warnings_of(folder)


def test_control_characters_of_a_name_are_escaped(things):
    assert r"(cats/\x1b[31m\n.svg)" in warnings_of(things(*CLASSES, "cats/\x1b[31m\n.svg"))


def test_a_folder_without_read_permission_is_an_error(things, monkeypatch):
    folder, scan = things(*CLASSES), os.scandir

    def scandir(path):
        if str(path).endswith("cats"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        ManifestError, match="folder 'cats' must not be read by this user; allowed: one with read permission"
    ):
        read_manifest(folder)


def test_the_order_of_rows_does_not_depend_on_the_normal_form_of_names(things):
    names = ["cafe\u0301/1.png", "caff/1.png", "d/1.png"]
    assert [row.label for row in read_manifest(things(*names)).rows] == ["caff", "café", "d"]


# --- labels ---


def test_images_next_to_class_folders_are_named(things):
    folder = things(*CLASSES, "0.png", "3.png")
    _, result = read_rows(folder)
    assert result.errors == [f"picture {name}: no label; allowed: any text" for name in ("0.png", "3.png")]
    assert "next to the class folders, so without a label: 2 (0.png, 3.png)" in "\n".join(result.warnings)
    assert [row.label for row in read_manifest(folder, "multi-label").rows] == ["", "", "cats", "dogs"]


def test_images_without_class_folders_can_be_scored(things):
    table = open_table(things("1.png", "2.png"), labelled=False)
    assert [errors for _, errors in table.rows(None)] == [(), ()]
    assert table.warnings == ()


def test_class_folders_on_several_levels_are_named(things):
    folder = things(*CLASSES, "cats/persian/2.png", "dogs/persian/2.png")
    assert read_manifest(folder).labels == ("cats", "dogs", "persian")
    warning = warnings_of(folder)
    assert "class folders on several levels, each with a label of its own: cats/ (1), cats/persian/ (1)" in warning
    assert "label 'persian' is the name of several folders: 2 (cats/persian/, dogs/persian/)" in warning


def test_class_folders_that_look_the_same_are_one_label(things):
    folder = things("cafe\u0301/1.png", "café/1.png", "dogs/1.png")
    assert read_manifest(folder).labels == ("café", "dogs")
    assert "label 'café' is the name of several folders" in warnings_of(folder)


# --- splits ---


FOLDERS = {
    "train": ("Train", "TRAINING"),
    "validation": ("Validation", "Val", "valid", "DEV"),
    "test": ("Test", "testing", "eval", "Evaluation", "test\u200b"),
    "unseen": ("Unseen",),
}


@pytest.mark.parametrize(("name", "split"), [(name, split) for split, names in FOLDERS.items() for name in names])
def test_split_folders_are_recognised_in_any_case(things, name, split):
    folder = things("train/cats/1.png", "train/dogs/1.png", f"{name}/cats/2.png")
    rows = {(row.label, row.split) for row in read_manifest(folder).rows if row.inputs["image"].name == "2.png"}
    assert rows == {("cats", split)}
    assert warnings_of(folder) == ""


def test_split_folders_below_metadata_are_recognised_in_any_case(things):
    folder = things("Train/cats/1.png", "TEST/cats/1.png")
    (folder / "metadata.csv").write_text("file_name\nTrain/cats/1.png\nTEST/cats/1.png\n", encoding="utf-8")
    assert [row.split for row in read_manifest(folder).rows] == ["train", "test"]


def test_files_next_to_split_folders_are_named(things):
    folder = things(
        "train/cats/1.png", "test/dogs/1.png", "extra/cats/2.png", "extra/cats/3.png", "cover.png", "README.md"
    )
    assert len(read_manifest(folder).rows) == 2
    warning = warnings_of(folder)
    assert (
        "next to the split folders: extra/ (2), cover.png (1); allowed: pictures or recordings in test/, train/"
        in warning
    )
    assert ".md (1): 1 (README.md)" in warning


def test_an_empty_split_folder_is_named(things):
    folder = things("train/cats/1.png", "train/dogs/1.png")
    (folder / "test").mkdir()
    assert "folders without a picture or recording, with the files left out there: test/ (0)" in warnings_of(folder)


def test_folders_named_after_splits_below_class_folders_are_named(things):
    folder = things("cats/train/1.png", "cats/test/1.png", "dogs/train/1.png")
    assert "named after splits, but not read as splits: 3 (cats/test/, cats/train/, dogs/train/)" in warnings_of(folder)


# --- metadata ---


def test_images_missing_from_metadata_are_named(things):
    folder = things("1.png", "2.png", "sub/3.png", "sub/café.png", "notes.txt")
    listed = ["./1.png ", unicodedata.normalize("NFD", "sub/café.png")]
    lines = ["file_name,label", *(f"{name},x" for name in listed)]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    assert len(read_manifest(folder).rows) == 2
    warning = warnings_of(folder)
    assert "left out, not in metadata.csv: 2 (2.png, sub/3.png); allowed: a row for each picture" in warning
    assert "1 (notes.txt)" in warning
    assert "metadata.csv (" not in warning


def test_images_missing_from_the_metadata_of_a_split_are_named(things):
    folder = things("train/1.png", "train/2.png", "test/cats/1.png")
    (folder / "train/Metadata.CSV").write_text("file_name,label\n1.png,cats\n", encoding="utf-8")
    rows = read_manifest(folder).rows
    assert [(row.split, row.label) for row in rows] == [("test", "cats"), ("train", "cats")]
    assert "left out, not in train/Metadata.CSV: 1 (train/2.png)" in warnings_of(folder)


def test_files_missing_from_a_manifest_are_not_named(things):
    folder = things("1.png", "2.png", "notes.txt")
    (folder / "manifest.csv").write_text("image,label\n1.png,x\n", encoding="utf-8")
    assert warnings_of(folder) == ""
