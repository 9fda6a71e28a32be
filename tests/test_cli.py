"""The command line: what it says when something is wrong, and that Ctrl-C loses nothing."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polymodal.app.cli import app
from polymodal.app.commands.command import INTERRUPTED
from polymodal.model import load_bundle
from tests.serving import Service

PROJECT = Path(__file__).parents[1]


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def assert_explained(result):
    """One message, perhaps after warnings about the data, and exit code 1: nothing of Python."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert lines[0].startswith("polymodal: ")


def test_help_names_the_commands():
    result = polymodal("--help")
    assert result.exit_code == 0
    for command in (
        "serve",
        "train",
        "check",
        "evaluate",
        "export",
        "predict",
        "score",
        "card",
        "tune",
        "doctor",
        "data",
        "keys",
    ):
        assert command in result.output


COMMANDS = [
    *((name,) for name in ("serve", "train", "check", "evaluate", "export", "predict", "score", "card")),
    ("data", "illustrations"),
    ("data", "shapes"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    result = polymodal(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            ["--preset", "abacus"], "preset 'abacus' is not known; known are cnn-rnn, pretrained", id="preset"
        ),
        pytest.param(
            ["--fusion", "confusion"],
            "fusion 'confusion' is not known; known are sum, product, concat, gated, low-rank-bilinear, cross-attention",
            id="fusion",
        ),
        pytest.param(
            ["--image-encoder", "abacus"],
            "image encoder 'abacus' is not known; known are cnn, efficientnet-lite0,",
            id="image-encoder",
        ),
        pytest.param(
            ["--text-encoder", "./nowhere"], "./nowhere: no such folder; expected a model's folder", id="text-encoder"
        ),
        pytest.param(
            ["--augment", "sound"], "augment sound: not known; known are image, text, none", id="augment-unknown"
        ),
        pytest.param(
            ["--freeze", "sound"], "freeze sound: not known; known are image, text, none", id="freeze-unknown"
        ),
        pytest.param(
            ["--freeze", "none", "--freeze", "text"], "freeze none, text: none excludes the others", id="freeze-none"
        ),
        pytest.param(
            ["--freeze", "image"], "freeze image: no trained weights for", id="freeze-what-starts-from-scratch"
        ),
        pytest.param(["--name", "My Model"], "'My Model'", id="name"),
        pytest.param(
            ["--task", "sorting"],
            "target 'sorting' is not known; known are single-label, multi-label, regression",
            id="task",
        ),
        pytest.param(["--class-weights", "lava=2"], "'lava=2'; allowed for this single-label data: none", id="weights"),
        pytest.param(["--task", "regression"], "48 × label …: line 2 ('sea'), line 3 ('sea'),", id="no-numbers"),
        pytest.param(["--device", "cpu", "--precision", "fp16"], "precision: 'fp16' on cpu; allowed", id="precision"),
        pytest.param(["--resume"], "no checkpoint to resume from", id="nothing-to-resume"),
    ],
)
def test_a_wrong_option_is_explained(manifest_folder, tmp_path, options, message):
    preset = [] if "--preset" in options else ["--preset", "cnn-rnn"]
    result = polymodal("train", manifest_folder, "--out", tmp_path / "out", "--cache", tmp_path, *preset, *options)
    assert_explained(result)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["--device", "abacus"],
        ["--precision", "int3"],
        ["--epochs", "0"],
        ["--batch-size", "1"],
        ["--workers", "0"],
        ["--seed", "x"],
    ],
)
def test_a_number_out_of_bounds_is_refused(manifest_folder, tmp_path, option):
    assert polymodal("train", manifest_folder, "--out", tmp_path / "out", *option).exit_code == 2


@pytest.mark.parametrize(
    ("labels", "doubt"),
    [
        pytest.param([f"{number}.5" for number in range(60)], "did you mean --target regression?", id="numbers"),
        pytest.param(["red|green", "red", "green|blue"] * 20, "did you mean --target multi-label?", id="several"),
    ],
)
def test_labels_that_look_like_another_task_are_warned_of(tmp_path, labels, doubt):
    rows = [f"text {number},{label},train" for number, label in enumerate(labels)]
    (tmp_path / "manifest.csv").write_text("\n".join(["text,label,split", *rows]) + "\n", encoding="utf-8")
    result = polymodal("train", tmp_path / "manifest.csv", "--out", tmp_path / "out", "--preset", "cnn-rnn")
    assert result.exit_code == 1  # no validation part
    assert "warning: " in result.stderr
    assert doubt in " ".join(result.stderr.split())


