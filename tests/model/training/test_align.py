"""Alignment heads: what they learn, what they leave as it is, and how `match` is calibrated."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from polymodal.model import ModelError, load_bundle, match_of
from polymodal.model.bundle import read_bundle
from polymodal.model.manifest import Row
from polymodal.model.tasks.embed import normalised
from polymodal.model.training.align import calibrate, measure
from polymodal.model.training.heads import embed, fit_heads
from polymodal.model.training.pairs import Pairs, check_enough
from tests.command_line import assert_explained, polymodal
from tests.media import solid

SPLITS = {"train": 300, "validation": 150, "test": 150}
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (250, 250, 250), "black": (5, 5, 5), "green": (0, 180, 0)}


def synthetic(modalities=("image", "text"), noise=0.5, splits=SPLITS) -> Pairs:
    """Features that are noisy views of what a row is about; two rows of a group are about the same."""
    generator = np.random.default_rng(0)
    rows, subjects = [], []
    for split, count in splits.items():
        for number in range(count):
            group = f"{split}-{number // 2}"
            rows.append(
                Row(
                    f"{split}-{number}",
                    {name: f"{name} {split} {number}" for name in modalities},
                    "",
                    group,
                    split,
                    "made",
                    "",
                )
            )
            subjects.append(subjects[-1] if number % 2 else generator.normal(size=6))
    features = {}
    for place, name in enumerate(modalities):
        views = np.asarray(subjects) @ generator.normal(size=(6, 12 + place))
        features[name] = (views + noise * generator.normal(size=views.shape) + 3).astype(np.float32)
    present = {name: np.ones(len(rows), dtype=np.bool_) for name in modalities}
    return Pairs(tuple(rows), features, present)


def test_heads_find_what_modalities_have_in_common():
    pairs = synthetic()
    heads, tried = fit_heads(pairs)
    vectors = embed(heads, pairs)
    figures = measure(vectors, calibrate(vectors, pairs), pairs, "test")
    for search in ("image → text", "text → image"):
        retrieval = figures["retrieval"][search]
        assert (retrieval["gallery"], retrieval["chance"]["recall_at_1"]) == (75, pytest.approx(1 / 75))
        assert retrieval["recall_at_1"] > 0.5
        assert retrieval["sources"]["made"]["recall_at_1"] == retrieval["recall_at_1"]
    assert list(tried) == sorted(tried, key=tried.get, reverse=True)
    assert {"canonical correlation, ridge 0.1, power 0.5"} < set(tried)
    assert all(np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5) for rows in vectors.values())


def test_the_same_pairs_and_seed_give_the_same_heads():
    one, other = (fit_heads(synthetic())[0] for _ in range(2))
    assert all(np.array_equal(one[name][0], other[name][0]) for name in one)


def test_three_modalities_share_one_space():
    pairs = synthetic(("image", "text", "tone"))
    vectors = embed(fit_heads(pairs)[0], pairs)
    figures = measure(vectors, calibrate(vectors, pairs), pairs, "test")
    assert len(figures["retrieval"]) == 6
    assert min(search["recall_at_1"] for search in figures["retrieval"].values()) > 0.5
    assert {"image~text", "image~tone", "text~tone", "image+text+tone~text"} <= figures["match"].keys()


def test_match_is_a_probability_at_its_prior():
    pairs = synthetic(noise=2.0, splits={"train": 600, "validation": 600, "test": 600})
    vectors = embed(fit_heads(pairs)[0], pairs)
    matches = calibrate(vectors, pairs)
    assert matches.keys() == {
        *("image~image", "image~text", "image~image+text", "text~text", "image+text~text", "image+text~image+text")
    }
    for figures in measure(vectors, matches, pairs, "test")["match"].values():
        assert figures["calibration_error"] < 0.06
        assert figures["auroc"] > 0.7
    calibration = matches["image~text"]
    even = match_of(0.3, calibration)
    assert match_of(0.3, calibration, prior=0.5) == even
    rare = match_of(0.3, calibration, prior=0.01)
    assert rare / (1 - rare) == pytest.approx(even / (1 - even) / 99)


def test_pairs_that_are_not_more_similar_than_others_get_no_match():
    pairs = synthetic()
    vectors = embed(fit_heads(pairs)[0], pairs)
    assert "image~text" not in calibrate({**vectors, "text": -vectors["text"]}, pairs)


def test_too_few_pairs_are_an_error_that_names_the_split():
    pairs = synthetic(splits={"train": 300, "validation": 10})
    with pytest.raises(
        ModelError, match="alignment: 5 groups of the validation split have image and text; allowed: at"
    ):
        check_enough(pairs.rows, pairs.present)


def test_a_network_with_one_input_is_an_error():
    pairs = synthetic(("image",))
    with pytest.raises(ModelError, match="alignment: the network takes image alone; allowed: two modalities or more"):
        check_enough(pairs.rows, pairs.present)


def test_a_query_of_two_noisy_inputs_finds_more_than_one_of_them():
    pairs = synthetic(noise=2.0)
    queries = measure(embed(fit_heads(pairs)[0], pairs), {}, pairs, "test")["fused_queries"]
    for item in ("image", "text"):
        figures = {query: queries[item][query]["mean_reciprocal_rank"] for query in ("image", "text", "image+text")}
        assert queries[item]["image+text"]["gallery"] == 75
        assert figures["image+text"] > max(figures["image"], figures["text"])


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory) -> Path:
    """Images of one colour with its name, 120 rows without a label; one image is broken, one row has only a text."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(120):
        split = ("train", "train", "validation", "test")[number % 4]
        name = list(COLOURS)[number % len(COLOURS)]
        shade = tuple(max(0, value - number) for value in COLOURS[name])
        (folder / f"{number}.png").write_bytes(solid(shade))
        rows.append({"id": number, "image": f"{number}.png", "text": f"{name} number {number}", "split": split})
    (folder / "1.png").write_bytes(b"broken")
    rows[2]["image"] = ""
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ("id", "image", "text", "split"))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def aligned(tiny_bundle, manifest_folder, pairs_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "shapes"
    result = polymodal(
        *("align", tiny_bundle, pairs_folder / "pairs.csv", "--manifest", manifest_folder, "--out", out, "--json")
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["digest"] == read_bundle(out).digest
    return out


def scores(folder: Path, runtime: str) -> np.ndarray:
    model = load_bundle(folder, runtime=runtime, threads=1)
    samples = [model.prepare({"image": solid("red")}), model.prepare({"image": solid("blue"), "text": "deep water"})]
    return model.scores(model.embed(samples), [sample.present for sample in samples])


def test_aligning_leaves_the_scores_as_they_are(aligned, tiny_bundle):
    assert np.array_equal(scores(aligned, "onnx"), scores(tiny_bundle, "onnx"))
    assert scores(aligned, "torch") == pytest.approx(scores(tiny_bundle, "torch"), abs=1e-6)


def test_runtimes_agree_about_aligned_vectors(aligned):
    vectors = {}
    for runtime in ("onnx", "torch", "onnx-int8"):
        model = load_bundle(aligned, runtime=runtime, threads=1)
        model.warm_up()
        embeddings = model.embed([model.prepare({"image": solid("red"), "text": "red"})])
        vectors[runtime] = normalised(np.concatenate([*model.vectors(embeddings, "aligned").values()]))
    assert vectors["onnx"] == pytest.approx(vectors["torch"], abs=1e-5)
    assert (vectors["onnx-int8"] * vectors["torch"]).sum(axis=1) == pytest.approx(1, abs=0.02)


def test_the_report_and_the_card_have_the_data_and_the_figures(aligned):
    bundle = read_bundle(aligned)
    report = bundle.report["alignment"]
    assert report["data"]["items"] == {"train": {"": 59}, "validation": {"": 29}, "test": {"": 30}}
    assert report["left_out"] == 1
    assert report["width"] == bundle.config.network.alignment.width == 256
    assert report["metrics"]["test"]["retrieval"]["text → image"]["gallery"] == 30
    assert bundle.card.count("## Similarity\n") == 1
    assert "59 pairs of the train split" in bundle.card
    assert bundle.card.index("## Similarity") < bundle.card.index("## Limits")
    assert "int8" in bundle.report


def test_heads_are_replaced_when_a_bundle_is_aligned_again(aligned, tiny_bundle, pairs_folder, tmp_path):
    itself = shutil.copytree(aligned, tmp_path / "again")
    for source, name in ((itself, "again"), (tiny_bundle, "first")):
        result = polymodal("align", source, pairs_folder / "pairs.csv", "--out", tmp_path / name, "--no-test")
        assert result.exit_code == 0, result.stderr
        assert "warning: row 1: image 1.png: bytes of no known" in result.stderr
    again, first = (read_bundle(tmp_path / name) for name in ("again", "first"))
    assert again.read_weights().keys() == first.read_weights().keys()
    assert (again.config.matches, again.card) == (first.config.matches, first.card)
    assert list(again.report["alignment"]["metrics"]) == ["validation"]
    assert not any(name.endswith(".int8") for name in again.files)


@pytest.fixture
def half_labelled(pairs_folder) -> Path:
    """The same rows with a label in every second row of a split."""
    with (pairs_folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "label": ("", row["text"].split()[0])[int(row["id"]) // 4 % 2]} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["id"] != "1"]
    path = pairs_folder / "labelled.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, tuple(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def test_rows_without_a_label_serve_for_alignment_alone(half_labelled, tmp_path):
    out = tmp_path / "out"
    train = ("train", half_labelled, "--preset", "cnn-rnn", "--epochs", 1, "--out", out)
    result = polymodal(*train, "--align")
    assert result.exit_code == 0, result.stderr
    assert "warning: 59 rows without a label: left out of the labelled rows" in result.stderr
    bundle = read_bundle(out)
    assert sum(sum(items.values()) for items in bundle.report["data"]["items"].values()) == 60
    assert bundle.report["alignment"]["data"]["items"] == {"train": {"": 59}, "validation": {"": 29}, "test": {"": 30}}
    model = load_bundle(out, threads=1)
    model.warm_up()
    assert list(model.description.spaces) == ["aligned", "classifier"]

    assert polymodal("export", out, "--manifest", half_labelled, "--out", tmp_path / "exported").exit_code == 0
    assert_explained(polymodal(*train), "59 × no label")


def test_pairs_are_refused_without_alignment(half_labelled, tmp_path):
    result = polymodal("train", half_labelled, "--pairs", half_labelled, "--out", tmp_path / "out")
    assert (result.exit_code, "only with --align or --preset align" in result.stderr) == (2, True)


def test_a_manifest_without_pairs_is_explained(tiny_bundle, tmp_path):
    (tmp_path / "texts.csv").write_text("text\nred\nblue\n", encoding="utf-8")
    result = polymodal("align", tiny_bundle, tmp_path / "texts.csv", "--out", tmp_path / "out")
    assert_explained(result, "alignment: 0 groups of the train split have image and text; allowed: at least 20")
    assert not (tmp_path / "out").exists()
