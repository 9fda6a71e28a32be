"""Rows are divided by label and group, evenly and reproducibly, and the splits are recorded."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.model.manifest import Manifest, Row, read_manifest, write_manifest
from polymodal.model.training.splits import SHARES, describe_split, split_rows, split_table, with_splits, write_split


def row_of(number, label, group=None):
    return Row(str(number), {"text": "words"}, label, group or str(number), "", "", "")


def rows_of(**counts):
    """This number of rows of each label, all in different groups."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [row_of(number, label) for number, label in enumerate(labels)]


def splits_by_label(rows):
    counts = {}
    for row in rows:
        counts.setdefault(row.label, Counter())[row.split] += 1
    return counts


def test_every_label_has_its_shares():
    assert splits_by_label(split_rows(rows_of(common=1000, rare=50), seed=0)) == {
        "common": {"train": 700, "validation": 120, "test": 180},
        "rare": {"train": 35, "validation": 6, "test": 9},
    }


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=120),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_group_is_in_one_split_and_a_label_with_three_groups_in_all(members, seed):
    rows = [row_of(number, f"label {label}", f"{label}/{group}") for number, (group, label) in enumerate(members)]
    divided = split_rows(rows, seed)
    splits_of, groups_of = {}, {}
    for row in divided:
        splits_of.setdefault(row.group, set()).add(row.split)
        groups_of.setdefault(row.label, set()).add(row.group)
    assert all(len(splits) == 1 for splits in splits_of.values())
    for label, splits in splits_by_label(divided).items():
        assert set(splits) == set(list(SHARES)[: len(groups_of[label])])


def test_groups_of_many_sizes_keep_the_shares():
    sizes = [40, 25, 12, 9, *[5] * 20, *[2] * 60, *[1] * 150]
    rows = [
        row_of(f"{group}-{number}", "ab"[group % 2], f"g{group}")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    for label, splits in splits_by_label(split_rows(rows, seed=3)).items():
        for split, share in SHARES.items():
            assert splits[split] / sum(splits.values()) == pytest.approx(share, abs=0.02), (label, split)


def test_both_labels_of_mixed_groups_are_in_all_splits():
    rows = [row_of(number, "ab"[number % 2], f"g{number // 4}") for number in range(24)]
    assert all(set(splits) == set(SHARES) for splits in splits_by_label(split_rows(rows, seed=0)).values())


def test_rows_with_several_labels_or_none_have_the_shares_too():
    rows = [row_of(number, ("red|large", "red", "")[number % 3]) for number in range(150)]
    counts = splits_by_label(split_rows(rows, 0, "multi-label"))
    for cell in ("red|large", "red", ""):
        assert [counts[cell][split] for split in SHARES] == pytest.approx([35, 6, 9], abs=1), cell


def test_large_and_small_numbers_are_in_all_splits():
    divided = split_rows([row_of(number, f"{(number * 37) % 200}.0") for number in range(200)], 0, "regression")
    for split, share in SHARES.items():
        numbers = [float(row.label) for row in divided if row.split == split]
        assert len(numbers) == pytest.approx(200 * share, abs=1)
        assert sum(numbers) / len(numbers) == pytest.approx(99.5, abs=5), split


def test_six_numbers_are_enough_for_all_splits():
    divided = split_rows([row_of(number, f"{number}.0") for number in range(6)], 0, "regression")
    assert {row.split for row in divided} == set(SHARES)


def test_two_rows_of_a_label_are_enough_for_train_and_validation():
    divided = split_rows(rows_of(a=2, b=2), seed=0)
    assert splits_by_label(divided) == {"a": {"train": 1, "validation": 1}, "b": {"train": 1, "validation": 1}}


def test_splits_depend_on_the_seed_but_not_on_the_order_of_the_rows():
    rows = rows_of(a=60, b=40)
    assert split_rows(rows, seed=1) == split_rows(rows[::-1], seed=1)[::-1]
    assert split_rows(rows, seed=1) != split_rows(rows, seed=2)


# --- records ---


@pytest.fixture
def manifest(tmp_path):
    lines = ["id,text,label", *(f'"item {number}, new",some words,{"ab"[number % 2]}' for number in range(20))]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_manifest(tmp_path)


def test_a_manifest_with_splits_keeps_them(tmp_path, manifest):
    write_manifest(tmp_path / "manifest.csv", with_splits(manifest, seed=0).rows)
    own = read_manifest(tmp_path)
    assert with_splits(own, seed=1) is own
    assert describe_split(own)["seed"] is None


def test_the_digest_of_new_splits_is_that_of_the_written_manifest(tmp_path, manifest):
    divided = with_splits(manifest, seed=0)
    write_manifest(tmp_path / "manifest.csv", divided.rows)
    assert read_manifest(tmp_path).digest == divided.digest != manifest.digest


def test_the_written_splits_are_those_of_the_report(tmp_path, manifest):
    divided = with_splits(manifest, seed=4)
    write_split(tmp_path / "split.csv", divided.rows)
    report = describe_split(divided)
    assert report["seed"] == 4
    assert report["sha256"] == hashlib.sha256((tmp_path / "split.csv").read_bytes()).hexdigest()
    with (tmp_path / "split.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["id"], row["split"]) for row in written] == [(row.id, row.split) for row in divided.rows]
    assert report["rows"] == {"train": 14, "validation": 2, "test": 4}
    counts = {"train": 7, "validation": 1, "test": 2}
    assert report["labels"] == {split: {"a": count, "b": count} for split, count in counts.items()}
    assert split_table(divided.rows).startswith('id,split\n"item 0, new",')


def test_the_digest_of_an_older_release_which_did_not_escape_ids_is_computed_too():
    row = Row("-7", {"text": "a"}, "x", "-7", "train", "", "")
    manifest = Manifest((row,), Path(), "")
    older = hashlib.sha256(b"id,split\n-7,train\n").hexdigest()
    assert describe_split(manifest, escaped=False)["sha256"] == older
    assert describe_split(manifest)["sha256"] == hashlib.sha256(b"id,split\n'-7,train\n").hexdigest()
