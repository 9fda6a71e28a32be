"""A modality that is only registered in the table is read, checked, trained on and measured."""

import base64
import json

import numpy as np
import pytest

from polymodal.model import MODALITIES, load_bundle
from polymodal.model.errors import ModelError
from polymodal.model.evaluation import evaluate
from polymodal.model.evaluation.page import write_page
from polymodal.model.manifest import ManifestError, column_names, read_manifest, write_manifest
from polymodal.model.training import train
from polymodal.model.training.checks import inspect
from tests.toys.tone import TONE

SPLITS = {"train": 16, "validation": 8, "test": 8}


@pytest.fixture(autouse=True)
def tone(monkeypatch):
    monkeypatch.setitem(MODALITIES, TONE.name, TONE)


@pytest.fixture
def tones(tmp_path):
    """A manifest of loud and quiet tones, half of them with a text."""
    chance = np.random.default_rng(0)
    (tmp_path / "tones").mkdir()
    lines = ["tone,text,label,split"]
    for split, count in SPLITS.items():
        for number in range(count):
            label = ("quiet", "loud")[number % 2]
            samples = chance.integers(0, 60, 8) + (190 if label == "loud" else 0)
            path = tmp_path / "tones" / f"{split}-{number}.tone"
            path.write_bytes(samples.astype(np.uint8).tobytes())
            lines.append(f"tones/{path.name},{'a note' if number % 4 < 2 else ''},{label},{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "manifest.csv"


def test_its_column_is_read_and_written_and_is_in_the_digest(tones):
    manifest = read_manifest(tones)
    first = manifest.rows[0]
    assert first.inputs == {"text": "a note", "tone": tones.parent / "tones/train-0.tone"}
    assert column_names() == ("id", "image", "text", "audio", "tone", "label", "group", "split", "source", "licence")
    write_manifest(tones.with_name("again.csv"), manifest.rows)
    assert read_manifest(tones.with_name("again.csv")).digest == manifest.digest
    first.inputs["tone"].write_bytes(b"12345678")
    assert read_manifest(tones).digest != manifest.digest


def test_the_digest_of_data_without_it_does_not_depend_on_it(manifest_folder, monkeypatch):
    with_it = read_manifest(manifest_folder).digest
    monkeypatch.delitem(MODALITIES, TONE.name)
    assert read_manifest(manifest_folder).digest == with_it


def test_error_messages_name_it(tones):
    tones.write_text("tone,label\nnowhere.tone,x\n,y\n", encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tones)
    assert caught.value.problems == (
        f"line 2: tone 'nowhere.tone' is not there; allowed: a file below {tones.parent.name}/",
        "line 3: none of image, text, audio, tone; allowed: at least one of them",
    )
    tones.write_text("pitch,label\nx,y\n", encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"no column 'image' or 'text' or 'audio' or 'tone'; found: 'pitch' \(did you mean 'tone'"
    ):
        read_manifest(tones)


def test_a_folder_of_its_files_is_a_manifest(tones):
    folder = tones.parent / "classes"
    for label in ("loud", "quiet"):
        (folder / label).mkdir(parents=True)
        (folder / label / "1.tone").write_bytes(b"12345678")
    (folder / "loud/notes.md").write_text("left out", encoding="utf-8")
    manifest = read_manifest(folder)
    assert [(row.label, dict(row.inputs)) for row in manifest.rows] == [
        (label, {"tone": folder / label / "1.tone"}) for label in ("loud", "quiet")
    ]
    left_out = "left out, no picture or recording or beep by suffix: .md (1): 1 (loud/notes.md); allowed: .aac"
    assert manifest.warnings[0].startswith(left_out)
    (folder / "metadata.csv").write_text("file_name,label\nloud/1.tone,x\nquiet/1.tone,y\n", encoding="utf-8")
    assert [row.inputs["tone"].name for row in read_manifest(folder).rows] == ["1.tone", "1.tone"]


def test_checks_report_undecodable_files_and_near_duplicates(tones):
    folder = tones.parent / "tones"
    (folder / "train-1.tone").write_bytes(b"short")
    (folder / "test-0.tone").write_bytes((folder / "train-0.tone").read_bytes())
    result = inspect(tones, "single-label", 0, 1).result
    assert result.errors == ["row 2: tone tones/train-1.tone: 5 samples; allowed: 8 samples"]
    assert any(
        warning.startswith("1 beep of the test split is nearly equal to one of the train split: '25' ≈ '1'")
        for warning in result.warnings
    )


def test_a_preset_without_an_encoder_for_it_is_an_error(tones, tmp_path):
    with pytest.raises(ModelError, match="preset 'pretrained' has no tone encoder; choose one with --tone-encoder"):
        train(tones, tmp_path / "tones-bundle", preset="pretrained", cache=tmp_path)


def test_a_network_with_it_is_trained_exported_and_measured(tones, tmp_path):
    out = tmp_path / "bundle"
    changes = {"epochs": 4, "batch_size": 8, "augment": ["tone"]}
    train(tones, out, preset="cnn-rnn", device="cpu", workers=1, cache=tmp_path, int8=False, changes=changes)
    predictor = load_bundle(out, runtime="onnx", threads=1)
    predictor.warm_up()
    golden = json.loads((out / "golden.json").read_bytes())
    assert any(len(base64.b64decode(entry["parts"]["tone"])) == 8 for entry in golden if "tone" in entry["parts"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "for text and tone together, or any one of them alone" in card
    assert "also for a text or a beep that shows none" in card
    evaluation = evaluate(predictor, tones)
    assert set(evaluation.answers) == {"text+tone", "text", "tone"}
    assert evaluation.metrics["tone"]["accuracy"] > 0.8
    assert "Given tone" in write_page(evaluation, {})
