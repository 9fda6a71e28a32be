"""From a manifest to a bundle, also when the manifest lacks something."""

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


@pytest.fixture
def changed_manifest(manifest_folder, tmp_path):
    """`changed_manifest(change)`: the drawn data set with each row changed, or left out where that gives None."""

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
    ("lacking", "kept", "parts"),
    [
        pytest.param("image", "text", {"text": "red"}, id="only-texts"),
        pytest.param("text", "image", None, id="only-images"),
    ],
)
def test_one_modality_is_enough(changed_manifest, manifest_folder, tmp_path, lacking, kept, parts):
    predictor = run(changed_manifest(without(lacking)), tmp_path / "one")
    parts = parts or {"image": (manifest_folder / "images/test-sea-0.png").read_bytes()}
    (prediction,) = predictor.predict([predictor.prepare(parts)])
    assert prediction.used == {kept}
    assert [spec.name for spec in predictor.description.inputs] == [kept]
    assert set(predictor.description.report["metrics"]["test"]) == {kept}
    with pytest.raises(UnknownModality, match=f"allowed: {kept}"):
        predictor.prepare({lacking: "words"})
    torch_predictor = load_bundle(tmp_path / "one", runtime="torch", threads=1)
    torch_predictor.warm_up()


@pytest.fixture
def without_graphs(monkeypatch):
    """Exporting and drawing take seconds, and the bundle is as good without: torch serves it."""
    # By import_module, because the package's attribute `train` is the function.
    monkeypatch.setattr(import_module("polymodal.model.training.train"), "export_graphs", lambda *_: {})
    monkeypatch.setattr(import_module("polymodal.model.training.train"), "_draw", lambda *_: None)


def test_an_encoder_for_what_the_data_lack_is_refused(changed_manifest, tmp_path):
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
    told = predictor.description.report["metrics"]["test"]["image+text"]
    assert told["labels"]["lonely"]["items"] == 0
    assert told["macro_f1"] <= 1


@pytest.mark.usefixtures("without_graphs")
def test_the_test_part_can_be_left_unread(manifest_folder, tmp_path):
    predictor = run(manifest_folder, tmp_path / "choosing", measure_test=False)
    assert set(predictor.description.report["metrics"]) == {"validation"}
    assert "test split" not in predictor.description.card


@pytest.mark.usefixtures("without_graphs")
def test_class_weights_are_learned_with_and_recorded(changed_manifest, tmp_path):
    def fewer_tomatoes(row):
        return None if row["id"] in ("train-tomato-0", "train-tomato-1", "train-tomato-2", "train-tomato-3") else row

    changes = {**CHANGES, "class_weights": "balanced"}
    predictor = run(changed_manifest(fewer_tomatoes), tmp_path / "weighted", changes=changes)
    found = predictor.description.report["training"]["class_weights"]
    assert found == pytest.approx({"sea": 20 / (2 * 12), "tomato": 20 / (2 * 8)})
    assert "Labels were weighted in the loss" in predictor.description.card


def test_the_report_says_where_everything_comes_from(tiny_bundle, manifest_folder):
    report = read_bundle(tiny_bundle).report
    assert report["preset"] == "cnn-rnn"
    assert report["data"]["digest"] == read_manifest(manifest_folder).digest
    assert report["data"]["items"]["train"] == {"drawn (CC0-1.0)": 12, "painted (CC0-1.0)": 12}
    assert report["training"]["seed"] == 0
    assert report["training"]["epochs_run"] == len(report["training"]["history"])
    assert set(report["code"]) >= {"revision", "python", "torch"}
    assert set(report["metrics"]) == {"validation", "test"}


def test_the_same_seed_gives_the_same_bundle(tiny_bundle, manifest_folder, tmp_path):
    """Whatever the folder, the number of workers, and when: nothing in a bundle says these."""
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
def test_a_manifest_without_splits_is_divided_and_the_split_is_recorded(changed_manifest, tmp_path):
    folder = changed_manifest(lambda row: {**row, "split": "", "group": ""})
    predictor = run(folder, tmp_path / "out", split_seed=5)
    told = predictor.description.report["data"]["split"]
    recorded = tmp_path / "out.run/split.csv"
    assert told["seed"] == 5
    assert told["sha256"] == hashlib.sha256(recorded.read_bytes()).hexdigest()
    assert told["labels"]["train"] == {"sea": 17, "tomato": 17}
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
    told = capsys.readouterr().err
    assert [warning for warning in report["warnings"] if f"warning: {warning}\n" not in told] == []


@pytest.mark.usefixtures("without_graphs")
def test_equal_pictures_of_two_parts_are_warned_of_in_the_report(changed_manifest, tmp_path):
    predictor = run(changed_manifest(lambda row: row), tmp_path / "out")
    (warning,) = (each for each in predictor.description.report["warnings"] if "test split are nearly equal" in each)
    assert "one of the train split" in warning
    assert str(tmp_path) not in warning


@pytest.mark.usefixtures("without_graphs")
def test_a_log_is_written_when_it_is_asked_for(manifest_folder, tmp_path):
    run(manifest_folder, tmp_path / "quiet")
    assert not (tmp_path / "quiet.run/tensorboard").exists()
    run(manifest_folder, tmp_path / "logged", tensorboard=True)
    (log,) = (tmp_path / "logged.run/tensorboard").iterdir()
    assert log.stat().st_size > 0


