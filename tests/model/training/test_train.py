"""Training a bundle from a manifest, also from one that lacks inputs, labels or splits."""

import base64
import csv
import hashlib
import shutil
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from polymodal.model import BundleError, ModelError, UnknownModality, load_bundle
from polymodal.model.bundle import compress_weights, decompress_weights, read_bundle
from polymodal.model.manifest import read_manifest
from polymodal.model.training import ManifestError, train
from polymodal.model.training.splits import with_splits
from polymodal.model.training.train import GOLDEN_BYTES

CHANGES = {"epochs": 1, "batch_size": 8}
SETS = ("image+text", "image", "text")
MODULE = import_module("polymodal.model.training.train")  # the package's attribute `train` is the function


@pytest.fixture
def changed_manifest(manifest_folder, tmp_path):
    """`changed_manifest(change)`: the drawn data set with `change` applied to each row; a row is left out if that returns None."""

    def save(change):
        folder = tmp_path / "data"
        shutil.copytree(manifest_folder, folder)
        with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(changed for row in rows if (changed := change(dict(row))))
        return folder

    return save


def run(source, out, **options):
    return train(
        source,
        out,
        **{"preset": "cnn-rnn", "device": "cpu", "workers": 1, "cache": out.parent, "changes": CHANGES, **options},
    )


def without(column):
    def change(row):
        row[column] = ""
        return row if row["image"] or row["text"] else None

    return change


@pytest.mark.parametrize(
    ("lacking", "kept"),
    [pytest.param("image", "text", id="only-texts"), pytest.param("text", "image", id="only-images")],
)
def test_one_modality_is_enough(changed_manifest, manifest_folder, tmp_path, lacking, kept):
    predictor = run(changed_manifest(without(lacking)), tmp_path / "one")
    contents = {"text": "red", "image": (manifest_folder / "images/test-sea-0.png").read_bytes()}
    (prediction,) = predictor.predict([predictor.prepare({kept: contents[kept]})])
    assert prediction.used == {kept}
    assert [spec.name for spec in predictor.description.inputs] == [kept]
    assert set(predictor.description.report["metrics"]["test"]) == {kept}
    with pytest.raises(UnknownModality, match=f"allowed: {kept}"):
        predictor.prepare({lacking: "words"})
    torch_predictor = load_bundle(tmp_path / "one", runtime="torch", threads=1)
    torch_predictor.warm_up()


@pytest.fixture
def without_graphs(monkeypatch):
    """Skip exporting and drawing, which take seconds; torch serves such a bundle."""
    monkeypatch.setattr(MODULE, "export_graphs", lambda *_: {})
    monkeypatch.setattr(MODULE, "_draw", lambda *_: None)


def test_an_encoder_for_a_missing_modality_is_rejected(changed_manifest, tmp_path):
    changes = {**CHANGES, "encoders": {"image": "cnn"}}
    with pytest.raises(ModelError, match="image encoder: no training row has one; the data have text"):
        run(changed_manifest(without("image")), tmp_path / "out", changes=changes)


@pytest.mark.usefixtures("without_graphs")
def test_a_set_of_modalities_that_no_row_of_a_split_has_is_not_measured_there(changed_manifest, tmp_path):
    def change(row):
        return row if row["split"] == "train" else without("text")(row)

    predictor = run(changed_manifest(change), tmp_path / "partly")
    metrics = predictor.description.report["metrics"]
    assert set(metrics["validation"]) == set(metrics["test"]) == {"image"}
    (prediction,) = predictor.predict([predictor.prepare({"text": "red"})])
    assert prediction.used == {"text"}


@pytest.mark.usefixtures("without_graphs")
def test_a_label_of_one_row_is_learned_and_measured(changed_manifest, tmp_path):
    def change(row):
        return {**row, "label": "lonely"} if row["id"] == "train-sea-0" else row

    predictor = run(changed_manifest(change), tmp_path / "lonely")
    assert predictor.description.labels == ("lonely", "sea", "tomato")
    metrics = predictor.description.report["metrics"]["test"]["image+text"]
    assert metrics["labels"]["lonely"]["items"] == 0
    assert metrics["macro_f1"] <= 1


