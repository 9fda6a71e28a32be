"""All errors of a data set are reported at once, and suspicious data are warned of."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from polymodal.model.faults import Faults
from polymodal.model.manifest import ManifestError, Row
from polymodal.model.modalities.image.near_duplicates import fingerprint, fingerprint_of_image
from polymodal.model.training.checks import check_near_duplicates, check_splits, check_words, inspect, read_checked


def row(number, *, label="x", split="train", group=None, text="words"):
    return Row(str(number), {"text": text} if text else {}, label, group or f"g{number}", split, "", "")


def labelled(**labels):
    """`labelled(train="aab", validation="ab")`: a row for each letter, which is its label."""
    return [
        row(f"{split}-{number}", label=label, split=split)
        for split, letters in labels.items()
        for number, label in enumerate(letters)
    ]


def rows_with(split, **counts):
    """`rows_with("train", text=2, image=1, both=1)`: rows with these inputs, alternately of the labels a and b."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    both = {"image": Path("/image.png"), "text": "words"}
    return [
        replace(
            row(f"{split}-{number}", label="ab"[number % 2], split=split),
            inputs={name: value for name, value in both.items() if kind in (name, "both")},
        )
        for number, kind in enumerate(kinds)
    ]


def assert_beginnings(messages, beginnings):
    assert [message[: len(start)] for message, start in zip(messages, beginnings, strict=True)] == list(beginnings)


def write_manifest(folder, *lines):
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- splits, labels and modalities ---


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        pytest.param(labelled(train="aa", validation="a"), "only one label; at least two are needed", id="one-label"),
        pytest.param(labelled(train="ab"), "no rows in the validation split", id="no-validation"),
        pytest.param(labelled(validation="ab"), "no rows in the train split", id="no-train"),
        pytest.param(
            labelled(train="ab", validation="abc", test="cc"),
            "label 'c' has no rows in the train split",
            id="label-without-training-rows",
        ),
        pytest.param(
            [
                *labelled(train="ab", validation="ab", test="ab"),
                *(row(name, label="a", split=split, group="Anna") for name, split in (("1", "train"), ("2", "test"))),
            ],
            "group 'Anna' has rows in several splits, 1 in train and 1 in test",
            id="group-in-two-splits",
        ),
    ],
)
def test_splits_that_cannot_be_trained_on_are_an_error(rows, error):
    assert_beginnings(check_splits(rows).errors, [error])


TEXTS = rows_with("train", text=4)
BOTH = rows_with("train", both=4)
NO_IMAGE = "no row of the train split has an image, so the network will not take one"
NO_TEST = "no rows in the test split: the report"


@pytest.mark.parametrize(
    ("rows", "errors", "warnings"),
    [
        pytest.param(labelled(train="aabb", validation="ab", test="ab", unseen="a"), [], [], id="all-splits"),
        pytest.param(
            labelled(train="aabc", validation="abc", test="ab"),
            [],
            ["label 'c' has no rows in the test split, and 1 in train"],
            id="label-not-in-test",
        ),
        pytest.param(
            labelled(train="aabc", validation="ab", test="ab"),
            [],
            ["label 'c' has no rows in the validation and test splits"],
            id="label-only-in-train",
        ),
        pytest.param(labelled(train="ab", validation="ab"), [], [NO_TEST], id="no-test"),
        pytest.param(
            [*TEXTS, *rows_with("validation", image=4)],
            [
                "no usable rows in the validation split: none of its 4 has a text, which the train split has; "
                "allowed: rows with a text"
            ],
            [f"{NO_IMAGE}; rows that have nothing else are left out, 4 in validation"],
            id="validation-has-only-images",
        ),
        pytest.param(
            [*rows_with("train", image=4), *rows_with("validation", text=2)],
            ["no usable rows in the validation split: none of its 2 has an image, which the train split has"],
            ["no row of the train split has a text, so the network will not take one; rows that have nothing else"],
            id="validation-has-only-texts",
        ),
        pytest.param(
            [*TEXTS, *rows_with("validation", text=2), *rows_with("test", image=2)],
            [],
            [f"{NO_IMAGE}; rows that have nothing else are left out, 2 in test", NO_TEST],
            id="test-has-only-images",
        ),
        pytest.param(
            [
                *TEXTS,
                *rows_with("validation", text=2, both=1, image=1),
                *rows_with("test", text=2, both=2),
                *rows_with("unseen", image=3),
            ],
            [],
            [
                f"{NO_IMAGE}; rows that have nothing else are left out, 1 in validation and 3 in unseen; "
                "in 3 other rows the image is not used"
            ],
            id="some-rows-of-each-split",
        ),
        pytest.param(
            [row for split in ("train", "validation", "test") for row in rows_with(split, text=2, image=2)],
            [],
            [
                "no row of the validation and test splits has an image and a text together: answers from that are neither "
                "calibrated nor measured there"
            ],
            id="no-row-has-both",
        ),
        pytest.param(
            [*BOTH, *rows_with("validation", text=2), *rows_with("test", both=2)],
            [],
            [
                "no row of the validation split has an image and a text together",
                "no row of the validation split has an image: answers from that are neither calibrated",
            ],
            id="validation-has-fewer-modalities",
        ),
        pytest.param(
            [*BOTH, *rows_with("validation", both=2), *rows_with("test", both=2)], [], [], id="all-modalities"
        ),
        pytest.param(
            [
                *TEXTS,
                *rows_with("validation", text=2),
                *(replace(row, label="c") for row in rows_with("test", image=2)),
            ],
            [],
            [f"{NO_IMAGE}; rows that have nothing else are left out, 2 in test", NO_TEST],
            id="label-of-unusable-rows",
        ),
    ],
)
def test_splits_are_checked_for_missing_labels_and_modalities(rows, errors, warnings):
    result = check_splits(rows)
    assert_beginnings(result.errors, errors)
    assert_beginnings(result.warnings, warnings)


