"""A bundle computes in 8 bits only what a gate on the validation split lets through, and says what that costs."""

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
def told(tiny_bundle):
    return json.loads((tiny_bundle / "report.json").read_bytes())["int8"]


def test_the_report_says_what_was_measured(told, tiny_bundle):
    assert told["encoders"] == {"image": "int8 convolutions", "text": "int8 matrices"}
    assert told["tolerance"] == {"accuracy": 0.005, "calibration": 0.01, "negative log-likelihood": 0.02}
    assert set(told["metrics"]) == {"validation", "test"}
    for kinds in told["metrics"].values():
        assert set(kinds["float32"]) == set(kinds["int8"]) == {"image+text", "image", "text"}
    assert told["tried"][-1]["passed"]
    assert "## In 8 bits" in read_bundle(tiny_bundle).card


def test_what_passed_is_within_the_tolerance(told):
    kinds = told["metrics"]["validation"]
    for key, exact in kinds["float32"].items():
        found = kinds["int8"][key]
        assert found["accuracy"] >= exact["accuracy"] - 0.005
        assert found["calibration"] <= exact["calibration"] + 0.01
        assert found["negative log-likelihood"] <= exact["negative log-likelihood"] + 0.02


def test_a_graph_in_8_bits_tells_nothing_of_where_it_was_made(tiny_bundle):
    graph = (tiny_bundle / "onnx/image.int8.onnx").read_bytes()
    assert b".py" not in graph
    assert b"site-packages" not in graph
    assert onnx.load_model_from_string(graph).opset_import[0].version == 20


@pytest.fixture
def worsened(monkeypatch):
    """`worsened(counts)`: graphs with so many convolutions in float say nothing but zeros."""

    def install(counts):
        made = int8.convolutions_in_8_bits

        def make(model, batches, *, in_float, unused):
            graph = onnx.load_model_from_string(made(model, batches, in_float=in_float, unused=unused))
            if in_float in counts:
                (last,) = [node for node in graph.graph.node if "result" in node.output]
                last.output[0] = "before"
                graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
                graph.graph.node.append(onnx.helper.make_node("Mul", ["before", "nothing"], ["result"]))
            return graph.SerializeToString()

        monkeypatch.setattr(int8, "convolutions_in_8_bits", make)

    return install


def exported(tiny_bundle, manifest_folder, out, **options):
    return export(tiny_bundle, out, source=manifest_folder, work=out.with_name("work"), workers=1, **options)


def test_the_next_candidate_is_tried_when_one_loses_too_much(tiny_bundle, manifest_folder, tmp_path, worsened):
    worsened({0})
    found = exported(tiny_bundle, manifest_folder, tmp_path / "out").description
    assert found.report["int8"]["encoders"]["image"] == "int8 convolutions but the first 1"
    assert [each["passed"] for each in found.report["int8"]["tried"]] == [False, True]
    assert found.runtime == "onnx-int8"


def test_nothing_is_quantised_when_everything_loses_too_much(
    tiny_bundle, manifest_folder, tmp_path, worsened, monkeypatch
):
    worsened({0, 1, 3, 5})
    monkeypatch.setattr(int8, "matrices_in_8_bits", lambda *_: None)
    found = exported(tiny_bundle, manifest_folder, tmp_path / "out").description
    assert set(found.report["int8"]["encoders"].values()) == {"float32"}
    assert found.runtime == "onnx"
    assert not list((tmp_path / "out").glob("onnx/*.int8.onnx"))
    assert "Nothing is computed in 8 bits" in found.card
    assert not any("onnx-int8" in each for each in read_bundle(tmp_path / "out").golden)


def test_an_export_gives_the_bundle_that_training_gave(tiny_bundle, manifest_folder, tmp_path):
    assert (
        exported(tiny_bundle, manifest_folder, tmp_path / "out").description.digest == read_bundle(tiny_bundle).digest
    )


def test_an_export_without_data_has_no_graphs_in_8_bits(tiny_bundle, tmp_path):
    found = export(tiny_bundle, tmp_path / "out", work=tmp_path / "work").description
    assert (found.runtime, "int8" in found.report, "8 bits" in found.card) == ("onnx", False, False)
    before, after = (load_bundle(each, runtime="onnx", threads=1) for each in (tiny_bundle, tmp_path / "out"))
    sample = before.prepare({"text": "red"})
    assert before.predict([sample])[0].scores == after.predict([sample])[0].scores


def test_an_export_with_other_data_is_refused(tiny_bundle, manifest_folder, tmp_path):
    rows = (manifest_folder / "manifest.csv").read_text(encoding="utf-8").replace("ripe fruit", "fruit")
    (manifest_folder / "other.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(ModelError, match=r"data digest .*allowed: the data that the bundle was trained on"):
        export(tiny_bundle, tmp_path / "out", source=manifest_folder / "other.csv", work=tmp_path / "work")


def test_an_export_does_not_replace_other_files(tiny_bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="holds files that are no bundle"):
        export(tiny_bundle, tmp_path, work=tmp_path / "work")


def test_training_can_do_without(manifest_folder, tmp_path):
    changes = {"epochs": 1, "batch_size": 8}
    found = train(
        manifest_folder, tmp_path / "out", preset="cnn-rnn", workers=1, cache=tmp_path, int8=False, changes=changes
    )
    assert found.description.runtime == "onnx"
    assert "int8" not in found.description.report
