"""Rows are prepared once, with the code that serving uses."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from polymodal.model.manifest import ManifestError, read_manifest
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.training.examples import prepare_examples


def test_rows_are_prepared_as_requests_are(examples, manifest, predictors, tmp_path):
    predictor = predictors["onnx"]
    served = {"image": ImageInput(side=64), "text": predictor._inputs["text"]}
    prepared = prepare_examples(manifest, served, "served", tmp_path, workers=1)
    for number, row in enumerate(manifest.rows):
        contents = {name: value.read_bytes() if name == "image" else value for name, value in row.inputs.items()}
        sample = predictor.prepare(contents)
        for name, store in prepared.stores.items():
            assert store.has(number) == (name in sample.present)
            if store.has(number):
                assert store[number].dtype == sample.arrays[name].dtype
                assert np.array_equal(store[number], sample.arrays[name])


def test_rows_have_their_inputs_and_targets(examples):
    present = examples.present(range(len(examples.rows)))
    assert present.tolist() == [["image" in row.inputs, "text" in row.inputs] for row in examples.rows]
    assert {tuple(row) for row in present.tolist()} == {(True, True), (True, False), (False, True)}
    assert [examples.labels[target] for target in examples.targets] == [row.label for row in examples.rows]


def test_splits_are_disjoint_and_complete(examples):
    splits = [examples.split(name) for name in ("train", "validation", "test")]
    assert [len(rows) for rows in splits] == [24, 12, 12]
    assert sorted(row for rows in splits for row in rows) == list(range(len(examples.rows)))
    assert examples.split("unseen") == []


def test_a_batch_is_collated_as_the_encoder_takes_it(examples):
    rows = [row for row in examples.split("train") if "image" in examples.rows[row].inputs][:3]
    assert examples.collate("image", rows)["pixels"].shape == (3, 32, 32, 3)


@pytest.fixture
def decoded(monkeypatch):
    """A list with one entry for each decoded image."""
    calls = []
    decode = ImageInput.decode
    monkeypatch.setattr(ImageInput, "decode", lambda self, content: calls.append(1) or decode(self, content))
    return calls


def test_rows_are_prepared_only_once(examples, manifest, inputs, tmp_path, decoded):
    for _ in range(2):
        again = prepare_examples(manifest, inputs, "inputs", tmp_path, workers=1)
        assert len(decoded) == sum("image" in row.inputs for row in manifest.rows)
        assert np.array_equal(again.stores["image"][0], examples.stores["image"][0])


@pytest.mark.parametrize("changed", ["inputs", "data", "interrupted"])
def test_rows_are_prepared_again_for_other_inputs_or_data(manifest, inputs, tmp_path, decoded, changed):
    prepare_examples(manifest, inputs, "inputs", tmp_path, workers=1)
    before = len(decoded)
    if changed == "interrupted":
        (tmp_path / "index.json").unlink()
    other = replace(manifest, digest="other") if changed == "data" else manifest
    prepare_examples(other, inputs, "others" if changed == "inputs" else "inputs", tmp_path, workers=1)
    assert len(decoded) == 2 * before


def test_all_bad_rows_are_reported_at_once_by_id(manifest_folder, inputs, tmp_path):
    folder = shutil.copytree(manifest_folder, tmp_path / "bad")
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    undecodable, _, _, empty, _, long, *_ = (row for row in rows if row["image"])
    (folder / undecodable["image"]).write_bytes(b"just words")
    (folder / empty["image"]).write_bytes(b"")
    long["text"] = "x" * 20_001
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    expected = [
        f"row {undecodable['id']}: image {undecodable['image']}: bytes of no known picture format",
        f"row {empty['id']}: image {empty['image']}: 0 bytes",
        f"row {long['id']}: text: 20,001 characters",
    ]
    for _ in range(2):  # the rows that were prepared before the error are not used the second time
        with pytest.raises(ManifestError) as caught:
            prepare_examples(read_manifest(folder), inputs, "inputs", tmp_path / "examples", workers=2)
        assert [line[: len(start)] for line, start in zip(caught.value.problems, expected, strict=True)] == expected