def test_several_labels_of_a_row_are_checked_separately():
    rows = [
        row("1", label="red|large"),
        row("2", label="large"),
        row("3", label="red|small", split="validation"),
        row("4", label="", split="test"),
    ]
    result = check_splits(rows, "multi-label")
    assert result.errors == ["label 'small' has no rows in the train split"]
    assert [warning.partition(",")[0] for warning in result.warnings] == [
        "label 'large' has no rows in the validation and test splits",
        "label 'red' has no rows in the test split",
    ]


def test_every_number_may_be_in_only_one_split():
    splits = ("train", "train", "test", "validation")
    rows = [row(str(number), label=f"{number}.5", split=split) for number, split in enumerate(splits)]
    assert check_splits(rows[:3], "regression").errors == ["no rows in the validation split"]
    assert (check_splits(rows, "regression").errors, check_splits(rows, "regression").warnings) == ([], [])


def test_labels_that_look_like_those_of_another_task_are_a_warning():
    (warning,) = check_splits(labelled(train="ab", validation="ab", test="ab"), "multi-label").warnings
    assert "did you mean --target single-label" in warning


@pytest.mark.parametrize("target", ["single-label", "multi-label", "regression"])
def test_only_usable_rows_are_trained_on_and_counted(tmp_path, target):
    blotches(0).save(tmp_path / "a.png")
    lines = ["id,image,text,label,split", *(f"t{n},,words {n},{n % 2},train" for n in range(4))]
    lines += ["v0,,words,0,validation", "v1,a.png,words,1,validation", "v2,a.png,,0,validation", "e0,a.png,,9,test"]
    write_manifest(tmp_path, *lines)
    manifest, warnings = read_checked(tmp_path, target, 0, 1)
    assert [row.id for row in manifest.rows] == ["t0", "t1", "t2", "t3", "v0", "v1"]
    assert len(manifest.file_digests) == 6
    left_out = (
        f"{NO_IMAGE}; rows that have nothing else are left out, 1 in validation and 1 in test; in 1 other row the image"
    )
    inspection = inspect(tmp_path, target, 0, 1)
    for messages in (warnings, inspection.result.warnings):
        assert any(warning.startswith(left_out) for warning in messages)
    assert inspection.as_json()["rows"] == {"train": 4, "validation": 2}


def test_an_image_that_is_not_used_need_not_be_readable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"words")
    write_manifest(tmp_path, "image,text,label,split", ",red,a,train", ",blue,b,train", "a.png,red,a,validation")
    assert inspect(tmp_path, "single-label", 0, 1).result.errors == []


def test_a_split_with_only_broken_images_is_reported_with_them(tmp_path):
    blotches(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"words")
    write_manifest(tmp_path, "image,label,split", "a.png,a,train", "a.png,b,train", "b.png,a,validation")
    inspection = inspect(tmp_path, "single-label", 0, 1)
    broken, empty = inspection.result.errors
    assert broken.startswith("row 3: image b.png: bytes of no known")
    assert empty == "no rows in the validation split"
    assert inspection.as_json()["rows"] == {"train": 2}


# --- captions ---

FILLERS = ("new", "old", "large", "small", "used", "broken", "cheap", "rare")


