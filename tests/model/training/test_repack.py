"""`remeasure` adds the metrics that a report of an older release lacks, and changes nothing else in the bundle."""

import json
from pathlib import Path

import pytest

from polymodal.model import ModelError, load_bundle
from polymodal.model.bundle import read_bundle, write_bundle
from polymodal.model.training import remeasure

ADDED = ("confidence_at_90_percent_coverage", "confusion", "reliability")


@pytest.fixture
def older_bundle(tiny_bundle, tmp_path) -> Path:
    """A bundle without the metrics of ADDED, as an older release wrote it."""
    bundle = read_bundle(tiny_bundle)
    metrics = json.loads(json.dumps(bundle.report["metrics"]))
    for sets in metrics.values():
        for measures in sets.values():
            for name in ADDED:
                del measures[name]
    graphs = {path.stem: path.read_bytes() for path in (tiny_bundle / "onnx").iterdir()}
    write_bundle(
        tmp_path / "older",
        config=bundle.config,
        inputs=bundle.inputs,
        weights=bundle.read_stored(),
        graphs=graphs,
        report={**bundle.report, "metrics": metrics},
        golden=[dict(entry) for entry in bundle.golden],
        card=bundle.card,
    )
    return tmp_path / "older"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_missing_metrics_are_added_and_nothing_else_changes(older_bundle, tiny_bundle, manifest_folder, tmp_path):
    out = tmp_path / "newer"
    assert remeasure(older_bundle, out, source=manifest_folder, work=tmp_path / "work", workers=1) == ADDED
    before, after = files_of(older_bundle), files_of(out)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"report.json", "SHA256SUMS"}
    trained = read_bundle(tiny_bundle).report["metrics"]
    report = load_bundle(out, threads=1).description.report
    assert report["added"]["measures"] == list(ADDED)
    for split, sets in report["metrics"].items():
        for key, measures in sets.items():
            expected, confidence = trained[split][key], "confidence_at_90_percent_coverage"
            assert measures["confusion"] == expected["confusion"]
            assert measures[confidence] == pytest.approx(expected[confidence], abs=1e-4)


def test_a_complete_report_does_not_change(tiny_bundle, manifest_folder, tmp_path):
    out = tmp_path / "same"
    assert remeasure(tiny_bundle, out, source=manifest_folder, work=tmp_path / "work", workers=1) == ()
    assert files_of(out) == files_of(tiny_bundle)


def test_other_data_are_rejected(older_bundle, manifest_folder, tmp_path):
    lines = (manifest_folder / "manifest.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(manifest_folder / "images")
    (other / "manifest.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(ModelError, match="other rows, labels or splits"):
        remeasure(older_bundle, tmp_path / "newer", source=other, work=tmp_path / "work", workers=1)
    assert not (tmp_path / "newer").exists()
