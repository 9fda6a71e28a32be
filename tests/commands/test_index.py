"""`polymodal index`: what it prints, writes and refuses."""

import json

import pytest

from polymodal.app.commands.command import BAD_ROWS
from polymodal.model import read_index
from tests.command_line import assert_explained, polymodal


@pytest.fixture(scope="module")
def index(aligned_bundle, manifest_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes") / "shapes"
    result = polymodal("index", "build", manifest_folder, "--out", folder, "--bundle", aligned_bundle, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) | {"out": "", "warnings": []} == {
        "out": "",
        "rows": 48,
        "resumed": 0,
        "failed": 0,
        "errors": [],
        "warnings": [],
    }
    assert f"{folder}: 48 rows, 0 with an error" in result.stderr
    return folder


@pytest.fixture
def search(index, aligned_bundle):
    return lambda *arguments: polymodal("index", "search", index, *arguments, "--bundle", aligned_bundle)


def test_search_by_words_prints_the_best_items_as_a_table(search):
    result = search("ripe fruit, red", "--top-k", "3")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "label=" in line]
    assert len(lines) == 3
    assert all(word in result.stdout for word in ("id", "cosine", "match", "modalities", "metadata"))


def test_search_prints_json(search, index):
    result = search(
        "ripe fruit, red", "--top-k", "2", "--filter", "label=sea", "--filter", "modalities=image", "--json"
    )
    answer = json.loads(result.stdout)
    assert (answer["digest"], answer["prior"], len(answer["hits"])) == (read_index(index).digest, 0.5, 2)
    assert {hit["metadata"]["label"] for hit in answer["hits"]} == {"sea"}
    assert answer["hits"][0].keys() == {"id", "cosine", "match", "modalities", "metadata"}


def test_a_query_is_words_a_file_or_both(search, manifest_folder):
    image, words = manifest_folder / "images/test-sea-0.png", "blue, blue"
    best = [
        json.loads(search(*query, "--top-k", "1", "--filter", f"modalities={kind}", "--json").stdout)["hits"][0]
        for query, kind in (
            ([image], "image"),
            ([words], "text"),
            ([image, words], "image+text"),
            ([words, image], "image+text"),
        )
    ]
    assert [hit["cosine"] for hit in best] == pytest.approx([1, 1, 1, 1], abs=1e-4)
    assert (best[0]["modalities"], best[2]) == (["image"], best[3])


def test_min_match_and_prior_are_those_of_the_model(search):
    even, rare = (
        json.loads(search("red", "--filter", "modalities=image", "--prior", prior, "--json").stdout)["hits"][0]["match"]
        for prior in ("0.5", "0.01")
    )
    assert rare < even
    assert json.loads(search("red", "--min-match", "0.9999", "--json").stdout)["hits"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["lost.png"], 1, ["lost.png: No such file"], id="no-file"),
        pytest.param([" "], 1, ["at least one of image, text"], id="blank"),
        pytest.param(["red", "--filter", "colour=red"], 1, ["filter: key 'colour'; allowed: image, text"], id="key"),
        pytest.param(["red", "--filter", "colour"], 2, [], id="no-pair"),
        pytest.param(["red", "blue"], 2, [], id="two-texts"),
        pytest.param(["red", "--prior", "1"], 2, [], id="prior"),
        pytest.param(["red", "--top-k", "0"], 2, [], id="top-k"),
    ],
)
def test_a_wrong_query_is_explained(search, arguments, code, words):
    result = search(*arguments)
    assert result.exit_code == code, result.output
    if code == 1:
        assert_explained(result, *words)


def test_an_index_of_another_version_is_refused_with_the_command_that_builds_it(index, tiny_bundle):
    result = polymodal("index", "search", index, "red", "--bundle", tiny_bundle)
    rebuild = f"polymodal index build MANIFEST --out {index} --bundle BUNDLE --restart"
    assert_explained(result, "an index of the model shapes, version", "allowed: the bundle of that version", rebuild)


def test_a_folder_that_is_no_index_is_refused(tmp_path, aligned_bundle):
    result = polymodal("index", "search", tmp_path, "red", "--bundle", aligned_bundle)
    assert_explained(result, "index.json is missing; allowed: a folder written by `polymodal index build`")


def test_a_model_without_aligned_vectors_builds_no_index(tiny_bundle, manifest_folder, tmp_path):
    result = polymodal("index", "build", manifest_folder, "--out", tmp_path / "index", "--bundle", tiny_bundle)
    assert_explained(result, "a model whose vector spaces are: classifier; allowed: one with the space aligned")


def test_bad_rows_are_listed_and_strict_ends_with_3(aligned_bundle, tmp_path):
    (tmp_path / "things.csv").write_text("id,image,text\na,,red\nb,lost.png,\n", encoding="utf-8")
    options = ["--out", tmp_path / "index", "--bundle", aligned_bundle, "--metadata", tmp_path / "things.csv"]
    result = polymodal("index", "build", tmp_path / "things.csv", *options, "--strict")
    assert result.exit_code == BAD_ROWS
    assert "1 row left out:\n  b: image 'lost.png' is not there" in result.stderr
    assert len(read_index(tmp_path / "index")) == 1
    again = polymodal("index", "build", tmp_path / "things.csv", *options)
    assert_explained(again, "already exists; allowed: a new folder, or --restart")