def captioned(count, text_of, labels=("lamps", "chairs"), **options):
    """`count` rows of each label; `text_of(label, number)` is in the text of each."""
    chance = np.random.default_rng(0)
    return [
        row(f"{label}-{number}", label=label, text=f"{chance.choice(FILLERS)} {text_of(label, number)}", **options)
        for label in labels
        for number in range(count)
    ]


def test_texts_that_do_not_give_a_label_away_have_no_warning():
    assert check_words(captioned(100, lambda label, number: f"item {number % 7}")) == []


def test_a_word_of_only_one_label_is_named_with_its_counts():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" and number < 40 else "thing")
    (warning,) = check_words(rows)
    assert "label 'lamps' away: 'bulb' (40 of 40)" in warning
    assert "60 groups have the label" in warning
    assert "thing" not in warning


@pytest.mark.parametrize("caption", ["Lamp", "lamps,", "LAMP!"])
def test_fewer_texts_are_enough_if_the_word_is_the_name_of_the_label(caption):
    rows = captioned(60, lambda label, number: caption if label == "lamps" and number < 12 else "thing")
    (warning,) = check_words(rows)
    assert "label 'lamps' away: 'lamp" in warning
    assert "(12 of 12)" in warning
    other_word = captioned(60, lambda label, number: "bulb" if label == "lamps" and number < 12 else "thing")
    assert check_words(other_word) == []


def test_groups_are_counted_and_not_rows():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" else "thing")
    one_group = [replace(row, group="one") if row.label == "lamps" else row for row in rows]
    assert check_words(rows) != []
    assert not any("bulb" in warning for warning in check_words(one_group))


def test_no_word_gives_a_label_of_nearly_all_rows_away():
    rows = [
        *captioned(500, lambda *_: "bulb", labels=("lamps",)),
        *captioned(5, lambda *_: "thing", labels=("chairs",)),
    ]
    assert not any("bulb" in warning for warning in check_words(rows))


def test_words_may_give_one_of_several_labels_away_but_not_a_number():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" else "thing")
    cells = {"lamps": ("sold|lamps", "1.5"), "chairs": ("sold", "2.5")}
    several, numbers = ([replace(row, label=cells[row.label][index]) for row in rows] for index in range(2))
    (warning,) = check_words(several, "multi-label")
    assert "label 'lamps' away: 'bulb' (60 of 60)" in warning
    assert check_words(numbers, "regression") == []


def test_words_of_the_test_split_are_not_checked():
    assert check_words(captioned(60, lambda label, number: label, split="test")) == []
    assert check_words(captioned(60, lambda label, number: label)) != []


# --- near duplicates ---


def blotches(seed, size=(120, 90)):
    """Coloured blotches, soft as a photograph."""
    noise = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def near_duplicates(rows, images):
    return check_near_duplicates(rows, {"image": dict(enumerate(map(fingerprint_of_image, images)))})


def test_a_smaller_copy_in_another_split_is_reported(tmp_path):
    rows = [row("a", label="x"), row("b"), row("c", split="test", label="y"), row("d", split="test")]
    blotches(1).resize((84, 63)).filter(ImageFilter.SMOOTH).save(tmp_path / "copy.jpg", quality=70)
    copy = Image.open(tmp_path / "copy.jpg").convert("RGB")
    (warning,) = near_duplicates(rows, [blotches(1), blotches(2), copy, blotches(3)])
    assert warning.startswith(
        "1 picture of the test split is nearly equal to one of the train split (1 of them under another"
    )
    assert "'c' ≈ 'a'" in warning


def test_many_near_duplicates_are_counted_and_five_pairs_named():
    rows = [row("a"), *(row(f"t{number}", split="test") for number in range(2000))]
    fingerprints = dict.fromkeys(range(len(rows)), fingerprint_of_image(blotches(1)))
    (warning,) = check_near_duplicates(rows, {"image": fingerprints})
    assert warning.startswith(
        "2,000 pictures of the test split are nearly equal to one of the train split: 't0' ≈ 'a', "
    )
    assert warning.count("≈") == 5
    assert "and 1995 more" in warning


def test_near_duplicates_in_one_split_are_not_reported():
    rows = [row("a"), row("b"), row("c", split="test")]
    assert near_duplicates(rows, [blotches(1), blotches(1), blotches(2)]) == []


def test_the_fingerprint_of_pixels_is_that_of_their_image():
    assert fingerprint(np.asarray(blotches(5))) == fingerprint_of_image(blotches(5))


# --- all checks ---


