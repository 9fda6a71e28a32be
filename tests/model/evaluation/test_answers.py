"""What a bundle says of a manifest is what was measured when it was trained, and bad rows only cost themselves."""

import json
from dataclasses import replace
from itertools import chain, repeat
from unittest.mock import Mock

import numpy as np
import pytest

from polymodal.model import InputSpec, ModelError
from polymodal.model.evaluation import evaluate, label_grid, summary_grid
from polymodal.model.evaluation.stream import AHEAD, prepared
from polymodal.model.manifest import open_table


@pytest.fixture(scope="module")
def evaluation(served, manifest_folder):
    return evaluate(served, manifest_folder)


def test_the_test_part_is_measured_as_it_was_after_training(evaluation, served):
    recorded = served.description.report["metrics"]["test"]
    assert evaluation.split == "test"
    assert set(evaluation.metrics) == set(recorded) == {"image+text", "image", "text"}
    for key, told in evaluation.metrics.items():
        assert told["items"] == recorded[key]["items"]
        for name in ("accuracy", "macro_f1", "accuracy_at_90_percent_coverage"):
            assert told[name] == recorded[key][name], (key, name)
            assert told["intervals"][name] == pytest.approx(recorded[key]["intervals"][name]), (key, name)
        for name in ("negative_log_likelihood", "calibration_error"):
            assert told[name] == pytest.approx(recorded[key][name], abs=1e-4), (key, name)
        assert told["sources"].keys() == recorded[key]["sources"].keys()


def test_scores_are_those_of_single_predictions(evaluation, served, manifest_folder):
    both = evaluation.answers["image+text"]
    for index in (0, 1, 2):  # both, only an image, only a text
        row = evaluation.rows[both.rows[index]]
        parts = {"image": row.inputs["image"].read_bytes()} if "image" in row.inputs else {}
        parts |= {"text": row.inputs["text"]} if "text" in row.inputs else {}
        assert set(both.used[index].split("+")) == set(parts)
        (prediction,) = served.predict([served.prepare(parts)])
        assert both.scores[index].tolist() == pytest.approx(list(prediction.scores.values()), abs=1e-5)


class WithAudio:
    """A served model with a third input, which no row of the manifest has."""

    def __init__(self, served):
        self._served = served
        audio = InputSpec("audio", (), {})
        self.description = replace(served.description, inputs=(*served.description.inputs, audio))

    def __getattr__(self, name):
        return getattr(self._served, name)

    def encode(self, modality, samples):
        return np.zeros((len(samples), 1)) if modality == "audio" else self._served.encode(modality, samples)


def test_of_three_inputs_the_sets_that_rows_have_are_measured_as_they_are_of_two(served, evaluation, manifest_folder):
    found = evaluate(WithAudio(served), manifest_folder)
    assert list(found.answers) == ["image+text", "image", "text"]
    for key, answers in found.answers.items():
        assert answers.rows.tolist() == evaluation.answers[key].rows.tolist()
        assert answers.scores == pytest.approx(evaluation.answers[key].scores, abs=1e-6)


def test_a_row_that_lacks_what_is_offered_is_left_out(evaluation):
    for key in ("image", "text"):
        rows = evaluation.answers[key].rows.tolist()
        assert rows == [number for number, row in enumerate(evaluation.rows) if key in row.inputs]


def test_bad_rows_are_listed_and_cost_only_themselves(served, with_bad_rows, evaluation):
    found = evaluate(served, with_bad_rows, workers=2)
    problems = {each.id: each.problem for each in found.skipped}
    assert set(problems) == {"lost", "broken", "strange", "empty"}
    assert "is not there" in problems["lost"]
    assert "truncated or corrupt" in problems["broken"]
    assert "label 'furniture' is not one of the bundle's; allowed: sea, tomato" in problems["strange"]
    assert "neither image nor text" in problems["empty"]
    assert [row.id for row in found.rows] == [row.id for row in evaluation.rows]
    for key, answers in found.answers.items():
        assert answers.scores == pytest.approx(evaluation.answers[key].scores, abs=1e-5)