def test_the_bundle_holds_the_best_weights(tiny_bundle):
    checkpoint = torch.load(tiny_bundle.with_name("shapes.run") / "checkpoint.pt", weights_only=True)
    best = checkpoint["progress"]["best_weights"]
    rounded = decompress_weights(
        compress_weights(
            {name: each.numpy() for name, each in best.items() if not name.endswith("num_batches_tracked")}
        )
    )
    stored = read_bundle(tiny_bundle).read_weights()
    assert set(rounded) == set(stored)
    for name, weight in stored.items():
        assert (weight == rounded[name]).all(), name


def test_the_card_tells_the_figures(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    told = bundle.report["metrics"]["test"]["image+text"]
    low, high = told["intervals"]["accuracy"]
    assert f"| image + text | 12 | {told['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in bundle.card


def test_a_training_leaves_its_plots(tiny_bundle):
    drawn = {path.name for path in (tiny_bundle.with_name("shapes.run") / "plots").iterdir()}
    kinds = ["learning-curves", *(f"{kind}-{key}" for kind in ("confusion", "reliability") for key in SETS)]
    assert drawn == {f"{name}.{suffix}" for name in kinds for suffix in ("png", "svg")}


@pytest.mark.usefixtures("without_graphs")
def test_other_data_do_not_resume_a_training(manifest_folder, changed_manifest, tmp_path):
    run(manifest_folder, tmp_path / "first")
    other = changed_manifest(lambda row: row if row["id"] != "train-sea-3" else None)
    with pytest.raises(ModelError, match="made with other data, preset or options"):
        run(other, tmp_path / "first", resume=True)


@pytest.mark.usefixtures("without_graphs")
def test_other_options_do_not_resume_a_training(manifest_folder, tmp_path):
    run(manifest_folder, tmp_path / "first")
    with pytest.raises(ModelError, match="made with other data, preset or options"):
        run(manifest_folder, tmp_path / "first", resume=True, changes={**CHANGES, "seed": 1})


def test_bad_pictures_are_all_named_before_training(changed_manifest, tmp_path):
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
def test_a_bundle_that_does_not_say_what_was_measured_is_removed(manifest_folder, tmp_path, monkeypatch):
    """As when a library writes an array's memory in another order than its shape."""
    module = import_module("polymodal.model.training.train")
    write = module.write_bundle

    def garbled(directory, *, weights, **rest):
        name = "head.classify.1.weight"
        write(directory, weights={**weights, name: weights[name][::-1].copy()}, **rest)

    monkeypatch.setattr(module, "write_bundle", garbled)
    with pytest.raises(ModelError, match="away from the trained network's"):
        run(manifest_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_training_that_fails_at_its_end_leaves_an_older_bundle_as_it_was(manifest_folder, bundle_copy, monkeypatch):
    before = read_bundle(bundle_copy).digest
    module = import_module("polymodal.model.training.train")
    monkeypatch.setattr(module, "export_graphs", lambda *_: {})
    monkeypatch.setattr(module, "_draw", lambda *_: None)
    monkeypatch.setattr(module, "LOGIT_TOLERANCE", -1)
    with pytest.raises(ModelError, match="away from the trained network's"):
        run(manifest_folder, bundle_copy)
    assert read_bundle(bundle_copy).digest == before
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["bundle", "bundle.run"]


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("target", ["single-label", "multi-label", "regression"])
def test_rows_that_the_network_cannot_take_are_neither_measured_nor_counted(changed_manifest, tmp_path, target):
    """No training row has an image; a validation row and all test rows have nothing else; one validation row is left."""

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
    measured = report["metrics"]["validation"]["text"]
    assert measured["items"] == 1
    assert all(interval is None or interval[0] < interval[1] for interval in measured["intervals"].values())
    assert any(warning.startswith("no row of the train split has an image") for warning in report["warnings"])
    resumed = run(tmp_path / "data", tmp_path / "out", target=target, resume=True)
    assert resumed.description.digest == predictor.description.digest


@pytest.mark.usefixtures("without_graphs")
def test_a_part_that_cannot_be_measured_ends_a_training_before_it_begins(changed_manifest, tmp_path):
    change = {"train": without("image"), "validation": without("text"), "test": without("text")}
    folder = changed_manifest(lambda row: change[row["split"]](row))
    with pytest.raises(ManifestError, match="no usable rows in the validation split: none of its 8 has a text"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run").exists()


@pytest.mark.usefixtures("without_graphs")
def test_images_and_texts_that_are_never_together_are_not_measured_together(changed_manifest, tmp_path):
    def alone(row):
        row["image" if row["text"] else "text"] = ""
        return row

    report = run(changed_manifest(alone), tmp_path / "out").description.report
    assert set(report["metrics"]["validation"]) == set(report["metrics"]["test"]) == {"image", "text"}
    assert any("has an image and a text together" in warning for warning in report["warnings"])


@pytest.mark.usefixtures("without_graphs")
def test_photographs_become_golden_inputs_too(changed_manifest, tmp_path):
    """All of them larger than a golden input may be: they are recorded as thumbnails."""
    folder = changed_manifest(without("text"))
    for path in (folder / "images").iterdir():
        noise = np.random.default_rng(0).integers(256, size=(100, 100, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    run(folder, tmp_path / "out")
    golden = read_bundle(tmp_path / "out").golden
    assert len(golden) == 2
    assert all(len(base64.b64decode(each["parts"]["image"])) < GOLDEN_BYTES for each in golden)
