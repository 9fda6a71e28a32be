"""The model's card: measures and figures of its report, and a note where it has none."""

import pytest


@pytest.fixture
def page(open_page, address):
    page = open_page(f"{address}#model")
    page.wait_for_selector(".confusion")
    return page


def test_accuracy_is_shown_for_every_set_of_inputs(page, illustrations):
    rows = page.locator(".figures tbody tr").all_inner_texts()
    measured = illustrations.description.report["metrics"]["test"]
    for row, figures in zip(rows, measured.values(), strict=True):
        assert f"{100 * figures['accuracy']:.1f} %" in row
        assert f"{figures['items']:,} items" in row


def test_labels_data_and_licences_are_reported(page, illustrations):
    assert page.locator("#card .chip").count() >= 10
    data = page.locator(".data").inner_text()
    for source in ("openclipart", "CC-PDDC", "CC-BY-4.0"):
        assert source in data
    assert illustrations.description.digest[:16] in page.locator(".facts").inner_text()


def test_the_confusion_matrix_has_a_row_for_each_label(page, illustrations):
    confusion = illustrations.description.report["metrics"]["test"]["image+text"]["confusion"]
    rows = page.locator(".confusion tbody tr")
    assert rows.count() == 10
    shown = [[int(cell or 0) for cell in rows.nth(row).locator("td").all_inner_texts()] for row in range(10)]
    assert shown == confusion


def test_another_split_and_another_set_of_inputs_can_be_chosen(page, illustrations):
    page.get_by_role("button", name="unseen source").click()
    page.get_by_role("button", name="Words only").click()
    confusion = illustrations.description.report["metrics"]["unseen"]["text"]["confusion"]
    first = page.locator(".confusion tbody tr").first.locator("td").all_inner_texts()
    assert [int(cell or 0) for cell in first] == confusion[0]
    assert page.locator(".reliability circle").count() == len(
        illustrations.description.report["metrics"]["unseen"]["text"]["reliability"]
    )
    assert page.evaluate("document.activeElement.textContent") == "Words only"


def test_the_whole_card_is_there_to_read(page, illustrations):
    page.get_by_text("The whole card, as text").click()
    assert page.locator("pre.prose").text_content() == illustrations.description.card


@pytest.mark.parametrize("target", ["single-label", "multi-label", "regression"])
def test_a_report_without_measures_is_noted(open_page, toys, target):
    address = toys(target)
    page = open_page(f"{address}#model")
    page.get_by_text("This model's report has no measures").wait_for()
    assert page.locator(".facts").is_visible()


MULTI = {
    "items": 40,
    "macro_f1": 0.71,
    "micro_f1": 0.75,
    "mean_average_precision": 0.8,
    "exact_match": 0.5,
    "calibration_error": 0.05,
    "reliability": [
        {"items": 60, "confidence": 0.2, "accuracy": 0.25},
        {"items": 60, "confidence": 0.9, "accuracy": 0.8},
    ],
    "labels": {"red": {"items": 9, "precision": 0.5, "recall": 0.6, "f1": 0.55, "threshold": 0.8}},
}
NUMBER = {"items": 40, "mae": 1.5, "rmse": 2.25, "r2": 0.81, "coverage": 0.9, "mean_interval_width": 6.1}


@pytest.mark.parametrize(
    ("target", "measures", "texts"),
    [
        pytest.param("multi-label", MULTI, ["71.0 %", "80.0 %", "from 80.0 %", "Reliability."], id="multi-label"),
        pytest.param("regression", NUMBER, ["1.5", "2.25", "0.81", "90.0 %", "6.1"], id="regression"),
    ],
)
def test_the_measures_of_other_targets(open_page, toys, change_models, target, measures, texts):
    address = toys(target)
    page = open_page(address)
    report = {"metrics": {"test": {"image+text": measures, "text": measures}}}
    change_models(page, f"{address}?again#model", lambda model: model.update(report=report))
    page.wait_for_selector(".figures")
    for text in texts:
        assert text in page.locator("#card").inner_text()
