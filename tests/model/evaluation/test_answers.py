"""An evaluation repeats the metrics of the training report, and a bad row affects no other row."""

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


def test_the_test_split_has_the_metrics_of_the_training_report(evaluation, served):
    recorded = served.description.report["metrics"]["test"]
    assert evaluation.split == "test"
    assert set(evaluation.metrics) == set(recorded) == {"image+text", "image", "text"}
    for key, measures in evaluation.metrics.items():
        assert measures["items"] == recorded[key]["items"]
        for name in ("accuracy", "macro_f1", "accuracy_at_90_percent_coverage"):
            assert measures[name] == recorded[key][name], (key, name)
            assert measures["intervals"][name] == pytest.approx(recorded[key]["intervals"][name]), (key, name)
        for name in ("negative_log_likelihood", "calibration_error"):
            assert measures[name] == pytest.approx(recorded[key][name], abs=1e-4), (key, name)
        assert measures["sources"].keys() == recorded[key]["sources"].keys()


def test_scores_are_those_of_single_predictions(evaluation, served, manifest_folder):
    both = evaluation.answers["image+text"]
    for index in (0, 1, 2):  # both, only an image, only a text
        row = evaluation.rows[both.rows[index]]
        inputs = {"image": row.inputs["image"].read_bytes()} if "image" in row.inputs else {}
        inputs |= {"text": row.inputs["text"]} if "text" in row.inputs else {}
        assert set(both.used[index].split("+")) == set(inputs)
        (prediction,) = served.predict([served.prepare(inputs)])
        assert both.scores[index].tolist() == pytest.approx(list(prediction.scores.values()), abs=1e-5)


class WithAudio:
    """The served model with a third input, which no row of the manifest has."""

    def __init__(self, served):
        self._served = served
        audio = InputSpec("audio", (), {})
        self.description = replace(served.description, inputs=(*served.description.inputs, audio))

    def __getattr__(self, name):
        return getattr(self._served, name)

    def encode(self, modality, samples):
        return np.zeros((len(samples), 1)) if modality == "audio" else self._served.encode(modality, samples)


def test_with_three_inputs_only_sets_that_rows_have_are_measured(served, evaluation, manifest_folder):
    result = evaluate(WithAudio(served), manifest_folder)
    assert list(result.answers) == ["image+text", "image", "text"]
    for key, answers in result.answers.items():
        assert answers.rows.tolist() == evaluation.answers[key].rows.tolist()
        assert answers.scores == pytest.approx(evaluation.answers[key].scores, abs=1e-6)


def test_answers_for_one_modality_leave_out_rows_without_it(evaluation):
    for key in ("image", "text"):
        rows = evaluation.answers[key].rows.tolist()
        assert rows == [number for number, row in enumerate(evaluation.rows) if key in row.inputs]


def test_bad_rows_are_listed_and_affect_no_other_row(served, with_bad_rows, evaluation):
    result = evaluate(served, with_bad_rows, workers=2)
    problems = {row.id: row.problem for row in result.skipped}
    assert set(problems) == {"lost", "broken", "strange", "empty"}
    assert "is not there" in problems["lost"]
    assert "truncated or corrupt" in problems["broken"]
    assert "label 'furniture' is not one of the bundle's; allowed: sea, tomato" in problems["strange"]
    assert "none of image, text, audio" in problems["empty"]
    assert [row.id for row in result.rows] == [row.id for row in evaluation.rows]
    for key, answers in result.answers.items():
        assert answers.scores == pytest.approx(evaluation.answers[key].scores, abs=1e-5)


@pytest.mark.parametrize(
    ("split", "items"), [("validation", 12), ("all", 48), ("train", 24)], ids=["validation", "all", "train"]
)
def test_any_split_can_be_measured(served, manifest_folder, split, items):
    assert len(evaluate(served, manifest_folder, split=split).rows) == items


@pytest.mark.parametrize(
    ("split", "problem"),
    [
        pytest.param("dev", "split: 'dev'; allowed: train, validation, test, unseen, all", id="unknown"),
        pytest.param("unseen", "no row of the unseen split exists; allowed: a split that has rows", id="empty"),
    ],
)
def test_a_missing_split_is_explained(served, manifest_folder, split, problem):
    with pytest.raises(ModelError, match=problem):
        evaluate(served, manifest_folder, split=split)


