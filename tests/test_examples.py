"""The programs of examples/, run as in their README."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.blocks import PROJECT
from tests.documents.runner import POLYMODAL
from tests.serving import running

EXAMPLES = PROJECT / "examples"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def url():
    with running(workers=1) as service:
        yield service.url


def run(*command, **environment):
    """Run a program that succeeds; return its standard output."""
    done = start(*command, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(*command, **environment):
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(list(map(str, command)), env=variables, capture_output=True, text=True, check=False)


def test_a_catalogue_with_missing_inputs_is_classified_by_the_others(url):
    lines = run(sys.executable, EXAMPLES / "catalogue.py", EXAMPLES / "catalogue.csv", "--url", url).splitlines()
    assert [line.split()[0] for line in lines] == [str(article) for article in range(4711, 4718)]
    assert "from image + text" in lines[0]
    assert "from text" in lines[3]
    assert "from image)" in lines[4]
    assert "for a person" in lines[5]
    assert lines[6] == "4717 not classified: Nothing to classify"


def bulk_scores(url, table, out):
    return run(sys.executable, EXAMPLES / "bulk_scores.py", table, out, "--url", url)


def test_bulk_scores_are_those_of_the_command_score(url, tmp_path):
    printed = bulk_scores(url, EXAMPLES / "manifest.csv", tmp_path / "http.csv")
    assert printed == f"{tmp_path / 'http.csv'}: 6 rows\n"
    run(*POLYMODAL, "score", "illustrations", EXAMPLES / "manifest.csv", "--out", tmp_path / "command.csv")
    with (
        (tmp_path / "http.csv").open(encoding="utf-8") as first,
        (tmp_path / "command.csv").open(encoding="utf-8") as second,
    ):
        for by_http, by_command in zip(csv.DictReader(first), csv.DictReader(second), strict=True):
            assert (by_http["row"], by_http["label"]) == (by_command["id"], by_command["label"])
            assert float(by_http["score"]) == pytest.approx(float(by_command["score"]), abs=1e-3)


def test_a_broken_image_is_an_error_of_its_row(url, tmp_path):
    (tmp_path / "words.png").write_text("words", encoding="utf-8")
    # With a byte order mark, as Excel writes it.
    (tmp_path / "table.csv").write_text("image,text\nwords.png,\n,a slice of lime\n", encoding="utf-8-sig")
    bulk_scores(url, tmp_path / "table.csv", tmp_path / "out.csv")
    bad, good = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert bad["error"].startswith("415 unsupported_format: image: bytes of no known picture format")
    assert (good["label"], good["error"]) == ("food", "")


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_javascript_sends_a_form(url):
    program = (NODE, EXAMPLES / "classify.mjs")
    assert re.match(r" *\d+\.\d %  transport\n", run(*program, EXAMPLES / "boat.png", "a sailing dinghy", URL=url))
    failed = start(*program, URL=url)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("422 nothing_given: ")


@pytest.mark.timeout(300)
def test_images_are_found_by_words(aligned_bundle, tmp_path):
    options = ("--bundle", aligned_bundle, "--out", tmp_path, "red", "a blue sea")
    lines = run(sys.executable, EXAMPLES / "search.py", *options, POLYMODAL_WORKERS="1").splitlines()
    names = {path.stem for path in EXAMPLES.glob("*.png")}
    assert [line.split(": ")[0] for line in lines] == ["red", "a blue sea", "boat.png"]
    assert all(hit.split()[0] in names for line in lines for hit in line.split(": ")[1].split(", "))
    assert lines[2].startswith("boat.png: boat 1.00, ")


@pytest.mark.timeout(300)
def test_own_data_becomes_a_service(tmp_path):
    options = ("--out", tmp_path, "--rows", "90", "--epochs", "4")
    printed = run(sys.executable, EXAMPLES / "own_data.py", *options, POLYMODAL_WORKERS="1")
    assert (tmp_path / "report/index.html").is_file()
    answers = re.findall(r"^from (.+): apple|^from (.+): (?:banana|plum)", printed, re.MULTILINE)
    assert ["".join(answer) for answer in answers] == ["image + text", "image", "text"]


def test_the_readme_lists_every_program():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = [path.name for path in Path(EXAMPLES).iterdir() if path.suffix in (".py", ".mjs")]
    assert len(programs) >= 4
    for name in programs:
        assert f"[`{name}`]({name})" in readme
