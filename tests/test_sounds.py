"""A model of images, texts and sounds, from a manifest to answers over HTTP, as a user would make it.

Real processes: the command line trains, a service with one worker answers.
"""

import base64
import io
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from polymodal.model import load_bundle
from polymodal.model.evaluation import evaluate
from polymodal.model.evaluation.page import write_page
from polymodal_client import Client, Item
from tests.serving import running
from tests.sounds import noise, tone, wav

pytest.importorskip("av", reason="PyAV is of the extra audio")
from tests.hostile import sounds

PROJECT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(600)  # a training and a service, in processes of their own, on a busy machine

LABELS = {"bell": ("gold", "rings in a tower"), "sea": ("navy", "waves at the coast")}
SPLITS = {"train": 14, "validation": 14, "test": 14}
SETS = [names for size in (3, 1, 2) for names in combinations(("image", "text", "audio"), size)]
"""Every set of inputs is in every split, of every label."""


def sound_of(label: str, number: int) -> bytes:
    """Return a ring of some pitch and length, or rushing noise, in one of several formats."""
    seconds = 0.4 + 0.1 * (number % 9)
    fade = np.exp(-np.linspace(0, 4, int(seconds * 16_000)))
    ring = tone(seconds, 700 + 40 * (number % 5)) * fade
    samples = ring if label == "bell" else noise(seconds, seed=number, amplitude=0.3)
    match number % 4:
        case 0:
            return wav(samples)
        case 1:
            return wav(np.stack([samples, -samples], axis=1), bits=24)
        case 2:
            return sounds.encoded("flac", "flac", samples)
        case _:
            return sounds.encoded("libopus", "ogg", samples)


