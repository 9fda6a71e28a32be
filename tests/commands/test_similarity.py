"""`polymodal similarity`: its output for people and as JSON, and what it refuses."""

import json
import math

import pytest

from tests.command_line import assert_explained, polymodal


@pytest.fixture
def image(manifest_folder):
    return manifest_folder / "images/test-sea-0.png"


def compare(bundle, *arguments):
    return polymodal("similarity", *arguments, "--bundle", bundle)


def test_a_file_and_a_text_get_a_cosine_and_a_match(aligned_bundle, image):
    result = compare(aligned_bundle, image, "deep water", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    (pair,) = answer["pairs"]
    assert (answer["modalities"], pair["modalities"], answer["prior"]) == (["image"], ["text"], 0.5)
    assert pair["match"] == pytest.approx(1 / (1 + math.exp(1 - 4 * pair["cosine"])), abs=1e-5)
    lines = compare(aligned_bundle, image, "deep water").stdout.splitlines()
    assert lines == [
        f"cosine  {pair['cosine']:.6f}, of image and text",
        f"match   {pair['match']:.6f} at a prior of 0.5, which {'reaches' if pair['selected'] else 'is below'} the threshold 0.5",
    ]


def test_the_prior_changes_the_match(aligned_bundle, image):
    low, high = (
        json.loads(compare(aligned_bundle, image, "deep water", "--json", "--prior", prior).stdout)["pairs"][0]["match"]
        for prior in (0.1, 0.9)
    )
    assert low < high


def test_a_pair_that_was_not_calibrated_has_no_match(aligned_bundle):
    result = compare(aligned_bundle, "deep water", "deep water")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "cosine  1.000000, of text and text",
        "match   not calibrated for these; pairs that are: image~text",
    ]


def test_a_model_without_aligned_vectors_is_refused(tiny_bundle):
    assert_explained(compare(tiny_bundle, "a", "b"), "a model without aligned vectors; allowed: one that has them")


def test_invalid_inputs_are_explained(aligned_bundle, tmp_path):
    (tmp_path / "words.png").write_text("words", encoding="utf-8")
    for arguments, message in (
        (["lost.png", "a"], "lost.png: No such file"),
        (["a", tmp_path / "words.png"], "words.png: bytes of no known picture format; allowed: image/jpeg"),
        (["a", " "], "neither of the inputs, or only blank ones"),
    ):
        assert_explained(compare(aligned_bundle, *arguments), message)


@pytest.mark.parametrize("prior", ["0", "1", "-1", "nan", "x"])
def test_an_impossible_prior_is_wrong_usage(aligned_bundle, prior):
    assert compare(aligned_bundle, "a", "b", "--prior", prior).exit_code == 2


def test_a_file_of_no_known_kind_is_wrong_usage(aligned_bundle, tmp_path):
    (tmp_path / "notes.doc").write_text("words", encoding="utf-8")
    result = compare(aligned_bundle, tmp_path / "notes.doc", "b")
    assert result.exit_code == 2
    assert "a file of no known kind" in " ".join(result.stderr.replace("│", "").split())


def test_words_with_a_dot_at_the_end_are_a_text(aligned_bundle):
    assert compare(aligned_bundle, "a drawing made for my site.png", "x" * 5000 + ".").exit_code == 0
