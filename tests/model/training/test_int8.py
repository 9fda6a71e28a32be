"""Encoders compute in 8 bits only if their metrics on the validation split are close to float32, and the report has the losses."""

import json
from importlib import import_module

import numpy as np
import onnx
import pytest

from polymodal.model import BundleError, ModelError, load_bundle
from polymodal.model.bundle import read_bundle
from polymodal.model.training import export, train

int8 = import_module("polymodal.model.training.int8")


@pytest.fixture(scope="module")
def report(tiny_bundle):
    return json.loads((tiny_bundle / "report.json").read_bytes())["int8"]


def test_the_report_has_the_selected_graphs_and_their_metrics(report, tiny_bundle):
    assert report["encoders"] == {"image": "int8 convolutions", "text": "int8 matrices"}
    assert report["tolerance"] == {"accuracy": 0.005, "calibration": 0.01, "negative log-likelihood": 0.02}
    assert set(report["metrics"]) == {"validation", "test"}
    for kinds in report["metrics"].values():
        assert set(kinds["float32"]) == set(kinds["int8"]) == {"image+text", "image", "text"}
    assert report["tried"][-1]["passed"]
    assert "## In 8 bits" in read_bundle(tiny_bundle).card


def test_the_selected_graphs_are_within_the_tolerance(report):
    kinds = report["metrics"]["validation"]
    for key, float32 in kinds["float32"].items():
        quantised = kinds["int8"][key]
        assert quantised["accuracy"] >= float32["accuracy"] - 0.005
        assert quantised["calibration"] <= float32["calibration"] + 0.01
        assert quantised["negative log-likelihood"] <= float32["negative log-likelihood"] + 0.02


@pytest.fixture
def worsened(monkeypatch):
    """`worsened(counts)`: graphs with one of these numbers of convolutions in float32 return only zeros."""

    def install(counts):
        original = int8.convolutions_in_8_bits

        def make(model, batches, *, in_float, unused):
            graph = onnx.load_model_from_string(original(model, batches, in_float=in_float, unused=unused))
            if in_float in counts:
                (last,) = [node for node in graph.graph.node if "result" in node.output]
                last.output[0] = "before"
                graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
                graph.graph.node.append(onnx.helper.make_node("Mul", ["before", "nothing"], ["result"]))
            return graph.SerializeToString()

        monkeypatch.setattr(int8, "convolutions_in_8_bits", make)

    return install


@pytest.fixture
def exported(tiny_bundle, manifest_folder, tmp_path):
    """`exported()` exports the tiny bundle with its data and returns the description of the new one."""
    out, work = tmp_path / "out", tmp_path / "work"
    return lambda: export(tiny_bundle, out, source=manifest_folder, work=work, workers=1).description


def test_the_next_candidate_is_tried_if_one_loses_too_much(exported, worsened):
    worsened({0})
    description = exported()
    assert description.report["int8"]["encoders"]["image"] == "int8 convolutions but the first 1"
    assert [attempt["passed"] for attempt in description.report["int8"]["tried"]] == [False, True]
    assert description.runtime == "onnx-int8"


def test_float32_is_kept_if_all_candidates_lose_too_much(exported, tmp_path, worsened, monkeypatch):
    worsened({0, 1, 3, 5})
    monkeypatch.setattr(int8, "matrices_in_8_bits", lambda *_: None)
    description = exported()
    assert set(description.report["int8"]["encoders"].values()) == {"float32"}
    assert description.runtime == "onnx"
    assert not list((tmp_path / "out").glob("onnx/*.int8.onnx"))
    assert "Nothing is computed in 8 bits" in description.card
    assert not any("onnx-int8" in entry for entry in read_bundle(tmp_path / "out").golden)


def test_an_export_gives_the_same_bundle_as_training(exported, tiny_bundle):
    assert exported().digest == read_bundle(tiny_bundle).digest


def test_an_export_without_data_has_no_graphs_in_8_bits(tiny_bundle, tmp_path):
    description = export(tiny_bundle, tmp_path / "out", work=tmp_path / "work").description
    assert (description.runtime, "int8" in description.report, "8 bits" in description.card) == ("onnx", False, False)
    before, after = (load_bundle(folder, runtime="onnx", threads=1) for folder in (tiny_bundle, tmp_path / "out"))
    sample = before.prepare({"text": "red"})
    assert before.predict([sample])[0].scores == after.predict([sample])[0].scores


def test_an_export_with_other_data_is_rejected(tiny_bundle, manifest_folder, tmp_path):
    rows = (manifest_folder / "manifest.csv").read_text(encoding="utf-8").replace("ripe fruit", "fruit")
    (manifest_folder / "other.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(ModelError, match=r"data digest .*allowed: the data that the bundle was trained on"):
        export(tiny_bundle, tmp_path / "out", source=manifest_folder / "other.csv", work=tmp_path / "work")


def test_an_export_does_not_replace_other_files(tiny_bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="holds files that are no bundle"):
        export(tiny_bundle, tmp_path, work=tmp_path / "work")


def test_training_without_8_bits_quantises_nothing(manifest_folder, tmp_path):
    options = {"preset": "cnn-rnn", "workers": 1, "cache": tmp_path, "changes": {"epochs": 1, "batch_size": 8}}
    description = train(manifest_folder, tmp_path / "out", int8=False, **options).description
    assert description.runtime == "onnx"
    assert "int8" not in description.report
