"""The main job from end to end: ten rows → train → bundle → HTTP → the same scores as the predictor."""

import base64
import csv
import re
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from polymodal.app.cli import app as command_line
from polymodal.app.main import create_app
from polymodal.app.settings import Settings
from polymodal.model import Network, load_bundle

LABELS = ("sea", "tomato")
TRAINING, VALIDATION = 3, 2  # rows of each label


@pytest.fixture(scope="module")
def ten_rows(manifest_folder, tmp_path_factory) -> Path:
    """A manifest as a user would write it: pictures, words and a label, and no more."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "images").mkdir()
    with (manifest_folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [
        row
        for label in LABELS
        for split, count in (("train", TRAINING), ("validation", VALIDATION))
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
    """The bundle that `polymodal train` makes of them."""
    out = ten_rows / "bundles/ten"
    options = ["--preset", "cnn-rnn", "--fusion", "gated", "--epochs", "2", "--device", "cpu", "--cache", str(ten_rows)]
    result = CliRunner().invoke(command_line, ["train", str(ten_rows), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "# ten" in result.stdout  # the card
    return out


@asynccontextmanager
async def serving(bundle: Path, runtime: str = "auto", **options):
    settings = Settings(
        **{"workers": 0, **options},
        bundles=f"{bundle.name}={bundle}",
        runtime=runtime,
        inference_threads=1,
        request_timeout_ms=60_000,
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


def expected(predictor: Network, parts) -> dict[str, float]:
    (prediction,) = predictor.predict([predictor.prepare(parts)])
    return dict(prediction.scores)


def scores_in(answer: httpx.Response) -> dict[str, float]:
    assert answer.status_code == 200, answer.text
    return {entry["label"]: entry["score"] for entry in answer.json()["labels"]}


@pytest.fixture(scope="module")
def picture(manifest_folder) -> bytes:
    return (manifest_folder / "images/test-tomato-0.png").read_bytes()


SETS = [("image", "text"), ("image",), ("text",)]


@pytest.mark.parametrize("given", SETS, ids="+".join)
@pytest.mark.parametrize("runtime", ["onnx", "torch"])
async def test_the_service_says_what_the_predictor_says(tiny_bundle, picture, given, runtime):
    predictor = load_bundle(tiny_bundle, runtime=runtime, threads=1)
    parts = {name: part for name, part in {"image": picture, "text": "a ripe fruit"}.items() if name in given}
    form = {"files": {"image": ("photo.png", picture)} if "image" in given else None}
    form["data"] = {"text": parts["text"]} if "text" in given else None
    if "image" not in given:
        form["files"] = {"text": (None, parts["text"])}
        form["data"] = None
    body = {**parts, **({"image": base64.b64encode(picture).decode()} if "image" in given else {})}
    async with serving(tiny_bundle, runtime) as client:
        answers = [await client.post("/v1/classify", **form), await client.post("/v1/classify", json=body)]
    for answer in answers:
        assert scores_in(answer) == pytest.approx(expected(predictor, parts), abs=1e-6)
        assert answer.json()["modalities"] == sorted(given)
        assert answer.json()["digest"] == predictor.description.digest


async def test_ten_rows_become_a_service(trained, ten_rows, picture):
    predictor = load_bundle(trained, threads=1)
    parts = {"image": picture, "text": "a ripe fruit"}
    async with serving(trained) as client:
        ready = await client.get("/readyz")
        described = (await client.get("/v1/models/ten")).json()
        answer = await client.post("/v1/classify", files={"image": picture}, data={"text": parts["text"]})
        items = [{"id": "both", "image": base64.b64encode(picture).decode(), "text": parts["text"]}, {"text": "red"}]
        batch = await client.post("/v1/classify/batch", json={"items": items})
    assert ready.status_code == 200
    assert described["labels"] == list(LABELS)
    assert described["digest"] == predictor.description.digest
    assert described["card"] == (trained / "README.md").read_text(encoding="utf-8")
    assert described["report"]["training"]["epochs"] == 2
    assert "gated" in described["card"]
    assert scores_in(answer) == pytest.approx(expected(predictor, parts), abs=1e-6)
    both, text = (item["classification"]["labels"] for item in batch.json()["items"])
    for found, given in ((both, parts), (text, {"text": "red"})):
        found_scores = {entry["label"]: entry["score"] for entry in found}
        assert found_scores == pytest.approx(expected(predictor, given), abs=1e-4)


async def test_a_kept_picture_is_answered_as_if_it_were_new(tiny_bundle, picture):
    predictor = load_bundle(tiny_bundle, threads=1)
    async with serving(tiny_bundle, embedding_cache_bytes=2**20) as client:
        for text in ("red", "a ripe fruit", "deep water"):
            answer = await client.post("/v1/classify", files={"image": picture}, data={"text": text})
            parts = {"image": picture, "text": text}
            assert scores_in(answer) == pytest.approx(expected(predictor, parts), abs=1e-6)
        measured = (await client.get("/metrics")).text
    assert 'polymodal_embedding_cache_requests_total{modality="image",result="hit"} 2.0' in measured
    assert 'polymodal_embedding_cache_requests_total{modality="image",result="miss"} 1.0' in measured
    assert 'polymodal_embedding_cache_requests_total{modality="text",result="miss"} 3.0' in measured
    (used,) = re.findall(r"^polymodal_embedding_cache_bytes (\S+)$", measured, re.MULTILINE)
    assert 0 < float(used) <= 2**20


async def test_what_was_learned_is_recognised_over_http(tiny_bundle):
    async with serving(tiny_bundle) as client:
        for text, label in (("red, ripe fruit", "tomato"), ("blue, deep water", "sea")):
            answer = await client.post("/v1/classify", json={"text": text, "top_k": 1})
            assert list(scores_in(answer)) == [label]


async def test_a_picture_that_the_predictor_refuses_is_refused_by_the_service(tiny_bundle):
    async with serving(tiny_bundle) as client:
        answer = await client.post("/v1/classify", files={"image": b"words"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["input"] == "image"