def test_a_manifest_that_is_not_there_is_refused(tmp_path):
    result = polymodal("train", tmp_path / "nowhere.csv", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "nowhere.csv" in re.sub(r"[│\s]", "", result.output)  # in a box, where a long path is broken


def test_everything_wrong_with_a_manifest_is_said_at_once(tmp_path):
    lines = ["image,text,label", "lost.png,words,sea", ",,sea", "../outside.png,words,tomato", ",words,"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = polymodal("train", tmp_path / "manifest.csv", "--out", tmp_path / "out", "--preset", "cnn-rnn")
    assert_explained(result)
    assert "4 problems" in result.stderr
    for problem in ("lost.png", "neither image nor text", "outside.png", "no label"):
        assert problem in result.stderr


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        pytest.param([("sea", "train"), ("sea", "validation")], "only one label", id="one-label"),
        pytest.param([("sea", "train"), ("tomato", "train")], "no rows in the validation part", id="no-validation"),
        pytest.param(
            [("sea", "train"), ("tomato", "validation")], "label 'tomato' has no rows in the train part", id="unlearned"
        ),
    ],
)
def test_data_that_cannot_be_trained_on_are_explained(tmp_path, rows, problem):
    with (tmp_path / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "split"])
        table.writerows(("some words", *row) for row in rows)
    result = polymodal("train", tmp_path, "--out", tmp_path / "out", "--preset", "cnn-rnn")
    assert_explained(result)
    assert problem in result.stderr


def test_a_sound_manifest_is_checked_without_training(manifest_folder, tmp_path):
    result = polymodal("check", manifest_folder)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[:2]] == [
        ["label", "train", "validation", "test"],
        ["sea", "12", "6", "6"],
    ]
    assert result.stdout.splitlines()[-1].startswith("0 errors, ")


def test_a_check_counts_equal_errors_names_the_first_and_fails(tmp_path):
    lines = ["image,text,label", *(f"{number}.png,words,sea" for number in range(30))]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = polymodal("check", tmp_path)
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("error: 30 × image … is not there")]
    assert "line 2 ('0.png'), line 3 ('1.png'), line 4 ('2.png') and 27 more; allowed: a file below" in line
    assert result.stdout.splitlines()[-1].startswith("31 errors, ")
    each = json.loads(polymodal("check", tmp_path, "--json").stdout)["errors"]
    assert [f"line {number + 2}: image '{number}.png' is not there" in " ".join(each) for number in range(30)] == [
        True
    ] * 30


def test_serve_says_everything_that_is_wrong_with_the_settings():
    result = polymodal("serve", POLYMODAL_PORT="99999", POLYMODAL_RUNTIME="abacus", POLYMODAL_QEUE_LIMIT="3")
    assert_explained(result)
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for variable in ("POLYMODAL_PORT", "POLYMODAL_RUNTIME", "POLYMODAL_QEUE_LIMIT"):
        assert any(line.startswith(f"polymodal: {variable}") for line in lines)


def test_serve_refuses_a_folder_that_is_no_bundle(tmp_path):
    # In a process of its own: serving takes over the log of the whole process.
    with Service(bundles=f"mine={tmp_path}", workers=1) as service:
        assert service.wait() == 1
        (line,) = service.log.splitlines()
    assert "SHA256SUMS is missing" in line


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from polymodal.app.cli import main
main()
"""


def test_an_installation_that_can_only_serve_says_what_training_needs(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, "train", str(tmp_path), "--out", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("polymodal: the package torch is not installed; `make setup`")
    assert "Traceback" not in result.stderr


TRAINING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us in the background ignores it, and we inherit that
from polymodal.app.cli import main
main()
"""


@pytest.mark.timeout(300)
def test_ctrl_c_loses_nothing(manifest_folder, tiny_bundle, tmp_path, monkeypatch):
    """Interrupted after two epochs and resumed, the command line ends with the weights of the uninterrupted run."""
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

    # Exporting takes seconds, and the weights are the same without.
    monkeypatch.setattr(import_module("polymodal.model.training.train"), "export_graphs", lambda *_: {})
    resumed = polymodal(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert re.search(r"resuming after epoch [23]\b", resumed.stderr)
    for file in ("weights.safetensors", "tokenizer.json", "config.json"):
        assert (out / file).read_bytes() == (tiny_bundle / file).read_bytes(), file
    report = load_bundle(out, threads=1).description.report
    assert report["training"] == load_bundle(tiny_bundle, threads=1).description.report["training"]