def image_of(label: str, number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24 + number, 24), LABELS[label][0]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A manifest with every set of inputs."""
    folder = tmp_path_factory.mktemp("sounds")
    lines = ["image,text,audio,label,split"]
    for split, count in SPLITS.items():
        for label in LABELS:
            for number in range(count):
                name, inputs = f"{split}-{label}-{number}", SETS[number % len(SETS)]
                (folder / f"{name}.png").write_bytes(image_of(label, number))
                (folder / f"{name}.sound").write_bytes(sound_of(label, number))
                cells = {"image": f"{name}.png", "text": LABELS[label][1], "audio": f"{name}.sound"}
                lines.append(",".join([*(cells[key] if key in inputs else "" for key in cells), label, split]))
    (folder / "things.csv").write_text("\n".join(lines) + "\n")
    return folder


def polymodal(folder, *command, check=True):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "polymodal", *map(str, command)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def bundle(folder):
    """Trained by the command line, with 8-bit encoders where they lose nothing."""
    out = folder / "things"
    polymodal(folder, "train", "things.csv", "--preset", "cnn-rnn", "--epochs", "10", "--batch-size", "8", "--out", out)
    return out


@pytest.fixture(scope="module")
def service(folder, bundle):
    with running(cwd=folder, bundles=bundle, workers=1) as service:
        yield service
        service.stop()


def items(label="bell", number=3):
    """Yield an example with each set of inputs, as bytes and text."""
    contents = {"image": image_of(label, number), "text": LABELS[label][1], "audio": sound_of(label, number)}
    for names in SETS:
        yield {name: contents[name] for name in names}


def in_json(item):
    return {name: value if isinstance(value, str) else base64.b64encode(value).decode() for name, value in item.items()}


def test_sounds_are_checked_and_near_duplicates_are_found(folder):
    checked = json.loads(polymodal(folder, "check", "things.csv", "--json").stdout)
    assert checked["errors"] == []
    assert any("recording" in warning and "nearly equal" in warning for warning in checked["warnings"])


def test_a_broken_sound_is_an_error_of_its_row(folder):
    (folder / "broken.wav").write_bytes(b"RIFF\x04\x00\x00\x00WAVE")
    (folder / "broken.csv").write_text("audio,label\nbroken.wav,bell\n")
    done = polymodal(folder, "check", "broken.csv", "--json", check=False)
    (error,) = [error for error in json.loads(done.stdout)["errors"] if "broken.wav" in error]
    assert error.startswith(
        "row 1: audio broken.wav: audio/wav of 12 bytes that is truncated or corrupt; allowed: a whole"
    )


def test_every_set_of_inputs_is_calibrated_and_measured(bundle, folder):
    evaluation = evaluate(load_bundle(bundle, threads=1), folder / "things.csv")
    assert {frozenset(key.split("+")) for key in evaluation.answers} == set(map(frozenset, SETS))
    assert evaluation.metrics["audio"]["accuracy"] > 0.9
    config = json.loads((bundle / "config.json").read_bytes())
    assert len(config["temperatures"]) == 7
    page = write_page(evaluation, {})
    assert "media-src data:" in page


def test_the_bundle_keeps_short_sounds_as_golden_inputs(bundle):
    golden = json.loads((bundle / "golden.json").read_bytes())
    kept = [base64.b64decode(entry["parts"]["audio"]) for entry in golden if "audio" in entry["parts"]]
    assert kept
    assert max(map(len, kept)) < 60_000


def test_the_service_gives_the_scores_of_the_bundle_alone_and_in_batches(service, bundle):
    predictor = load_bundle(bundle, threads=1)
    contents = [*items(), *items("sea", 5)]
    batch = httpx.post(
        f"{service.url}/v1/classify/batch", json={"items": [in_json(item) for item in contents]}, timeout=60
    )
    for item, answered in zip(contents, batch.json()["items"], strict=True):
        single = httpx.post(f"{service.url}/v1/classify", json=in_json(item), timeout=60)
        files = {name: value for name, value in item.items() if isinstance(value, bytes)}
        texts = {name: value for name, value in item.items() if isinstance(value, str)}
        form = (
            httpx.post(f"{service.url}/v1/classify", files=files or None, data=texts, timeout=60) if files else single
        )
        assert single.status_code == 200, single.text
        assert single.json() == form.json() == answered["classification"]
        assert set(single.json()["modalities"]) == set(item)
        (expected,) = predictor.predict([predictor.prepare(item)])
        scores = {entry["label"]: entry["score"] for entry in single.json()["labels"]}
        assert scores == pytest.approx(dict(expected.scores), abs=2e-3)
    labels = [answered["classification"]["labels"][0]["label"] for answered in batch.json()["items"]]
    assert labels == ["bell"] * 7 + ["sea"] * 7


def test_sounds_are_embedded_and_called_by_the_client(service):
    with Client(service.url) as client:
        content = sound_of("sea", 2)
        answer = client.classify(inputs={"audio": content})
        assert answer.best.label == "sea"
        single, (batched,) = (
            client.embed(inputs={"audio": content}),
            client.embed_batch([Item(inputs={"audio": content})]),
        )
        assert single.vector == batched.answer.vector
        (spec,) = [spec for spec in client.models().models[0].inputs if spec.name == "audio"]
        assert "audio/wav" in spec.media_types
        assert spec.limits["max_seconds"] == 600


def test_the_command_line_predicts_from_a_sound(folder, bundle):
    (folder / "ring.flac").write_bytes(sound_of("bell", 2))
    done = polymodal(folder, "predict", bundle, "--audio", "ring.flac", "--json")
    assert json.loads(done.stdout)["labels"][0]["label"] == "bell"


def test_every_bad_sound_gets_its_answer_within_bounded_memory_and_outside_of_the_service(service):
    """No answer is a 5xx, the service itself never loads a decoder, and its worker stays the same process."""
    (worker,) = service.workers()
    assert service.classify(text="waves").status_code == 200
    before = worker.memory_info().rss
    wrong, highest = {}, before
    for sound in sounds.sounds():
        answer = httpx.post(f"{service.url}/v1/classify", files={"audio": ("a.wav", sound.content)}, timeout=120)
        got = sounds.OK if answer.status_code == 200 else f"{answer.status_code} {answer.json()['code']}"
        if got != sound.answer and (sound.answer != sounds.ANY or answer.status_code >= 500):
            wrong[sound.name] = f"{got} instead of {sound.answer}"
        highest = max(highest, worker.memory_info().rss)
    assert wrong == {}
    assert service.workers() == [worker]
    assert (highest - before) / 2**20 < 200
    mapped = {Path(region.path).name for region in psutil.Process(service.process.pid).memory_maps()}
    assert not [name for name in mapped if name.startswith(("libavcodec", "libavformat", "libsndfile"))]
    assert service.classify(text="waves").status_code == 200


def test_a_poisonous_sound_does_not_change_the_answers_of_other_items(service):
    good = [in_json(item) for item in items()]
    alone = [httpx.post(f"{service.url}/v1/classify", json=item, timeout=60).json() for item in good]
    bad = [
        in_json({"audio": sound.content})
        for group in ("strangers", "headers")
        for sound in sounds.GROUPS[group]()
        if sound.answer != sounds.OK
    ]
    answers = httpx.post(
        f"{service.url}/v1/classify/batch", json={"items": good[:3] + bad + good[3:]}, timeout=60
    ).json()["items"]
    answered = [answer["classification"] for answer in answers if "classification" in answer]
    assert answered == alone
    assert sum("problem" in answer for answer in answers) == len(bad) > 20


def test_the_embedded_model_names_which_inputs_it_takes(start_embedded):
    answer = httpx.post(f"{start_embedded.url}/v1/classify", files={"audio": wav(tone())}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_modality")
    assert answer.json()["detail"] == "audio: not an input of this model; allowed: image, text"


@pytest.fixture
def start_embedded():
    with running(workers=1) as service:
        yield service


def test_a_bundle_with_sounds_is_refused_where_none_can_be_decoded(bundle):
    code = """
import sys
from pathlib import Path
sys.modules["soxr"] = None
from polymodal.model import load_bundle
load_bundle(Path(sys.argv[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "sounds can't be decoded, because soxr is not installed; pip install 'polymodal[audio]'" in done.stderr