def test_without_splits_every_row_is_measured(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text,label\nblue,sea\nred,tomato\n", encoding="utf-8")
    result = evaluate(served, tmp_path)
    assert (result.split, len(result.rows)) == ("all", 2)
    assert set(result.metrics) == {"text"}  # no row has an image
    assert result.metrics["text"]["intervals"]["macro_f1"] is None
    with pytest.raises(ModelError, match="its rows have no split, so there is no test split; allowed: all"):
        evaluate(served, tmp_path, split="test")


def test_a_file_name_that_is_not_utf_8_is_escaped_in_the_json(served, tmp_path):
    manifest = tmp_path / "\udcff.csv"
    manifest.write_text("text,label\nblue,sea\n", encoding="utf-8")
    result = evaluate(served, manifest)
    assert json.loads(json.dumps(result.as_json()).encode())["manifest"] == "\\udcff.csv"


def test_a_split_file_of_a_training_splits_a_manifest_without_splits(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("id,text,label\na,blue,sea\nb,red,tomato\nc,red,tomato\n", encoding="utf-8")
    split_file = tmp_path / "split.csv"
    split_file.write_text("id,split\na,train\nb,test\n", encoding="utf-8")
    result = evaluate(served, tmp_path, splits=split_file)
    assert (result.split, [row.id for row in result.rows]) == ("test", ["b"])
    assert [row.id for row in result.skipped] == ["c"]
    assert "no split in the file given with --splits" in result.skipped[0].problem
    split_file.write_bytes("\ufeffid;Split\r\na;train\r\nb;Test\r\n".encode())  # as a spreadsheet saves it
    assert [row.id for row in evaluate(served, tmp_path, splits=split_file).rows] == ["b"]
    split_file.write_text("name,part\na,train\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"columns \['name', 'part'\]; allowed: id and split"):
        evaluate(served, tmp_path, splits=split_file)


def test_warnings_about_the_manifest_are_reported_first_and_in_the_json(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text;label;mood\nblue;sea;calm\nred;tomato;\n", encoding="utf-8")
    reported = []
    result = evaluate(served, tmp_path, warn=reported.extend)
    assert [warning.partition(";")[0] for warning in reported] == [
        "manifest.csv: read as UTF-8, separated by semicolons",
        "unknown column 'mood' is ignored",
    ]
    assert result.as_json()["warnings"] == reported


def test_a_manifest_with_only_bad_rows_is_rejected_with_a_reason(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text,label\nblue,ocean\n", encoding="utf-8")
    with pytest.raises(ModelError, match="no row can be predicted; 1 were skipped, the first, 1, for: label 'ocean'"):
        evaluate(served, tmp_path)


def test_the_same_evaluation_gives_the_same_json(served, manifest_folder, evaluation):
    again = evaluate(served, manifest_folder, workers=3)
    assert json.dumps(again.as_json()) == json.dumps(evaluation.as_json())


def test_grids_hold_every_metric(evaluation):
    summary = summary_grid(evaluation)
    assert summary.header == ("given", "image + text", "image", "text")
    measures = evaluation.metrics["image"]
    low, high = measures["intervals"]["accuracy"]
    rows = {first: rest for first, *rest in summary.rows}
    assert rows["accuracy"][1] == f"{measures['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    assert rows["calibration error"][1] == f"{measures['calibration_error']:.3f}"
    labels = label_grid(evaluation)
    assert [row[:2] for row in labels.rows] == [("sea", "6"), ("tomato", "6")]
    sea = evaluation.metrics["text"]["labels"]["sea"]
    assert labels.rows[0][4] == f"{sea['precision']:.2f}  {sea['recall']:.2f}  {sea['f1']:.2f}"


def test_skipped_rows_of_one_kind_are_one_line(served, tmp_path):
    lines = ["text,label", "blue,sea", *("a table,furniture" for _ in range(5)), "red,Tomato"]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    result = evaluate(served, tmp_path / "rows.csv")
    named = "2 ('furniture'), 3 ('furniture'), 4 ('furniture') and 3 more"
    assert result.faults() == [f"6 × label … is not one of the bundle's: {named}; allowed: sea, tomato"]
    hint = "label 'Tomato' (did you mean 'tomato'?) is not one of the bundle's; allowed: sea, tomato"
    assert result.skipped[-1].problem == hint
    assert len(result.as_json()["skipped"]) == 6


def test_labels_of_a_bundle_are_compared_as_they_look(served, tmp_path):
    """Older releases kept invisible characters in labels."""
    description = replace(served.description, labels=("sea\u200b", "tomato"))
    older = Mock(wraps=served, description=description, target=served.target, scale=served.scale)
    (tmp_path / "rows.csv").write_text("text,label\nblue,sea\nred,tomato\u00ad\n", encoding="utf-8")
    result = evaluate(older, tmp_path / "rows.csv")
    assert (result.targets.tolist(), result.skipped) == ([0, 1], ())


def test_ids_of_a_split_file_are_compared_as_they_look(served, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text,label\ncafe\u0301,blue,sea\nb,red,tomato\n", encoding="utf-8")
    (tmp_path / "split.csv").write_text("id,split\ncafe\u0301,test\nb,train\n", encoding="utf-8")
    result = evaluate(served, tmp_path / "rows.csv", splits=tmp_path / "split.csv")
    assert [row.id for row in result.rows] == ["café"]


def test_images_below_a_root_are_measured(served, manifest_folder, tmp_path):
    image = next((manifest_folder / "images").glob("*.png"))
    (tmp_path / "rows.csv").write_text(f"image,label\n{image},sea\n", encoding="utf-8")
    assert len(evaluate(served, tmp_path / "rows.csv", roots=[manifest_folder]).rows) == 1
    with pytest.raises(ModelError, match="or below a folder that --root names"):
        evaluate(served, tmp_path / "rows.csv")


def test_only_a_few_batches_are_read_ahead(served, manifest_folder):
    """Memory stays bounded, however long the manifest is."""
    row = next(row for row, _ in open_table(manifest_folder).rows("single-label") if set(row.inputs) == {"text"})
    taken = 0

    def endless():
        nonlocal taken
        for checked in repeat((row, ())):
            taken += 1
            yield checked

    batches = prepared(served, endless(), workers=2, size=4)
    first, second = next(batches), next(batches)
    batches.close()
    assert len(first) == len(second) == 4
    assert taken <= (AHEAD + 1) * 4


def test_batches_keep_the_order_of_the_rows(served, manifest_folder):
    rows = list(open_table(manifest_folder).rows("single-label"))
    batches = list(prepared(served, iter(rows), workers=3, size=7))
    assert [item.row.id for item in chain(*batches)] == [row.id for row, _ in rows]
    assert [len(batch) for batch in batches] == [7] * 6 + [6]


def test_accuracy_is_the_share_of_right_answers(evaluation):
    answers = evaluation.answers["text"]
    right = answers.scores.argmax(axis=1) == evaluation.targets[answers.rows]
    assert np.mean(right) == pytest.approx(evaluation.metrics["text"]["accuracy"])
