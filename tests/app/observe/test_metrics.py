"""Metrics of batches, and of the labels that a model returned."""

import pytest

from polymodal.app.observe.metrics import Metrics, reference_ratios
from polymodal.app.serving.batching import BatchReport
from polymodal.model import Description, InputSpec, Observed


def described(report, labels=("sea", "lake")):
    return Description("toy", "ab" * 32, "single-label", labels, (), "onnx", "", report)


@pytest.mark.parametrize(
    ("counts", "ratios"),
    [
        pytest.param({"sea": 30, "lake": 10}, {"sea": 0.75, "lake": 0.25}, id="all-labels"),
        pytest.param({"sea": 30}, {"sea": 1.0, "lake": 0.0}, id="a-label-without-rows"),
        pytest.param({"sea": "many"}, {}, id="no-numbers"),
        pytest.param({"sea": 0, "lake": 0}, {}, id="nothing"),
        pytest.param(None, {}, id="none"),
    ],
)
def test_the_reference_ratios_are_those_of_the_report(counts, ratios):
    assert reference_ratios(described({"data": {"split": {"labels": {"train": counts}}}})) == ratios


@pytest.mark.parametrize("report", [{}, {"data": []}, {"data": {"split": None}}], ids=str)
def test_a_report_without_counts_has_no_reference_ratios(report):
    assert reference_ratios(described(report)) == {}


def test_a_failed_batch_counts_as_busy_time_but_not_as_a_batch():
    metrics = Metrics()
    metrics.batch("toy", BatchReport([1], 0.1, 0.0, 2.0, RuntimeError()))
    metrics.batch("toy", BatchReport([1, 2], 0.1, 0.0, 1.0))
    value = metrics.registry.get_sample_value
    assert value("polymodal_worker_busy_seconds_total") == 3.0
    assert value("polymodal_batch_items_sum", {"model": "toy"}) == 2.0
    assert value("polymodal_batch_duration_seconds_sum", {"model": "toy"}) == 1.0


def test_labels_and_modalities_that_a_worker_invents_are_not_counted():
    metrics = Metrics()
    inputs = (InputSpec("text", ("text/plain",), {}),)
    description = Description("toy", "ab" * 32, "single-label", ("sea",), inputs, "onnx", "", {})
    for number in range(3):
        metrics.observed(
            description, frozenset({"text", str(number)}), Observed(frozenset({f"made up {number}"}), 1.0, 0.0)
        )
    metrics.observed(description, frozenset({"text"}), Observed(frozenset({"sea"}), 1.0, 0.0))
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    predictions = [sample for sample in samples if "predictions" in sample.name]
    assert {sample.labels["label"]: sample.value for sample in predictions} == {"": 3.0, "sea": 1.0}
    assert {sample.labels["modalities"] for sample in predictions} == {"text"}