@pytest.mark.usefixtures("without_graphs")
def test_the_test_split_can_be_left_out(manifest_folder, tmp_path):
    predictor = run(manifest_folder, tmp_path / "choosing", measure_test=False)
    assert set(predictor.description.report["metrics"]) == {"validation"}
    assert "test split" not in predictor.description.card


@pytest.mark.usefixtures("without_graphs")
def test_class_weights_are_used_and_recorded(changed_manifest, tmp_path):
    left_out = {f"train-tomato-{number}" for number in range(4)}
    folder = changed_manifest(lambda row: None if row["id"] in left_out else row)
    predictor = run(folder, tmp_path / "weighted", changes={**CHANGES, "class_weights": "balanced"})
    weights = predictor.description.report["training"]["class_weights"]
    assert weights == pytest.approx({"sea": 20 / (2 * 12), "tomato": 20 / (2 * 8)})
    assert "Labels were weighted in the loss" in predictor.description.card


def test_the_report_has_the_origin_of_the_bundle(tiny_bundle, manifest_folder):
    report = read_bundle(tiny_bundle).report
    assert report["preset"] == "cnn-rnn"
    assert report["data"]["digest"] == read_manifest(manifest_folder).digest
    assert report["data"]["items"]["train"] == {"drawn (CC0-1.0)": 12, "painted (CC0-1.0)": 12}
    assert report["training"]["seed"] == 0
    assert report["training"]["epochs_run"] == len(report["training"]["history"])
    assert set(report["code"]) >= {"revision", "python", "torch"}
    assert set(report["metrics"]) == {"validation", "test"}


def test_the_same_seed_gives_the_same_bundle(tiny_bundle, manifest_folder, tmp_path):
    """A bundle depends neither on its folder nor on the number of workers or the time."""
    changes = {"epochs": 6, "batch_size": 8, "seed": 0}
    again = run(manifest_folder, tmp_path / "elsewhere/shapes", changes=changes, workers=3)
    assert again.description.digest == read_bundle(tiny_bundle).digest


@pytest.mark.usefixtures("without_graphs")
def test_another_seed_gives_another_bundle(manifest_folder, tmp_path):
    first, other = (run(manifest_folder, tmp_path / f"{seed}/x", changes={**CHANGES, "seed": seed}) for seed in (0, 1))
    assert first.description.digest != other.description.digest


@pytest.mark.usefixtures("without_graphs")
def test_a_bundle_trained_in_half_precision_serves(manifest_folder, tmp_path):
    predictor = run(manifest_folder, tmp_path / "half", changes={**CHANGES, "precision": "bf16"})
    assert predictor.description.report["training"]["precision"] == "bf16"
    (prediction,) = predictor.predict([predictor.prepare({"text": "red"})])
    assert sum(prediction.scores.values()) == pytest.approx(1)
    predictor.warm_up()


@pytest.mark.usefixtures("without_graphs")
def test_a_manifest_without_splits_is_divided_and_its_splits_are_recorded(changed_manifest, tmp_path):
    folder = changed_manifest(lambda row: {**row, "split": "", "group": ""})
    predictor = run(folder, tmp_path / "out", split_seed=5)
    report = predictor.description.report["data"]["split"]
    recorded = tmp_path / "out.run/split.csv"
    assert report["seed"] == 5
    assert report["sha256"] == hashlib.sha256(recorded.read_bytes()).hexdigest()
    assert report["labels"]["train"] == {"sea": 17, "tomato": 17}
    with recorded.open(encoding="utf-8", newline="") as file:
        splits = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert splits == {row.id: row.split for row in with_splits(read_manifest(folder), 5).rows}


