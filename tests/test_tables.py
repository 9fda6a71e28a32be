"""A modality and a task that tests add to the tables are trained on, served, documented and called without other changes.

Real processes, as a user would start them. Python runs `sitecustomize` at the start of each, which is all that adds the toys
to their tables: the command line, the service and its workers are those of every user.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from polymodal_client import AsyncClient, Client, Item
from tests.serving import running

PROJECT = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("polymodal")
pytestmark = pytest.mark.timeout(300)  # a training and a service, in processes of their own, on a busy machine

SPLITS = {"train": 24, "validation": 8, "test": 8}
LOUD, QUIET = bytes([250] * 8), bytes([20] * 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of loud and quiet tones, half of them with a text, and the module that registers the toys."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "sitecustomize.py").write_text("import tests.toys.registered\n")
    (folder / "tones").mkdir()
    chance = np.random.default_rng(0)
    lines = ["tone,text,label,split"]
    for split, count in SPLITS.items():
        for number in range(count):
            label = ("quiet", "loud")[number % 2]
            samples = chance.integers(0, 60, 8) + (190 if label == "loud" else 0)
            (folder / f"tones/{split}{number}.tone").write_bytes(samples.astype(np.uint8).tobytes())
            lines.append(f"tones/{split}{number}.tone,{'a note' if number % 4 < 2 else ''},{label},{split}")
    (folder / "things.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def environment(folder):
    paths = os.pathsep.join(map(str, (folder, PROJECT)))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def bundle(folder, environment):
    """Trained by the command line."""
    out = folder / "tones-model"
    command = ["train", "things.csv", "--preset", "cnn-rnn", "--epochs", "8", "--out", str(out), "--no-int8"]
    done = run(folder, environment, *command, "--tone-encoder", "loud")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def address(folder, environment, bundle):
    """Of a service with one worker process."""
    paths = {"PYTHONPATH": environment["PYTHONPATH"]}
    with running(cwd=folder, env=paths, bundles=bundle, workers=1) as service:
        yield service.url
        service.stop()


def run(folder, environment, *command):
    return subprocess.run(
        [str(PROGRAM), *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_command_line_checks_and_predicts_the_toy_modality(folder, environment, bundle):
    checked = run(folder, environment, "check", "things.csv", "--json")
    assert json.loads(checked.stdout)["errors"] == [], checked.stdout
    (folder / "loud.tone").write_bytes(LOUD)
    for option in (["--tone", "loud.tone"], ["--input", "tone=loud.tone"]):
        done = run(folder, environment, "predict", str(bundle), *option, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["labels"][0]["label"] == "loud"
    assert "--tone-encoder" in run(folder, environment, "train", "--help").stdout


def test_the_command_line_embeds_the_toy_modality(folder, environment, bundle):
    done = run(folder, environment, "embed", str(bundle), "things.csv", "--out", "vectors.jsonl", "--restart")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "vectors.jsonl").read_text().splitlines()]
    assert len(rows) == sum(SPLITS.values())
    assert np.linalg.norm(rows[0]["tone"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("tone", "label"), [(LOUD, "loud"), (QUIET, "quiet")])
def test_the_toy_modality_is_served_in_forms_json_and_batches(address, tone, label):
    encoded = base64.b64encode(tone).decode()
    form = httpx.post(f"{address}/v1/classify", files={"tone": tone}, data={"text": "a note"})
    single = httpx.post(f"{address}/v1/classify", json={"tone": encoded, "text": "a note"})
    batch = httpx.post(
        f"{address}/v1/classify/batch", json={"items": [{"tone": encoded, "text": "a note"}, {"tone": "AA=="}]}
    )
    assert form.status_code == 200, form.text
    assert form.json() == single.json() == batch.json()["items"][0]["classification"]
    assert form.json()["labels"][0]["label"] == label
    assert form.json()["modalities"] == ["text", "tone"]
    assert batch.json()["items"][1]["problem"]["input"] == "tone"


def test_the_limit_of_the_toy_modality_holds_while_it_is_read(address):
    answer = httpx.post(f"{address}/v1/classify", files={"tone": bytes(65)})
    assert (answer.status_code, answer.json()["found"]) == (413, "more than 64 bytes")


def test_the_toy_task_is_served_with_options_that_reach_the_worker(address):
    encoded = base64.b64encode(LOUD).decode()
    plain = httpx.post(f"{address}/v1/measure", json={"tone": encoded}).json()
    halved = httpx.post(f"{address}/v1/measure", json={"tone": encoded, "unit": 2.0}).json()
    assert halved["lengths"]["tone"] == pytest.approx(plain["lengths"]["tone"] / 2, abs=1e-5)
    batch = httpx.post(
        f"{address}/v1/measure/batch", json={"unit": 2, "items": [{"tone": encoded}, {"text": ""}]}
    ).json()
    assert batch["items"][0]["measurement"] == halved
    assert batch["items"][1]["problem"]["code"] == "nothing_given"
    wrong = httpx.post(f"{address}/v1/measure", json={"tone": encoded, "unit": "mile"})
    assert (wrong.status_code, wrong.json()["allowed"]) == (422, "a number above 0")


def test_toy_modality_and_task_are_documented(address):
    document = httpx.get(f"{address}/openapi.json").json()
    assert {"/v1/measure", "/v1/measure/batch"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert {"tone", "unit", "model"} <= set(schemas["MeasureBody"]["properties"])
    assert schemas["ClassifyForm"]["properties"]["tone"]["format"] == "binary"
    assert "lengths" in schemas["Measurement"]["properties"]
    (model,) = httpx.get(f"{address}/v1/models").json()["models"]
    assert model["tasks"] == ["classify", "embed", "measure"]
    assert [spec["name"] for spec in model["inputs"]] == ["text", "tone"]


def test_toy_modality_and_task_have_metrics(address):
    httpx.post(f"{address}/v1/measure", files={"tone": LOUD})
    metrics = httpx.get(f"{address}/metrics").text
    assert 'http_route="/v1/measure"' in metrics
    assert 'stage="encode_tone"' in metrics


async def test_the_client_calls_toy_modality_and_task(address):
    with Client(address) as client:
        answer = client.classify(inputs={"tone": LOUD})
        assert answer.best.label == "loud"
        assert (
            client.embed(inputs={"tone": LOUD}).vector
            == client.embed_batch([Item(inputs={"tone": LOUD})])[0].answer.vector
        )
        measured = client.call("measure", inputs={"tone": LOUD}, options={"unit": 2.0})
        assert measured["modalities"] == ["tone"]
    async with AsyncClient(address) as client:
        assert await client.call("measure", inputs={"tone": LOUD}, options={"unit": 2.0}) == measured
