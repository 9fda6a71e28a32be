"""Rows are prepared once, by the code that serves."""

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
        parts = {"image": row.inputs["image"].read_bytes()} if "image" in row.inputs else {}
        parts |= {"text": row.inputs["text"]} if "text" in row.inputs else {}
        sample = predictor.prepare(parts)
        for name, store in prepared.stores.items():
            assert store.has(number) == (name in sample.present)
            if store.has(number):
                assert store[number].dtype == sample.arrays[name].dtype
                assert np.array_equal(store[number], sample.arrays[name])


def test_every_row_knows_what_it_has(examples):
    present = examples.present(range(len(examples.rows)))
    assert present.tolist() == [["image" in row.inputs, "text" in row.inputs] for row in examples.rows]
    assert {tuple(row) for row in present.tolist()} == {(True, True), (True, False), (False, True)}
    assert [examples.labels[target] for target in examples.targets] == [row.label for row in examples.rows]


def test_splits_are_disjoint_and_complete(examples):
    parts = [examples.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [24, 12, 12]
    assert sorted(row for part in parts for row in part) == list(range(len(examples.rows)))
    assert examples.split("unseen") == []


def test_a_batch_is_collated_as_the_encoder_takes_it(examples):
    rows = [row for row in examples.split("train") if "image" in examples.rows[row].inputs][:3]
    assert examples.collate("image", rows)["pixels"].shape == (3, 32, 32, 3)


@pytest.fixture
def counted(monkeypatch):
    """How many pictures were decoded."""
    calls = []
    decode = ImageInput.decode
    monkeypatch.setattr(ImageInput, "decode", lambda self, content: calls.append(1) or decode(self, content))
    return calls


def test_what_was_prepared_is_kept(examples, manifest, inputs, tmp_path, counted):
    pictures = sum("image" in row.inputs for row in manifest.rows)
    for expected in (pictures, pictures):
        again = prepare_examples(manifest, inputs, "inputs", tmp_path, workers=1)
        assert len(counted) == expected
        assert np.array_equal(again.stores["image"][0], examples.stores["image"][0])


@pytest.mark.parametrize("changed", ["inputs", "data", "interrupted"])
def test_other_inputs_or_other_data_are_prepared_anew(manifest, inputs, tmp_path, counted, changed):
    prepare_examples(manifest, inputs, "inputs", tmp_path, workers=1)
    before = len(counted)
    if changed == "interrupted":
        (tmp_path / "index.json").unlink()
    other = replace(manifest, digest="other") if changed == "data" else manifest
    prepare_examples(other, inputs, "others" if changed == "inputs" else "inputs", tmp_path, workers=1)
    assert len(counted) == 2 * before


def test_all_bad_rows_are_reported_at_once_by_their_id(manifest_folder, inputs, tmp_path):
    folder = shutil.copytree(manifest_folder, tmp_path / "bad")
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pictured = [row for row in rows if row["image"]]
    (folder / pictured[0]["image"]).write_bytes(b"just words")
    (folder / pictured[3]["image"]).write_bytes(b"")
    pictured[5]["text"] = "x" * 20_001
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(ManifestError) as caught:
        prepare_examples(read_manifest(folder), inputs, "inputs", tmp_path / "examples", workers=2)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert f"row {pictured[0]['id']}: image {pictured[0]['image']}: bytes of no known picture format" in problems
    assert f"row {pictured[3]['id']}: image {pictured[3]['image']}: 0 bytes" in problems
    assert f"row {pictured[5]['id']}: text: 20,001 characters" in problems
    # And nothing half-prepared is taken for whole the next time.
    with pytest.raises(ManifestError):
        prepare_examples(read_manifest(folder), inputs, "inputs", tmp_path / "examples", workers=2)