@pytest.mark.usefixtures("without_graphs")
def test_training_and_validation_rows_are_enough(changed_manifest, tmp_path, capsys):
    folder = changed_manifest(lambda row: row if row["split"] != "test" else None)
    predictor = run(folder, tmp_path / "out")
    report = predictor.description.report
    assert set(report["metrics"]) == {"validation"}
    assert any(warning.startswith("no rows in the test split") for warning in report["warnings"])
    printed = capsys.readouterr().err
    assert [warning for warning in report["warnings"] if f"warning: {warning}\n" not in printed] == []


@pytest.mark.usefixtures("without_graphs")
def test_the_report_warns_of_near_duplicates_in_two_splits(changed_manifest, tmp_path):
    predictor = run(changed_manifest(lambda row: row), tmp_path / "out")
    (warning,) = (line for line in predictor.description.report["warnings"] if "test split are nearly equal" in line)
    assert "one of the train split" in warning
    assert str(tmp_path) not in warning


@pytest.mark.usefixtures("without_graphs")
def test_a_log_is_written_only_with_the_option(manifest_folder, tmp_path):
    run(manifest_folder, tmp_path / "unlogged")
    assert not (tmp_path / "unlogged.run/tensorboard").exists()
    run(manifest_folder, tmp_path / "logged", tensorboard=True)
    (log,) = (tmp_path / "logged.run/tensorboard").iterdir()
    assert log.stat().st_size > 0


def test_the_bundle_has_the_best_weights(tiny_bundle):
    checkpoint = torch.load(tiny_bundle.with_name("shapes.run") / "checkpoint.pt", weights_only=True)
    best = checkpoint["progress"]["best_weights"]
    weights = {name: weight.numpy() for name, weight in best.items() if not name.endswith("num_batches_tracked")}
    rounded = decompress_weights(compress_weights(weights))
    stored = read_bundle(tiny_bundle).read_weights()
    assert set(rounded) == set(stored)
    for name, weight in stored.items():
        assert (weight == rounded[name]).all(), name


def test_the_card_has_the_metrics(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    metrics = bundle.report["metrics"]["test"]["image+text"]
    low, high = metrics["intervals"]["accuracy"]
    assert f"| image + text | 12 | {metrics['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in bundle.card


def test_a_training_draws_plots(tiny_bundle):
    drawn = {path.name for path in (tiny_bundle.with_name("shapes.run") / "plots").iterdir()}
    kinds = ["learning-curves", *(f"{kind}-{key}" for kind in ("confusion", "reliability") for key in SETS)]
    assert drawn == {f"{name}.{suffix}" for name in kinds for suffix in ("png", "svg")}


@pytest.mark.usefixtures("without_graphs")
def test_a_training_is_not_resumed_with_other_data_or_options(manifest_folder, changed_manifest, tmp_path):
    run(manifest_folder, tmp_path / "first")
    other_data = changed_manifest(lambda row: row if row["id"] != "train-sea-3" else None)
    for source, changes in ((other_data, CHANGES), (manifest_folder, {**CHANGES, "seed": 1})):
        with pytest.raises(ModelError, match="made with other data, preset or options"):
            run(source, tmp_path / "first", resume=True, changes=changes)


def test_all_bad_images_are_named_before_training(changed_manifest, tmp_path):
    folder = changed_manifest(lambda row: row)
    for name in ("train-sea-0", "test-tomato-1"):
        (folder / f"images/{name}.png").write_bytes(b"words")
    with pytest.raises(ManifestError, match="2 problems") as caught:
        run(folder, tmp_path / "out")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["row train-sea-0", "row test-tomato-1"]


@pytest.mark.usefixtures("without_graphs")
def test_a_folder_of_something_else_is_not_replaced(manifest_folder, tmp_path):
    precious = tmp_path / "home/thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work", encoding="utf-8")
    with pytest.raises(BundleError, match="allowed: a new or empty folder, or an older bundle"):
        run(manifest_folder, precious.parent)
    assert precious.exists()


