"""End to end: ten rows → `polymodal train` → bundle → HTTP and `polymodal predict` → the scores of the predictor."""

import base64
import csv
import json
import re
from pathlib import Path

import httpx
import pytest

from polymodal.model import Network, load_bundle
from tests.command_line import polymodal
from tests.in_process import serving

LABELS = ("sea", "tomato")
ROWS_PER_LABEL = {"train": 3, "validation": 2}


@pytest.fixture(scope="module")
def ten_rows(manifest_folder, tmp_path_factory) -> Path:
    """Return the folder of a manifest with only the columns that training needs."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "images").mkdir()
    with (manifest_folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [
        row
        for label in LABELS
        for split, count in ROWS_PER_LABEL.items()
        for row in [row for row in rows if (row["label"], row["split"]) == (label, split)][:count]
    ]
    for row in chosen:
        if row["image"]:
            (folder / row["image"]).write_bytes((manifest_folder / row["image"]).read_bytes())
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["image", "text", "label", "split"], extrasaction="ignore")
        table.writeheader()
        table.writerows(chosen)
    assert len(chosen) == 10
    return folder


@pytest.fixture(scope="module")
def trained(ten_rows) -> Path:
    """Return the bundle that `polymodal train` writes for the ten rows."""
    out = ten_rows / "bundles/ten"
    options = ["--preset", "cnn-rnn", "--fusion", "gated", "--epochs", "2", "--device", "cpu", "--cache", ten_rows]
    result = polymodal("train", ten_rows, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert "# ten" in result.stdout  # the card
    return out


def predicted_scores(predictor: Network, inputs) -> dict[str, float]:
    (prediction,) = predictor.predict([predictor.prepare(inputs)])
    return dict(prediction.scores)


def scores_of(classification) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in classification["labels"]}


def classification_in(response: httpx.Response):
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def image(manifest_folder) -> Path:
    return manifest_folder / "images/test-tomato-0.png"


@pytest.fixture(params=[("image", "text"), ("image",), ("text",)], ids="+".join)
def inputs(request, image):
    """Return an item's inputs: an image, a text, or both."""
    values = {"image": image.read_bytes(), "text": "a ripe fruit"}
    return {name: values[name] for name in request.param}


def as_json(inputs):
    return {**inputs, **({"image": base64.b64encode(inputs["image"]).decode()} if "image" in inputs else {})}


def as_form(inputs):
    return {name: (None, value) if name == "text" else ("photo.png", value) for name, value in inputs.items()}


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
async def test_the_service_returns_the_scores_of_the_predictor(tiny_bundle, inputs, runtime):
    predictor = load_bundle(tiny_bundle, runtime=runtime, threads=1)
    expected = predicted_scores(predictor, inputs)
    async with serving(tiny_bundle, runtime=runtime) as client:
        form = await client.post("/v1/classify", files=as_form(inputs))
        body = await client.post("/v1/classify", json=as_json(inputs))
    for classification in map(classification_in, (form, body)):
        assert scores_of(classification) == pytest.approx(expected, abs=1e-6)
        assert classification["modalities"] == sorted(inputs)
        assert classification["digest"] == predictor.description.digest


async def test_predict_prints_the_response_of_the_service(tiny_bundle, inputs, image):
    options = {"image": ("--image", image), "text": ("--text", inputs.get("text"))}
    result = polymodal("predict", tiny_bundle, *(word for name in inputs for word in options[name]), "--json")
    assert result.exit_code == 0, result.output
    async with serving(tiny_bundle, name="shapes") as client:
        expected = classification_in(await client.post("/v1/classify", json=as_json(inputs)))
    printed = json.loads(result.stdout)
    assert printed == {**expected, "labels": printed["labels"]}
    assert list(scores_of(printed)) == list(scores_of(expected))
    assert scores_of(printed) == pytest.approx(scores_of(expected), abs=1e-6)


@pytest.mark.slow
async def test_ten_rows_become_a_service(trained, image):
    predictor = load_bundle(trained, threads=1)
    both, text = {"image": image.read_bytes(), "text": "a ripe fruit"}, {"text": "red"}
    async with serving(trained) as client:
        assert (await client.get("/readyz")).status_code == 200
        model = (await client.get("/v1/models/ten")).json()
        single = classification_in(await client.post("/v1/classify", files=as_form(both)))
        batch = await client.post("/v1/classify/batch", json={"items": [{"id": "both", **as_json(both)}, text]})
    assert (model["labels"], model["digest"]) == (list(LABELS), predictor.description.digest)
    assert model["card"] == (trained / "README.md").read_text(encoding="utf-8")
    assert model["report"]["training"]["epochs"] == 2
    assert "gated" in model["card"]
    assert scores_of(single) == pytest.approx(predicted_scores(predictor, both), abs=1e-6)
    for item, inputs in zip(batch.json()["items"], (both, text), strict=True):
        assert scores_of(item["classification"]) == pytest.approx(predicted_scores(predictor, inputs), abs=1e-4)


async def test_a_cached_embedding_does_not_change_the_scores(tiny_bundle, image):
    predictor = load_bundle(tiny_bundle, threads=1)
    async with serving(tiny_bundle, embedding_cache_bytes=2**20) as client:
        for text in ("red", "a ripe fruit", "deep water"):
            inputs = {"image": image.read_bytes(), "text": text}
            classification = classification_in(await client.post("/v1/classify", files=as_form(inputs)))
            assert scores_of(classification) == pytest.approx(predicted_scores(predictor, inputs), abs=1e-6)
        metrics = (await client.get("/metrics")).text
    for modality, result, count in (("image", "hit", 2), ("image", "miss", 1), ("text", "miss", 3)):
        labels = f'modality="{modality}",result="{result}"'
        assert f"polymodal_embedding_cache_requests_total{{{labels}}} {count}.0" in metrics
    (used,) = re.findall(r"^polymodal_embedding_cache_bytes (\S+)$", metrics, re.MULTILINE)
    assert 0 < float(used) <= 2**20


async def test_the_service_recognises_what_was_learned(tiny_bundle):
    async with serving(tiny_bundle) as client:
        for text, label in (("red, ripe fruit", "tomato"), ("blue, deep water", "sea")):
            response = await client.post("/v1/classify", json={"text": text, "top_k": 1})
            assert list(scores_of(classification_in(response))) == [label]