@pytest.mark.parametrize(
    ("split", "items"), [("validation", 12), ("all", 48), ("train", 24)], ids=["validation", "all", "train"]
)
def test_any_part_can_be_measured(served, manifest_folder, split, items):
    assert len(evaluate(served, manifest_folder, split=split).rows) == items


@pytest.mark.parametrize(
    ("split", "problem"),
    [
        pytest.param("dev", "split: 'dev'; allowed: train, validation, test, unseen, all", id="unknown"),
        pytest.param("unseen", "no row of the unseen part is there; allowed: a part that has rows", id="empty"),
    ],
)
def test_a_part_that_is_not_there_is_explained(served, manifest_folder, split, problem):
    with pytest.raises(ModelError, match=problem):
        evaluate(served, manifest_folder, split=split)


def test_without_splits_every_row_is_measured(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text,label\nblue,sea\nred,tomato\n", encoding="utf-8")
    found = evaluate(served, tmp_path)
    assert (found.split, len(found.rows)) == ("all", 2)
    assert set(found.metrics) == {"text"}  # no row has a picture as well
    assert found.metrics["text"]["intervals"]["macro_f1"] is None
    with pytest.raises(ModelError, match="its rows name no split, so there is no test part; allowed: all"):
        evaluate(served, tmp_path, split="test")


def test_a_file_name_that_is_no_text_can_be_written_down(served, tmp_path):
    manifest = tmp_path / "\udcff.csv"
    manifest.write_text("text,label\nblue,sea\n", encoding="utf-8")
    found = evaluate(served, manifest)
    assert json.loads(json.dumps(found.as_json()).encode())["manifest"] == "\\udcff.csv"


def test_the_split_that_a_training_made_divides_a_manifest_without_one(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("id,text,label\na,blue,sea\nb,red,tomato\nc,red,tomato\n", encoding="utf-8")
    made = tmp_path / "split.csv"
    made.write_text("id,split\na,train\nb,test\n", encoding="utf-8")
    found = evaluate(served, tmp_path, splits=made)
    assert (found.split, [row.id for row in found.rows]) == ("test", ["b"])
    assert [each.id for each in found.skipped] == ["c"]
    assert "no split in the file given with --splits" in found.skipped[0].problem
    made.write_bytes("\ufeffid;Split\r\na;train\r\nb;Test\r\n".encode())  # a spreadsheet has saved it
    assert [row.id for row in evaluate(served, tmp_path, splits=made).rows] == ["b"]
    made.write_text("name,part\na,train\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"columns \['name', 'part'\]; allowed: id and split"):
        evaluate(served, tmp_path, splits=made)


def test_what_was_ignored_is_reported_first_and_in_the_json(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text;label;mood\nblue;sea;calm\nred;tomato;\n", encoding="utf-8")
    reported = []
    found = evaluate(served, tmp_path, warn=reported.extend)
    assert [warning.partition(";")[0] for warning in reported] == [
        "manifest.csv: read as UTF-8, separated by semicolons",
        "unknown column 'mood' is ignored",
    ]
    assert found.as_json()["warnings"] == reported


def test_a_manifest_of_bad_rows_alone_is_refused_with_a_reason(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text,label\nblue,ocean\n", encoding="utf-8")
    with pytest.raises(ModelError, match="no row can be predicted; 1 were skipped, the first, 1, for: label 'ocean'"):
        evaluate(served, tmp_path)


def test_the_same_evaluation_gives_the_same_json(served, manifest_folder, evaluation):
    told = [json.dumps(each.as_json()) for each in (evaluation, evaluate(served, manifest_folder, workers=3))]
    assert told[0] == told[1]


def test_grids_hold_every_figure(evaluation):
    summary = summary_grid(evaluation)
    assert summary.header == ("given", "image + text", "image", "text")
    told = evaluation.metrics["image"]
    low, high = told["intervals"]["accuracy"]
    rows = {first: rest for first, *rest in summary.rows}
    assert rows["accuracy"][1] == f"{told['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    assert rows["calibration error"][1] == f"{told['calibration_error']:.3f}"
    labels = label_grid(evaluation)
    assert [row[:2] for row in labels.rows] == [("sea", "6"), ("tomato", "6")]
    sea = evaluation.metrics["text"]["labels"]["sea"]
    assert labels.rows[0][4] == f"{sea['precision']:.2f}  {sea['recall']:.2f}  {sea['f1']:.2f}"


def test_skipped_rows_of_one_kind_are_one_line(served, tmp_path):
    lines = ["text,label", "blue,sea", *("a table,furniture" for _ in range(5)), "red,Tomato"]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    found = evaluate(served, tmp_path / "rows.csv")
    named = "2 ('furniture'), 3 ('furniture'), 4 ('furniture') and 3 more"
    assert found.faults() == [f"6 × label … is not one of the bundle's: {named}; allowed: sea, tomato"]
    hint = "label 'Tomato' (did you mean 'tomato'?) is not one of the bundle's; allowed: sea, tomato"
    assert found.skipped[-1].problem == hint
    assert len(found.as_json()["skipped"]) == 6


def test_labels_of_a_bundle_are_found_by_how_they_look(served, tmp_path):
    """An older release kept what cannot be seen in labels."""
    description = replace(served.description, labels=("sea\u200b", "tomato"))
    older = Mock(wraps=served, description=description, target=served.target, scale=served.scale)
    (tmp_path / "rows.csv").write_text("text,label\nblue,sea\nred,tomato\u00ad\n", encoding="utf-8")
    found = evaluate(older, tmp_path / "rows.csv")
    assert (found.targets.tolist(), found.skipped) == ([0, 1], ())


def test_a_split_file_is_matched_by_how_ids_look(served, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text,label\ncafe\u0301,blue,sea\nb,red,tomato\n", encoding="utf-8")
    (tmp_path / "split.csv").write_text("id,split\ncafe\u0301,test\nb,train\n", encoding="utf-8")
    found = evaluate(served, tmp_path / "rows.csv", splits=tmp_path / "split.csv")
    assert [row.id for row in found.rows] == ["café"]


def test_images_below_a_root_are_measured(served, manifest_folder, tmp_path):
    image = next((manifest_folder / "images").glob("*.png"))
    (tmp_path / "rows.csv").write_text(f"image,label\n{image},sea\n", encoding="utf-8")
    assert len(evaluate(served, tmp_path / "rows.csv", roots=[manifest_folder]).rows) == 1
    with pytest.raises(ModelError, match="or below a folder that --root names"):
        evaluate(served, tmp_path / "rows.csv")


def test_rows_are_read_only_a_little_ahead(served, manifest_folder):
    """Memory stays bounded, however long the manifest is."""
    row = next(row for row, _ in open_table(manifest_folder).rows("single-label") if set(row.inputs) == {"text"})
    taken = 0

    def endless():
        nonlocal taken
        for each in repeat((row, ())):
            taken += 1
            yield each

    batches = prepared(served, endless(), workers=2, size=4)
    first, second = next(batches), next(batches)
    batches.close()
    assert len(first) == len(second) == 4
    assert taken <= (AHEAD + 1) * 4


def test_batches_keep_the_order_of_the_rows(served, manifest_folder):
    found = list(open_table(manifest_folder).rows("single-label"))
    batches = list(prepared(served, iter(found), workers=3, size=7))
    assert [each.row.id for each in chain(*batches)] == [row.id for row, _ in found]
    assert [len(batch) for batch in batches] == [7] * 6 + [6]


def test_confidence_and_correctness_are_what_the_answers_say(evaluation):
    answers = evaluation.answers["text"]
    right = answers.scores.argmax(axis=1) == evaluation.targets[answers.rows]
    assert np.mean(right) == pytest.approx(evaluation.metrics["text"]["accuracy"])