@pytest.mark.usefixtures("without_graphs")
def test_a_bundle_whose_predictions_deviate_is_removed(manifest_folder, tmp_path, monkeypatch):
    """For example, if a library writes an array's memory in another order than its shape."""
    write = MODULE.write_bundle

    def garbled(directory, *, weights, **rest):
        name = "head.classify.1.weight"
        write(directory, weights={**weights, name: weights[name][::-1].copy()}, **rest)

    monkeypatch.setattr(MODULE, "write_bundle", garbled)
    with pytest.raises(ModelError, match="away from the trained network's"):
        run(manifest_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_graphs")
def test_a_training_that_fails_at_its_end_does_not_change_an_older_bundle(manifest_folder, bundle_copy, monkeypatch):
    before = read_bundle(bundle_copy).digest
    monkeypatch.setattr(MODULE, "LOGIT_TOLERANCE", -1)
    with pytest.raises(ModelError, match="away from the trained network's"):
        run(manifest_folder, bundle_copy)
    assert read_bundle(bundle_copy).digest == before
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["bundle", "bundle.run"]


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("target", ["single-label", "multi-label", "regression"])
def test_rows_without_learned_inputs_are_neither_measured_nor_counted(changed_manifest, tmp_path, target):
    """No training row has an image; all test rows and some validation rows have nothing else. One validation row is left."""

    def change(row):
        number = int(row["id"].rsplit("-", 1)[1])
        row["label"] = {"sea": "1", "tomato": "2"}[row["label"]]
        if row["split"] == "train":
            row["image"] = ""
        elif row["split"] == "test" or number != 2:
            row["text"] = ""
        return row if (row["text"] or row["image"]) and (row["split"], row["label"]) != ("validation", "2") else None

    predictor = run(changed_manifest(change), tmp_path / "out", target=target)
    report = predictor.description.report
    assert [spec.name for spec in predictor.description.inputs] == ["text"]
    assert report["data"]["split"]["rows"] == {"train": 16, "validation": 1}
    assert set(report["data"]["items"]) == {"train", "validation"}
    assert {split: list(sets) for split, sets in report["metrics"].items()} == {"validation": ["text"]}
    metrics = report["metrics"]["validation"]["text"]
    assert metrics["items"] == 1
    assert all(interval is None or interval[0] < interval[1] for interval in metrics["intervals"].values())
    assert any(warning.startswith("no row of the train split has an image") for warning in report["warnings"])
    resumed = run(tmp_path / "data", tmp_path / "out", target=target, resume=True)
    assert resumed.description.digest == predictor.description.digest


@pytest.mark.usefixtures("without_graphs")
def test_a_validation_split_without_learned_inputs_is_an_error(changed_manifest, tmp_path):
    change = {"train": without("image"), "validation": without("text"), "test": without("text")}
    folder = changed_manifest(lambda row: change[row["split"]](row))
    with pytest.raises(ManifestError, match="no usable rows in the validation split: none of its 8 has a text"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run").exists()


@pytest.mark.usefixtures("without_graphs")
def test_images_and_texts_that_no_row_has_together_are_not_measured_together(changed_manifest, tmp_path):
    def alone(row):
        row["image" if row["text"] else "text"] = ""
        return row

    report = run(changed_manifest(alone), tmp_path / "out").description.report
    assert set(report["metrics"]["validation"]) == set(report["metrics"]["test"]) == {"image", "text"}
    assert any("has an image and a text together" in warning for warning in report["warnings"])


@pytest.mark.usefixtures("without_graphs")
def test_photographs_become_golden_inputs_too(changed_manifest, tmp_path):
    """All of them are larger than a golden input may be, so they are stored as thumbnails."""
    folder = changed_manifest(without("text"))
    for path in (folder / "images").iterdir():
        noise = np.random.default_rng(0).integers(256, size=(100, 100, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    run(folder, tmp_path / "out")
    golden = read_bundle(tmp_path / "out").golden
    assert len(golden) == 2
    assert all(len(base64.b64decode(entry["parts"]["image"])) < GOLDEN_BYTES for entry in golden)
