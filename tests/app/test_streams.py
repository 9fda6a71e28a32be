"""Commands with any kind of standard output: each ends with its result or with one message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MAIN = "from polymodal.app.cli import main; main()"
NARROW = [
    pytest.param({"PYTHONIOENCODING": "ascii"}, "ascii", id="ascii"),
    pytest.param({"PYTHONIOENCODING": "latin-1"}, "latin-1", id="latin-1"),
    pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii", id="c-locale"),
]


def polymodal(*arguments, environment=None, **options):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        cwd=PROJECT,
        env={**kept, **(environment or {})},
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@pytest.fixture
def manifest(tmp_path):
    """Labels in Latin, Cyrillic and emoji, in a file whose name isn't UTF-8."""
    rows = [
        f"words {n},{label},{split}"
        for split in ("train", "validation")
        for n, label in enumerate(["Möbel", "кот", "😀"])
    ]
    path = tmp_path / "größe \udcff.csv"
    path.write_text("\n".join(["text,label,split", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("environment", "encoding"), NARROW)
def test_characters_that_an_encoding_lacks_are_escaped(manifest, environment, encoding):
    done = polymodal("check", manifest, environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert "\\u043a\\u043e\\u0442" in shown
    assert ("Möbel" if encoding == "latin-1" else "M\\u00f6bel") in shown


@pytest.mark.parametrize(("environment", "encoding"), NARROW)
def test_json_has_the_same_values_in_every_encoding(manifest, environment, encoding):
    done = polymodal("check", manifest, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.decode(encoding))["labels"]["train"]) == {"Möbel", "кот", "😀"}


@pytest.mark.parametrize(("environment", "encoding"), NARROW)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["card"], 0, id="card"),
        pytest.param(["sevre"], 2, id="usage"),
    ],
)
def test_exit_codes_do_not_depend_on_the_encoding(arguments, code, environment, encoding):
    done = polymodal(*arguments, environment=environment)
    assert done.returncode == code, done.stderr
    assert done.stdout.decode(encoding).strip() or done.stderr.decode(encoding).strip()
    assert b"Traceback" not in done.stderr


def test_a_file_name_that_is_not_utf8_is_escaped(manifest):
    done = polymodal("evaluate", manifest.parent / "no bundle \udcff", manifest)
    assert (done.returncode, b"no bundle \\udcff: no such folder" in done.stderr) == (1, True), done.stderr


SHOWN = [
    pytest.param(["--version"], id="line"),
    pytest.param(["card"], id="card"),
    pytest.param(["predict", "--text", "a boat"], id="table"),
]


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_command_whose_reader_has_gone_ends_without_a_message(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = polymodal(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", SHOWN)
def test_a_full_disk_is_one_message(arguments):
    with Path("/dev/full").open("wb") as full:
        done = polymodal(*arguments, stdout=full)
        silent = polymodal(*arguments, stdout=full, stderr=full)
    assert (done.returncode, silent.returncode) == (1, 1)
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("polymodal: ")
    assert line.endswith("No space left on device")


def test_standard_output_may_be_closed():
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" card >&-', sys.executable, MAIN], cwd=PROJECT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
