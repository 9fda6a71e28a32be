"""Multi-label and regression from end to end: drawn shapes, `polymodal train`, bundle, HTTP, command line."""

import base64
import csv
import io
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from polymodal.app.cli import app as command_line
from polymodal.model import BundleError, Network, load_bundle
from polymodal.model.bundle import read_bundle
from polymodal.model.runtimes import start_runtime
from tests.in_process import serving

SPLITS = (("train", 32), ("validation", 16), ("test", 12))
SIZES = ("tiny", "small", "large", "huge")


def png(shapes, side=14):
    """Draw a red circle on the left, a blue square on the right, or both, or none."""
    image = Image.new("RGB", (48, 32), "white")
    draw = ImageDraw.Draw(image)
    if "circle" in shapes:
        draw.ellipse((2, 8, 18, 24), fill="red")
    if "square" in shapes:
        draw.rectangle((22, 4, 22 + side, 4 + side), fill="blue")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def several(number, chance):
    """Return an image with any of two shapes, words, and the cell that names the shapes."""
    shapes = [shape for bit, shape in enumerate(("circle", "square")) if number >> bit & 1]
    words = " and ".join(f"a {'red' if shape == 'circle' else 'blue'} {shape}" for shape in shapes) or "an empty page"
    return png(shapes), words, "|".join(shapes)


def size(number, chance):
    """Return an image with a square, words, and the cell with its side in tenths of a pixel."""
    kind = number % len(SIZES)
    side = 5 + 6 * kind + int(chance.integers(3))
    return png(["square"], side), f"a {SIZES[kind]} square", f"{side / 10}"


def write_manifest(folder: Path, example) -> Path:
    """Write images and a manifest, in which some training rows lack their image or their words."""
    (folder / "images").mkdir()
    chance = np.random.default_rng(3)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "label", "split"])
        for split, count in SPLITS:
            for number in range(count):
                image, words, label = example(number, chance)
                name = f"images/{split}-{number}.png"
                (folder / name).write_bytes(image)
                missing = number % 5 if split == "train" else 0  # 1: no image, 3: no words
                table.writerow(["" if missing == 1 else name, "" if missing == 3 else words, label, split])
    return folder


