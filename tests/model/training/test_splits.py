"""Rows are divided by label and group, evenly, the same way each time, and it is written down how."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.model.manifest import Manifest, Row, read_manifest, write_manifest
from polymodal.model.training.splits import SHARES, describe_split, split_rows, split_table, with_splits, write_split


def row(number, label, group=None):
    return Row(str(number), {"text": "words"}, label, group or str(number), "", "", "")


def rows_of(**counts):
    """So many rows of each label, each its own group."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [row(number, label) for number, label in enumerate(labels)]


def parts_by_label(rows):
    counts = {}
    for each in rows:
        counts.setdefault(each.label, Counter())[each.split] += 1
    return counts


def test_every_label_has_its_shares():
    found = parts_by_label(split_rows(rows_of(common=1000, rare=50), seed=0))
    assert found == {
        "common": {"train": 700, "validation": 120, "test": 180},
        "rare": {"train": 35, "validation": 6, "test": 9},
    }


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=120),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_no_group_is_separated_and_labels_with_three_groups_are_everywhere(members, seed):
    rows = [row(number, f"label {label}", f"{label}/{group}") for number, (group, label) in enumerate(members)]
    divided = split_rows(rows, seed)
    splits_of, groups_of = {}, {}
    for each in divided:
        splits_of.setdefault(each.group, set()).add(each.split)
        groups_of.setdefault(each.label, set()).add(each.group)
    assert all(len(splits) == 1 for splits in splits_of.values())
    for label, parts in parts_by_label(divided).items():
        assert set(parts) == set(list(SHARES)[: len(groups_of[label])])


def test_groups_of_many_sizes_keep_the_shares():
    sizes = [40, 25, 12, 9, *[5] * 20, *[2] * 60, *[1] * 150]
    rows = [
        row(f"{group}-{number}", "ab"[group % 2], f"g{group}")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    for label, parts in parts_by_label(split_rows(rows, seed=3)).items():
        for part, share in SHARES.items():
            assert parts[part] / sum(parts.values()) == pytest.approx(share, abs=0.02), (label, part)


def test_a_group_of_two_labels_stays_whole_and_both_labels_are_everywhere():
    rows = [row(number, "ab"[number % 2], f"g{number // 4}") for number in range(24)]
    assert all(set(parts) == set(SHARES) for parts in parts_by_label(split_rows(rows, seed=0)).values())


def test_rows_with_several_labels_or_none_are_divided_by_each():
    rows = [row(number, ("red|large", "red", "")[number % 3] or "") for number in range(150)]
    found = parts_by_label(split_rows(rows, 0, "multi-label"))
    for cell in ("red|large", "red", ""):
        assert [found[cell][part] for part in SHARES] == pytest.approx([35, 6, 9], abs=1), cell


def test_numbers_are_spread_over_all_parts():
    divided = split_rows([row(number, f"{(number * 37) % 200}.0") for number in range(200)], 0, "regression")
    for part, share in SHARES.items():
        numbers = [float(each.label) for each in divided if each.split == part]
        assert len(numbers) == pytest.approx(200 * share, abs=1)
        assert sum(numbers) / len(numbers) == pytest.approx(99.5, abs=5), part


def test_a_few_numbers_are_divided_too():
    divided = split_rows([row(number, f"{number}.0") for number in range(6)], 0, "regression")
    assert {each.split for each in divided} == set(SHARES)


def test_the_smallest_manifest_that_can_be_trained_on_works():
    divided = split_rows(rows_of(a=2, b=2), seed=0)
    assert parts_by_label(divided) == {"a": {"train": 1, "validation": 1}, "b": {"train": 1, "validation": 1}}


def test_the_same_seed_divides_the_same_and_another_seed_otherwise():
    rows = rows_of(a=60, b=40)
    assert split_rows(rows, seed=1) == split_rows(rows, seed=1)
    assert split_rows(rows, seed=1) != split_rows(rows, seed=2)


def test_the_order_of_the_rows_does_not_matter():
    rows = rows_of(a=60, b=40)
    assert {each.id: each.split for each in split_rows(rows, seed=1)} == {
        each.id: each.split for each in split_rows(rows[::-1], seed=1)
    }


# --- written down ---


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


def test_the_digest_of_made_splits_is_that_of_the_written_manifest(tmp_path, manifest):
    divided = with_splits(manifest, seed=0)
    write_manifest(tmp_path / "manifest.csv", divided.rows)
    assert read_manifest(tmp_path).digest == divided.digest != manifest.digest


def test_the_written_split_is_the_one_that_the_report_names(tmp_path, manifest):
    divided = with_splits(manifest, seed=4)
    write_split(tmp_path / "split.csv", divided.rows)
    told = describe_split(divided)
    assert told["seed"] == 4
    assert told["sha256"] == hashlib.sha256((tmp_path / "split.csv").read_bytes()).hexdigest()
    with (tmp_path / "split.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(each["id"], each["split"]) for each in written] == [(each.id, each.split) for each in divided.rows]
    assert told["rows"] == {"train": 14, "validation": 2, "test": 4}
    assert told["labels"] == {
        "train": {"a": 7, "b": 7},
        "validation": {"a": 1, "b": 1},
        "test": {"a": 2, "b": 2},
    }
    assert split_table(divided.rows).startswith('id,split\n"item 0, new",')


def test_the_split_of_an_older_release_is_recognised_though_it_escaped_no_ids():
    row = Row("-7", {"text": "a"}, "x", "-7", "train", "", "")
    manifest = Manifest((row,), Path(), "")
    older = hashlib.sha256(b"id,split\n-7,train\n").hexdigest()
    assert describe_split(manifest, escaped=False)["sha256"] == older
    assert describe_split(manifest)["sha256"] == hashlib.sha256(b"id,split\n'-7,train\n").hexdigest()
