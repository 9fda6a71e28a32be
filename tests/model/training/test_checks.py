"""What is wrong with a data set is said at once; what is suspicious is said, too."""

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


def with_parts(split, **counts):
    """`with_parts("train", text=2, image=1, both=1)`: rows that have these, of labels a and b in turn."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    both = {"image": Path("/image.png"), "text": "words"}
    return [
        Row(
            f"{split}-{number}",
            {name: value for name, value in both.items() if kind in (name, "both")},
            "ab"[number % 2],
            f"{split}-{number}",
            split,
            "",
            "",
        )
        for number, kind in enumerate(kinds)
    ]


def parts(**labels):
    """`parts(train="aab", validation="ab")`: a row for each letter, its label."""
    return [
        row(f"{split}-{number}", label=label, split=split)
        for split, letters in labels.items()
        for number, label in enumerate(letters)
    ]


# --- parts and labels ---


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        pytest.param(parts(train="aa", validation="a"), "only one label; at least two are needed", id="one-label"),
        pytest.param(parts(train="ab"), "no rows in the validation split", id="no-validation"),
        pytest.param(parts(validation="ab"), "no rows in the train split", id="no-train"),
        pytest.param(
            parts(train="ab", validation="abc", test="cc"),
            "label 'c' has no rows in the train split",
            id="never-learned",
        ),
        pytest.param(
            [
                *parts(train="ab", validation="ab", test="ab"),
                *(row(name, label="a", split=split, group="Anna") for name, split in (("1", "train"), ("2", "test"))),
            ],
            "group 'Anna' has rows in several splits, 1 in train and 1 in test",
            id="group-in-two-parts",
        ),
    ],
)
def test_parts_that_cannot_be_trained_on_are_an_error(rows, error):
    (found,) = check_splits(rows).errors
    assert found.startswith(error)


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        pytest.param(
            parts(train="aabc", validation="abc", test="ab"),
            "label 'c' has no rows in the test split, and 1 in train",
            id="not-in-test",
        ),
        pytest.param(
            parts(train="aabc", validation="ab", test="ab"),
            "label 'c' has no rows in the validation and test splits",
            id="only-in-train",
        ),
        pytest.param(parts(train="ab", validation="ab"), "no rows in the test split", id="no-test"),
    ],
)
def test_parts_that_say_less_than_one_would_think_are_a_warning(rows, warning):
    found = check_splits(rows)
    assert found.errors == []
    assert [each.startswith(warning) for each in found.warnings] == [True]


def test_parts_as_they_should_be_are_silent():
    found = check_splits(parts(train="aabb", validation="ab", test="ab", unseen="a"))
    assert (found.errors, found.warnings) == ([], [])


def test_labels_of_rows_with_several_are_checked_one_by_one():
    rows = [
        row("1", label="red|large"),
        row("2", label="large"),
        row("3", label="red|small", split="validation"),
        row("4", label="", split="test"),
    ]
    found = check_splits(rows, "multi-label")
    assert found.errors == ["label 'small' has no rows in the train split"]
    assert [warning.partition(",")[0] for warning in found.warnings] == [
        "label 'large' has no rows in the validation and test splits",
        "label 'red' has no rows in the test split",
    ]


def test_numbers_need_no_rows_of_their_own_in_every_part():
    rows = [
        row(str(number), label=f"{number}.5", split=split) for number, split in enumerate(("train", "train", "test"))
    ]
    assert check_splits(rows, "regression").errors == ["no rows in the validation split"]
    whole = [*rows, row("v", label="9.0", split="validation")]
    assert (check_splits(whole, "regression").errors, check_splits(whole, "regression").warnings) == ([], [])


def test_labels_that_look_like_those_of_another_task_are_a_warning():
    rows = parts(train="ab", validation="ab", test="ab")
    (warning,) = check_splits(rows, "multi-label").warnings
    assert "did you mean --target single-label" in warning


# --- modalities ---

TEXTS = with_parts("train", text=4)
NO_IMAGE = "no row of the train split has an image, so the network will not take one"
NO_TEST = "no rows in the test split: the report"


@pytest.mark.parametrize(
    ("rows", "errors", "warnings"),
    [
        pytest.param(
            [*TEXTS, *with_parts("validation", image=4)],
            [
                "no usable rows in the validation split: none of its 4 has a text, which the train split has; "
                "allowed: rows with a text"
            ],
            [f"{NO_IMAGE}; rows that have nothing else are left out, 4 in validation"],
            id="validation-has-images-alone",
        ),
        pytest.param(
            [*with_parts("train", image=4), *with_parts("validation", text=2)],
            ["no usable rows in the validation split: none of its 2 has an image, which the train split has"],
            ["no row of the train split has a text, so the network will not take one; rows that have nothing else"],
            id="validation-has-texts-alone",
        ),
        pytest.param(
            [*TEXTS, *with_parts("validation", text=2), *with_parts("test", image=2)],
            [],
            [f"{NO_IMAGE}; rows that have nothing else are left out, 2 in test", NO_TEST],
            id="test-has-images-alone",
        ),
        pytest.param(
            [
                *TEXTS,
                *with_parts("validation", text=2, both=1, image=1),
                *with_parts("test", text=2, both=2),
                *with_parts("unseen", image=3),
            ],
            [],
            [
                f"{NO_IMAGE}; rows that have nothing else are left out, 1 in validation and 3 in unseen; "
                "in 3 other rows the image is not used"
            ],
            id="some-rows-of-each-part",
        ),
        pytest.param(
            [
                *with_parts("train", text=2, image=2),
                *with_parts("validation", text=2, image=2),
                *with_parts("test", text=2, image=2),
            ],
            [],
            [
                "no row of the validation and test splits has an image and a text together: answers from that are neither "
                "calibrated nor measured there"
            ],
            id="no-row-has-both",
        ),
        pytest.param(
            [*with_parts("train", both=4), *with_parts("validation", text=2), *with_parts("test", both=2)],
            [],
            [
                "no row of the validation split has an image and a text together",
                "no row of the validation split has an image: answers from that are neither calibrated",
            ],
            id="validation-has-fewer-modalities",
        ),
        pytest.param(
            [*with_parts("train", both=4), *with_parts("validation", both=2), *with_parts("test", both=2)],
            [],
            [],
            id="nothing-is-missing",
        ),
    ],
)
def test_what_the_training_rows_lack_is_said_before(rows, errors, warnings):
    found = check_splits(rows)
    for messages, starts in ((found.errors, errors), (found.warnings, warnings)):
        assert len(messages) == len(starts), messages
        assert [message.startswith(start) for message, start in zip(messages, starts, strict=True)] == [True] * len(
            starts
        )


def test_a_label_of_unusable_rows_alone_is_not_missed():
    other = [replace(row, label="c") for row in with_parts("test", image=2)]
    assert check_splits([*TEXTS, *with_parts("validation", text=2), *other]).errors == []


@pytest.mark.parametrize("target", ["single-label", "multi-label", "regression"])
def test_only_rows_that_can_be_used_are_trained_on_and_counted(tmp_path, target):
    picture(0).save(tmp_path / "a.png")
    lines = ["id,image,text,label,split", *(f"t{n},,words {n},{n % 2},train" for n in range(4))]
    lines += ["v0,,words,0,validation", "v1,a.png,words,1,validation", "v2,a.png,,0,validation", "e0,a.png,,9,test"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest, warnings = read_checked(tmp_path, target, 0, 1)
    assert [row.id for row in manifest.rows] == ["t0", "t1", "t2", "t3", "v0", "v1"]
    assert len(manifest.file_digests) == 6
    left_out = (
        f"{NO_IMAGE}; rows that have nothing else are left out, 1 in validation and 1 in test; in 1 other row the image"
    )
    assert any(warning.startswith(left_out) for warning in warnings)
    inspection = inspect(tmp_path, target, 0, 1)
    assert any(warning.startswith(left_out) for warning in inspection.result.warnings)
    assert inspection.as_json()["rows"] == {"train": 4, "validation": 2}


def test_an_image_that_no_network_will_look_at_need_not_be_readable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"words")
    lines = ["image,text,label,split", ",red,a,train", ",blue,b,train", "a.png,red,a,validation"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert inspect(tmp_path, "single-label", 0, 1).result.errors == []


def test_a_part_that_only_broken_images_fill_is_reported_with_them(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"words")
    lines = ["image,label,split", "a.png,a,train", "a.png,b,train", "b.png,a,validation"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    inspection = inspect(tmp_path, "single-label", 0, 1)
    broken, empty = inspection.result.errors
    assert broken.startswith("row 3: image b.png: bytes of no known")
    assert empty == "no rows in the validation split"
    assert inspection.as_json()["rows"] == {"train": 2}


# --- captions ---

FILLERS = ("new", "old", "large", "small", "used", "broken", "cheap", "rare")


def captioned(count, text_of, labels=("lamps", "chairs"), **options):
    """`count` rows of each label, with a text that differs from row to row."""
    chance = np.random.default_rng(0)
    return [
        row(f"{label}-{number}", label=label, text=f"{chance.choice(FILLERS)} {text_of(label, number)}", **options)
        for label in labels
        for number in range(count)
    ]


def test_texts_that_say_no_label_are_silent():
    assert check_words(captioned(100, lambda label, number: f"item {number % 7}")) == []


def test_a_word_that_always_means_one_label_is_named_with_its_counts():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" and number < 40 else "thing")
    (warning,) = check_words(rows)
    assert "label 'lamps' away: 'bulb' (40 of 40)" in warning
    assert "60 groups have the label" in warning
    assert "thing" not in warning


@pytest.mark.parametrize("caption", ["Lamp", "lamps,", "LAMP!"])
def test_a_label_that_stands_in_its_own_texts_is_found_sooner(caption):
    rows = captioned(60, lambda label, number: caption if label == "lamps" and number < 12 else "thing")
    (warning,) = check_words(rows)
    assert "label 'lamps' away: 'lamp" in warning
    assert "(12 of 12)" in warning
    other_word = captioned(60, lambda label, number: "bulb" if label == "lamps" and number < 12 else "thing")
    assert check_words(other_word) == []


def test_groups_are_counted_and_not_rows():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" else "thing")
    one_seller = [
        row(each.id, label=each.label, text=each.inputs["text"], group="one" if each.label == "lamps" else each.group)
        for each in rows
    ]
    assert check_words(rows) != []
    assert not any("bulb" in warning for warning in check_words(one_seller))


def test_a_label_that_nearly_all_rows_have_is_given_away_by_no_word():
    rows = [
        *captioned(500, lambda *_: "bulb", labels=("lamps",)),
        *captioned(5, lambda *_: "thing", labels=("chairs",)),
    ]
    assert not any("bulb" in warning for warning in check_words(rows))


def test_one_of_several_labels_is_given_away_and_numbers_never():
    rows = captioned(60, lambda label, number: "bulb" if label == "lamps" else "thing")
    several = [
        row(each.id, label="sold|lamps" if each.label == "lamps" else "sold", text=each.inputs["text"]) for each in rows
    ]
    (warning,) = check_words(several, "multi-label")
    assert "label 'lamps' away: 'bulb' (60 of 60)" in warning
    numbers = [row(each.id, label="1.5" if each.label == "lamps" else "2.5", text=each.inputs["text"]) for each in rows]
    assert check_words(numbers, "regression") == []


def test_the_test_part_is_not_read():
    leaking = captioned(60, lambda label, number: label)
    assert (
        check_words([row(each.id, label=each.label, text=each.inputs["text"], split="test") for each in leaking]) == []
    )
    assert check_words(leaking) != []


# --- pictures ---


def picture(seed, size=(120, 90)):
    """Coloured blotches, soft as a photograph."""
    noise = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def resaved(seed, tmp_path):
    picture(seed).resize((84, 63)).filter(ImageFilter.SMOOTH).save(tmp_path / "again.jpg", quality=70)
    return Image.open(tmp_path / "again.jpg").convert("RGB")


def test_a_picture_that_was_saved_again_smaller_is_found_in_the_other_part(tmp_path):
    rows = [row("a", label="x"), row("b"), row("c", split="test", label="y"), row("d", split="test")]
    looks = [picture(1), picture(2), resaved(1, tmp_path), picture(3)]
    (warning,) = check_near_duplicates(rows, {"image": dict(enumerate(map(fingerprint_of_image, looks)))})
    assert warning.startswith(
        "1 picture of the test split is nearly equal to one of the train split (1 of them under another"
    )
    assert "'c' ≈ 'a'" in warning


def test_many_equal_pictures_are_counted_and_five_pairs_named():
    rows = [row("a"), *(row(f"t{number}", split="test") for number in range(2000))]
    prints = dict.fromkeys(range(len(rows)), fingerprint_of_image(picture(1)))
    (warning,) = check_near_duplicates(rows, {"image": prints})
    assert warning.startswith(
        "2,000 pictures of the test split are nearly equal to one of the train split: 't0' ≈ 'a', "
    )
    assert warning.count("≈") == 5
    assert "and 1995 more" in warning


def test_equal_pictures_within_one_part_are_no_matter():
    rows = [row("a"), row("b"), row("c", split="test")]
    prints = {
        0: fingerprint_of_image(picture(1)),
        1: fingerprint_of_image(picture(1)),
        2: fingerprint_of_image(picture(2)),
    }
    assert check_near_duplicates(rows, {"image": prints}) == []


def test_the_fingerprint_of_pixels_is_that_of_their_image():
    assert fingerprint(np.asarray(picture(5))) == fingerprint_of_image(picture(5))


# --- the whole ---


@pytest.fixture
def data(tmp_path):
    """`data(rows)` writes a manifest with these columns beside four good pictures, a broken one, and an empty one."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / f"images/{number}.png")
    (tmp_path / "images/broken.png").write_bytes(b"words")
    (tmp_path / "images/empty.png").write_bytes(b"")

    def save(*rows):
        with (tmp_path / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        return tmp_path / "manifest.csv"

    return save


def test_everything_wrong_is_said_at_once(data):
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
    found = inspect(path, "single-label", 0, 1).result.errors
    assert [error.startswith(start) for error, start in zip(found, expected, strict=True)] == [True] * 5
    with pytest.raises(ManifestError) as caught:
        read_checked(path, "single-label", 0, 1)
    assert caught.value.problems == tuple(found)


def test_behind_a_misplaced_quote_nothing_is_said_of_what_the_rest_may_have(tmp_path):
    (tmp_path / "things.csv").write_text('text,label\na sea,sea\n"x" y,sea\nz,tomato\n', encoding="utf-8")
    (error,) = inspect(tmp_path / "things.csv", "single-label", 0, 1).result.errors
    assert error.startswith("line 3: broken CSV")


def test_what_is_left_out_of_a_folder_is_warned_of_by_check_and_by_training(tmp_path):
    for split in ("train", "Validation", "TEST"):
        for number, label in enumerate(("cats", "dogs")):
            (tmp_path / split / label / ".thumbnails").mkdir(parents=True)
            picture(3 * number + len(split)).save(tmp_path / split / label / "1.png")
    (tmp_path / "train/cats/2.psd").write_bytes(b"8BPS")
    found = [
        "left out, hidden or of the system: .thumbnails/ (6)",
        "left out, no picture by suffix: .psd (1): 1 (train/cats/2.psd)",
    ]
    inspection = inspect(tmp_path, "single-label", 0, 1)
    _, warnings = read_checked(tmp_path, "single-label", 0, 1)
    for each in (inspection.result.warnings, warnings):
        assert [warning.startswith(start) for warning, start in zip(each, found, strict=False)] == [True, True]
    assert inspection.result.errors == []
    assert str(tmp_path) not in "".join(warnings)


def test_equal_faults_are_one_line_for_people_and_each_by_itself_for_programs(data):
    rows = [{"image": f"images/{number}.png", "label": f"label {number}", "split": "train"} for number in range(40)]
    inspection = inspect(data(*rows), "single-label", 0, 1)
    lines = inspection.summary().splitlines()
    (line,) = [line for line in lines if "is not there" in line]
    assert line.startswith(
        "error: 36 × image … is not there: line 6 ('images/4.png'), line 7 ('images/5.png'), line 8 ("
    )
    assert sum("is not there" in error for error in inspection.as_json()["errors"]) == 36
    assert lines[-1].startswith("37 errors, ")


def test_labels_that_are_not_measured_are_one_line_with_their_counts():
    result = check_splits(parts(train="aabcde", validation="a", test="a"))
    assert len(result.warnings) == 4
    (line,) = Faults(result.warnings).lines()
    assert line.startswith(
        "4 × labels have no rows in the validation and test splits: learned, but not measured there: 'b', 1 in"
    )


def test_rows_without_a_label_are_not_taken_for_a_label_of_their_own(data):
    path = data({"text": "one", "label": "a"}, {"text": "two", "label": ""})
    assert inspect(path, "single-label", 0, 1).result.errors == ["line 3: no label; allowed: any text"]


def test_a_manifest_that_is_fine_is_divided_and_told_by_label_and_part(data):
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
