"""`polymodal train | check`: errors of options and manifests are explained, and Ctrl-C loses nothing."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from polymodal.app.commands.command import FAILED, INTERRUPTED
from polymodal.model import load_bundle
from tests.command_line import assert_explained, polymodal

PROJECT = Path(__file__).parents[2]


WRONG_OPTIONS = {
    "--preset abacus": "preset 'abacus' is not known; known are cnn-rnn, pretrained",
    "--fusion confusion": "fusion 'confusion' is not known; known are sum, product, concat, gated, low-rank-bilinear, cross-",
    "--image-encoder abacus": "image encoder 'abacus' is not known; known are cnn, efficientnet-lite0,",
    "--text-encoder ./nowhere": "./nowhere: no such folder; expected a model's folder",
    "--augment sound": "augment sound: not known; known are image, text, none",
    "--freeze sound": "freeze sound: not known; known are image, text, none",
    "--freeze none --freeze text": "freeze none, text: none excludes the others",
    "--freeze image": "freeze image: no trained weights for",
    "--name 'My Model'": "'My Model'",
    "--task sorting": "target 'sorting' is not known; known are single-label, multi-label, regression",
    "--class-weights lava=2": "'lava=2'; allowed for this single-label data: none",
    "--task regression": "48 × label …: line 2 ('sea'), line 3 ('sea'),",
    "--device cpu --precision fp16": "precision: 'fp16' on cpu; allowed",
    "--resume": "no checkpoint to resume from",
}


@pytest.mark.parametrize("options", WRONG_OPTIONS)
def test_a_wrong_option_is_explained(manifest_folder, tmp_path, options):
    preset = "" if "--preset" in options else "--preset cnn-rnn "
    out = tmp_path / "out"
    result = polymodal("train", manifest_folder, "--out", out, "--cache", tmp_path, *shlex.split(preset + options))
    assert_explained(result, WRONG_OPTIONS[options])
    assert not out.exists()


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        pytest.param([f"{number}.5" for number in range(60)], "did you mean --target regression?", id="numbers"),
        pytest.param(["red|green", "red", "green|blue"] * 20, "did you mean --target multi-label?", id="several"),
    ],
)
def test_labels_that_look_like_another_target_get_a_warning(tmp_path, labels, hint):
    rows = [f"text {number},{label},train" for number, label in enumerate(labels)]
    (tmp_path / "manifest.csv").write_text("\n".join(["text,label,split", *rows]) + "\n", encoding="utf-8")
    result = polymodal("train", tmp_path / "manifest.csv", "--out", tmp_path / "out", "--preset", "cnn-rnn")
    assert_explained(result, "warning: ", hint)  # there are no validation rows


def test_a_missing_manifest_is_wrong_usage(tmp_path):
    result = polymodal("train", tmp_path / "nowhere.csv", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "nowhere.csv" in re.sub(r"[│\s]", "", result.output)  # in a box, which breaks long paths


def test_all_problems_of_a_manifest_are_reported_at_once(tmp_path):
    lines = ["image,text,label", "lost.png,words,sea", ",,sea", "../outside.png,words,tomato", ",words,"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = polymodal("train", tmp_path / "manifest.csv", "--out", tmp_path / "out", "--preset", "cnn-rnn")
    assert_explained(result, "4 problems", "lost.png", "none of image, text, audio", "outside.png", "no label")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        pytest.param([("sea", "train"), ("sea", "validation")], "only one label", id="one-label"),
        pytest.param([("sea", "train"), ("tomato", "train")], "no rows in the validation split", id="no-validation"),
        pytest.param(
            [("sea", "train"), ("tomato", "validation")],
            "label 'tomato' has no rows in the train split",
            id="unlearned",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_explained(tmp_path, rows, problem):
    lines = ["text,label,split", *(f"some words,{label},{split}" for label, split in rows)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert_explained(polymodal("train", tmp_path, "--out", tmp_path / "out", "--preset", "cnn-rnn"), problem)


def test_a_manifest_without_errors_is_summarised(manifest_folder):
    result = polymodal("check", manifest_folder)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[:2]] == [
        ["label", "train", "validation", "test"],
        ["sea", "12", "6", "6"],
    ]
    assert result.stdout.splitlines()[-1].startswith("0 errors, ")
    summary = json.loads(polymodal("check", manifest_folder, "--json").stdout)
    assert summary["rows"] == {"train": 24, "validation": 12, "test": 12}
    assert summary["labels"]["train"] == {"sea": 12, "tomato": 12}
    assert summary["errors"] == []


def test_check_groups_equal_errors_and_fails(tmp_path):
    lines = ["image,text,label", *(f"{number}.png,words,sea" for number in range(30))]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = polymodal("check", tmp_path)
    assert result.exit_code == FAILED
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("error: 30 × image … is not there")]
    assert "line 2 ('0.png'), line 3 ('1.png'), line 4 ('2.png') and 27 more; allowed: a file below" in line
    assert result.stdout.splitlines()[-1].startswith("31 errors, ")
    as_json = polymodal("check", tmp_path, "--json")
    assert as_json.exit_code == FAILED
    errors = " ".join(json.loads(as_json.stdout)["errors"])
    assert all(f"line {number + 2}: image '{number}.png' is not there" in errors for number in range(30))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from polymodal.app.cli import main
main()
"""


def test_training_without_torch_names_the_missing_package(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, "train", str(tmp_path), "--out", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("polymodal: the package torch is not installed; `make setup`")
    assert "Traceback" not in result.stderr


TRAINING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background inherits that SIGINT is ignored
from polymodal.app.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interrupted_and_resumed_training_has_the_weights_of_an_uninterrupted_one(
    manifest_folder, tiny_bundle, tmp_path, monkeypatch
):
    out = tmp_path / "shapes"
    options = ["--preset", "cnn-rnn", "--epochs", "6", "--batch-size", "8", "--device", "cpu", "--workers", "1"]
    arguments = ["train", str(manifest_folder), "--out", str(out), "--cache", str(tmp_path), *options]
    command = [sys.executable, "-c", TRAINING, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            printed = []
            for line in process.stderr:
                printed.append(line)
                if line.startswith("epoch 2:"):
                    process.send_signal(signal.SIGINT)
            assert process.wait(60) == INTERRUPTED, "".join(printed)
        finally:
            process.kill()
    assert "Traceback" not in "".join(printed)
    assert not out.exists()
    assert (tmp_path / "shapes.run/checkpoint.pt").exists()

    # Without the export, which takes seconds and does not change the weights.
    monkeypatch.setattr(import_module("polymodal.model.training.train"), "export_graphs", lambda *_: {})
    resumed = polymodal(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert re.search(r"resuming after epoch [23]\b", resumed.stderr)
    for file in ("weights.safetensors", "tokenizer.json", "config.json"):
        assert (out / file).read_bytes() == (tiny_bundle / file).read_bytes(), file
    report = load_bundle(out, threads=1).description.report
    assert report["training"] == load_bundle(tiny_bundle, threads=1).description.report["training"]