@pytest.fixture
def data(tmp_path):
    """`data(*rows)` writes a manifest with these rows, next to four good images, a broken one and an empty one."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        blotches(number).save(tmp_path / f"images/{number}.png")
    (tmp_path / "images/broken.png").write_bytes(b"words")
    (tmp_path / "images/empty.png").write_bytes(b"")

    def save(*rows):
        with (tmp_path / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        return tmp_path / "manifest.csv"

    return save


def test_all_errors_are_reported_at_once(data):
    path = data(
        {"image": "images/0.png", "label": "a", "split": "train"},
        {"image": "images/broken.png", "label": "a", "split": "train"},
        {"image": "images/empty.png", "label": "a", "split": "train"},
        {"image": "images/lost.png", "label": "c", "split": "test"},
    )
    expected = [
        "line 5: image 'images/lost.png' is not there",
        "no rows in the validation split",
        "label 'c' has no rows in the train split",
        "row 2: image images/broken.png: bytes of no known picture format",
        "row 3: image images/empty.png: 0 bytes",
    ]
    errors = inspect(path, "single-label", 0, 1).result.errors
    assert_beginnings(errors, expected)
    with pytest.raises(ManifestError) as caught:
        read_checked(path, "single-label", 0, 1)
    assert caught.value.problems == tuple(errors)


def test_rows_after_a_misplaced_quote_are_not_checked(tmp_path):
    (tmp_path / "things.csv").write_text('text,label\na sea,sea\n"x" y,sea\nz,tomato\n', encoding="utf-8")
    (error,) = inspect(tmp_path / "things.csv", "single-label", 0, 1).result.errors
    assert error.startswith("line 3: broken CSV")


def test_files_that_a_folder_manifest_leaves_out_are_a_warning(tmp_path):
    for split in ("train", "Validation", "TEST"):
        for number, label in enumerate(("cats", "dogs")):
            (tmp_path / split / label / ".thumbnails").mkdir(parents=True)
            blotches(3 * number + len(split)).save(tmp_path / split / label / "1.png")
    (tmp_path / "train/cats/2.psd").write_bytes(b"8BPS")
    expected = [
        "left out, hidden or of the system: .thumbnails/ (6)",
        "left out, no picture or recording by suffix: .psd (1): 1 (train/cats/2.psd)",
    ]
    inspection = inspect(tmp_path, "single-label", 0, 1)
    _, warnings = read_checked(tmp_path, "single-label", 0, 1)
    for messages in (inspection.result.warnings, warnings):
        assert_beginnings(messages[:2], expected)
    assert inspection.result.errors == []
    assert str(tmp_path) not in "".join(warnings)


def test_equal_errors_are_one_line_of_the_summary_and_separate_in_json(data):
    rows = [{"image": f"images/{number}.png", "label": f"label {number}", "split": "train"} for number in range(40)]
    inspection = inspect(data(*rows), "single-label", 0, 1)
    lines = inspection.summary().splitlines()
    (line,) = [line for line in lines if "is not there" in line]
    assert line.startswith(
        "error: 36 × image … is not there: line 6 ('images/4.png'), line 7 ('images/5.png'), line 8 ("
    )
    assert sum("is not there" in error for error in inspection.as_json()["errors"]) == 36
    assert lines[-1].startswith("37 errors, ")


def test_labels_that_are_not_measured_are_one_line_of_the_summary():
    result = check_splits(labelled(train="aabcde", validation="a", test="a"))
    assert len(result.warnings) == 4
    (line,) = Faults(result.warnings).lines()
    assert line.startswith(
        "4 × labels have no rows in the validation and test splits: learned, but not measured there: 'b', 1 in"
    )


def test_a_missing_label_is_not_counted_as_a_label(data):
    path = data({"text": "one", "label": "a"}, {"text": "two", "label": ""})
    assert inspect(path, "single-label", 0, 1).result.errors == ["line 3: no label; allowed: any text"]


def test_the_summary_counts_rows_by_label_and_split(data):
    rows = [{"image": f"images/{number % 4}.png", "label": "ab"[number % 2]} for number in range(40)]
    inspection = inspect(data(*rows), "single-label", 0, 2)
    assert inspection.result.errors == []
    assert [line.split() for line in inspection.summary().splitlines()[:4]] == [
        ["label", "train", "validation", "test"],
        ["a", "14", "2", "4"],
        ["b", "14", "3", "3"],
        ["all", "rows", "28", "5", "7"],
    ]
    assert inspection.summary().splitlines()[-1] == "0 errors, 2 warnings"
    manifest, _ = read_checked(data(*rows), "single-label", 0, 2)
    assert manifest.rows == inspection.rows