def train(folder: Path, target: str, *options: str) -> Path:
    out = folder / f"bundles/{target}"
    fixed = ["--preset", "cnn-rnn", "--epochs", "8", "--batch-size", "8", "--device", "cpu", "--workers", "1"]
    arguments = ["train", str(folder), "--out", str(out), "--target", target, "--cache", str(folder), *fixed, *options]
    result = CliRunner().invoke(command_line, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def tags(tmp_path_factory) -> Path:
    """A multi-label bundle, without graphs, because its head is that of a single-label bundle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("polymodal.model.training.train"), "export_graphs", lambda *_: {})
        folder = write_manifest(tmp_path_factory.mktemp("tags"), several)
        return train(folder, "multi-label", "--class-weights", "balanced")


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> Path:
    """A regression bundle, with graphs."""
    return train(write_manifest(tmp_path_factory.mktemp("sides"), size), "regression", "--augment", "none")


REQUESTS = [
    {"image": png(["circle"]), "text": "a red circle"},
    {"image": png(["square"], 23)},
    {"text": "a blue square and a red circle"},
    {"text": "a huge square"},
]


def as_json(inputs):
    return {**inputs, "image": base64.b64encode(inputs["image"]).decode()} if "image" in inputs else inputs


async def answers_of(bundle):
    """Return predictions of the requests, HTTP answers to them one by one and as a batch, and the model's description."""
    predictor = load_bundle(bundle, threads=1)
    alone = [predictor.predict([predictor.prepare(inputs)])[0] for inputs in REQUESTS]
    async with serving(bundle, name="shapes") as client:
        single = [await client.post("/v1/classify", json=as_json(inputs)) for inputs in REQUESTS]
        batch = await client.post("/v1/classify/batch", json={"items": [as_json(inputs) for inputs in REQUESTS]})
        described = (await client.get("/v1/models/shapes")).json()
    together = [item["classification"] for item in batch.json()["items"]]
    return alone, [answer.json() for answer in single], together, described


async def test_several_labels_are_served_as_they_are_predicted(tags):
    predictions, single, together, described = await answers_of(tags)
    for prediction, one, other in zip(predictions, single, together, strict=True):
        for answer in (one, other):
            assert "value" not in answer
            scores = {entry["label"]: entry["score"] for entry in answer["labels"]}
            assert scores == pytest.approx(prediction.scores, abs=1e-4)
            assert {entry["label"] for entry in answer["labels"] if entry["selected"]} == prediction.selected
    assert described["target"] == "multi-label"
    assert described["labels"] == ["circle", "square"]
    config = json.loads((tags / "config.json").read_text(encoding="utf-8"))
    assert described["thresholds"] == config["thresholds"]
    assert "scale" not in config["network"]


def test_several_labels_are_learned_and_measured(tags):
    predictor = load_bundle(tags, threads=1)
    report = predictor.description.report
    both, none = predictor.predict(
        [
            predictor.prepare({"image": png(["circle", "square"]), "text": "a red circle and a blue square"}),
            predictor.prepare({"image": png([]), "text": "an empty page"}),
        ]
    )
    assert (both.selected, none.selected) == ({"circle", "square"}, set())
    metrics = report["metrics"]["test"]["image+text"]
    assert metrics["macro_f1"] > 0.9
    assert metrics["labels"]["circle"]["items"] == 6
    assert report["training"]["class_weights"].keys() == {"circle", "square"}
    assert report["training"]["smoothing"] == 0
    assert "Says which of 2 labels fit image and text together" in predictor.description.card
    assert "| given | items | macro-F1 | micro-F1 |" in predictor.description.card


async def test_a_number_is_served_as_it_is_predicted(sides):
    predictions, single, together, described = await answers_of(sides)
    for prediction, one, other in zip(predictions, single, together, strict=True):
        for answer in (one, other):
            assert answer["labels"] == []
            assert answer["value"] == pytest.approx(prediction.value, abs=1e-4)
            interval = answer["interval"]
            assert interval["low"] == pytest.approx(prediction.interval.low, abs=1e-4)
            assert interval["high"] == pytest.approx(prediction.interval.high, abs=1e-4)
            assert interval["low"] <= answer["value"] <= interval["high"]
            assert interval["coverage"] == 0.9
    assert (described["target"], described["labels"]) == ("regression", [])
    assert "thresholds" not in described


def test_a_number_is_learned_and_measured(sides):
    predictor = load_bundle(sides, threads=1)
    tiny, huge = predictor.predict(
        [
            predictor.prepare({"image": png(["square"], 6), "text": "a tiny square"}),
            predictor.prepare({"image": png(["square"], 24), "text": "a huge square"}),
        ]
    )
    assert tiny.value < 1.4 < huge.value  # the mean of the train split
    metrics = predictor.description.report["metrics"]["test"]["image+text"]
    assert metrics["r2"] > 0.5
    assert metrics["intervals"]["mae"][0] <= metrics["mae"] <= metrics["intervals"]["mae"][1]
    card = predictor.description.card
    assert "Estimates a number from image and text together" in card
    assert "| given | items | mean absolute error | root mean squared error | R² |" in card


def polymodal(*arguments):
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("name", "title", "kind"),
    [
        pytest.param("tags", "mean average precision", "reliability", id="multi-label"),
        pytest.param("sides", "root mean squared error", "predictions", id="regression"),
    ],
)
def test_another_target_is_evaluated_with_the_metrics_of_its_training(request, tmp_path, name, title, kind):
    bundle = request.getfixturevalue(name)
    in_float = tmp_path / "float32"  # as in training; without the manifest no graphs in 8 bits are exported
    polymodal("export", bundle, "--out", in_float)
    shown = polymodal("evaluate", in_float, bundle.parents[1], "--out", tmp_path)
    assert title in shown
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())["metrics"]
    recorded = load_bundle(bundle, threads=1).description.report["metrics"]["test"]
    for key, figures in recorded.items():
        # Equal images have numbers exactly on the ends of intervals, and rounding may put them on either side.
        compared = [metric for metric, value in figures.items() if isinstance(value, float) and metric != "coverage"]
        for metric in compared:
            assert metrics[key][metric] == pytest.approx(figures[metric], abs=1e-4), (key, metric)
        assert (tmp_path / f"{kind}-{key}.svg").exists()
        assert (bundle.with_name(f"{bundle.name}.run") / f"plots/{kind}-{key}.png").exists()
    assert title in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_file_of_scores_has_the_selected_labels(tags, tmp_path):
    polymodal("score", tags, tags.parents[1], "--out", tmp_path / "scores.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == ["id", "label", "score_circle", "score_square", "error"]
    alone = json.loads(polymodal("predict", tags, "--text", "a red circle and a blue square", "--json"))
    assert {entry["label"] for entry in alone["labels"] if entry["selected"]} == {"circle", "square"}
    assert {row["label"] for row in rows} >= {"", "circle|square"}
    assert "selected" in polymodal("predict", tags, "--text", "a red circle")


def test_a_file_of_scores_has_the_predicted_numbers(sides, tmp_path):
    polymodal("score", sides, sides.parents[1], "--out", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "value", "low", "high", "error"]
    image = sides.parents[1] / "images/train-0.png"
    answer = json.loads(polymodal("predict", sides, "--image", image, "--text", "a tiny square", "--json"))
    assert float(rows[0]["value"]) == pytest.approx(answer["value"], abs=1e-4)
    assert float(rows[0]["low"]) == pytest.approx(answer["interval"]["low"], abs=1e-4)
    assert f"{answer['value']}" in polymodal("predict", sides, "--image", image, "--text", "a tiny square")
    refused = CliRunner().invoke(command_line, ["predict", str(sides), "--text", "huge", "--top-k", "2"])
    assert refused.exit_code == 1
    assert "answers with a number" in refused.stderr


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_regression_bundle_that_fails_its_golden_inputs_is_rejected(sides, runtime):
    bundle = read_bundle(sides)
    served = start_runtime(runtime, bundle, threads=1)
    Network(bundle, served).warm_up()
    first, *rest = bundle.golden
    moved = {**first, "value": first["value"] + 0.1 * bundle.config.network.scale.std}
    with pytest.raises(BundleError, match=r"golden input 1 is 0\.1\d* away"):
        Network(replace(bundle, golden=(moved, *rest)), served).warm_up()
