"""The programs of examples/, run as their README says."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.blocks import PROJECT
from tests.documents.reader import POLYMODAL
from tests.serving import running

EXAMPLES = PROJECT / "examples"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def url():
    with running(workers=1) as service:
        yield service.url


def run(*command, **environment):
    told = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return told.returncode, told.stdout, told.stderr


def test_a_catalogue_with_gaps_is_classified_as_far_as_it_goes(url):
    status, told, errors = run(sys.executable, EXAMPLES / "catalogue.py", EXAMPLES / "catalogue.csv", "--url", url)
    assert status == 0, errors
    lines = told.splitlines()
    assert [line.split()[0] for line in lines] == [str(article) for article in range(4711, 4718)]
    assert "from image + text" in lines[0]
    assert "from text" in lines[3]
    assert "from image)" in lines[4]
    assert "for a person" in lines[5]
    assert lines[6] == "4717 not classified: Nothing to classify"


def test_many_rows_are_scored_as_the_command_scores_them(url, tmp_path):
    status, told, errors = run(
        sys.executable, EXAMPLES / "bulk_scores.py", EXAMPLES / "manifest.csv", tmp_path / "http.csv", "--url", url
    )
    assert (status, told) == (0, f"{tmp_path / 'http.csv'}: 6 rows\n"), errors
    command = ("score", "illustrations", EXAMPLES / "manifest.csv", "--out", tmp_path / "command.csv")
    assert run(*POLYMODAL, *command)[0] == 0
    with (
        (tmp_path / "http.csv").open(encoding="utf-8") as first,
        (tmp_path / "command.csv").open(encoding="utf-8") as second,
    ):
        for mine, theirs in zip(csv.DictReader(first), csv.DictReader(second), strict=True):
            assert (mine["row"], mine["label"]) == (theirs["id"], theirs["label"])
            assert float(mine["score"]) == pytest.approx(float(theirs["score"]), abs=1e-3)


def test_a_picture_that_is_none_has_its_own_error_in_the_table(url, tmp_path):
    (tmp_path / "words.png").write_text("words", encoding="utf-8")
    (tmp_path / "table.csv").write_text(
        "image,text\nwords.png,\n,a slice of lime\n", encoding="utf-8-sig"
    )  # as Excel does
    status, _, errors = run(
        sys.executable, EXAMPLES / "bulk_scores.py", tmp_path / "table.csv", tmp_path / "out.csv", "--url", url
    )
    assert status == 0, errors
    bad, good = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert bad["error"].startswith("415 unsupported_format: image: bytes of no known picture format")
    assert (good["label"], good["error"]) == ("food", "")


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_javascript_asks_with_a_form(url):
    program = (NODE, EXAMPLES / "classify.mjs")
    status, told, errors = run(*program, EXAMPLES / "boat.png", "a sailing dinghy", URL=url)
    assert status == 0, errors
    assert re.match(r" *\d+\.\d %  transport\n", told)
    status, told, errors = run(*program, URL=url)
    assert (status, told) == (1, "")
    assert errors.startswith("422 nothing_given: ")


@pytest.mark.timeout(300)
def test_own_data_become_a_service(tmp_path):
    status, told, errors = run(
        sys.executable,
        EXAMPLES / "own_data.py",
        "--out",
        tmp_path,
        "--rows",
        "90",
        "--epochs",
        "4",
        POLYMODAL_WORKERS="1",
    )
    assert status == 0, errors
    assert (tmp_path / "report/index.html").is_file()
    answers = re.findall(r"^from (.+): apple|^from (.+): (?:banana|plum)", told, re.MULTILINE)
    assert ["".join(answer) for answer in answers] == ["image + text", "image", "text"]


def test_every_program_is_explained():
    explained = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = [path.name for path in Path(EXAMPLES).iterdir() if path.suffix in (".py", ".mjs")]
    assert len(programs) >= 4
    for name in programs:
        assert f"[`{name}`]({name})" in explained
