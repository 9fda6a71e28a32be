"""A report of an older release gets the measures of today, and nothing else of the bundle changes."""

import json
from pathlib import Path

import pytest

from polymodal.model import ModelError, load_bundle
from polymodal.model.bundle import read_bundle, write_bundle
from polymodal.model.training import remeasure

ADDED = ("confidence_at_90_percent_coverage", "confusion", "reliability")


@pytest.fixture
def older_bundle(tiny_bundle, tmp_path) -> Path:
    """As an older release wrote it: without the measures of ADDED."""
    bundle = read_bundle(tiny_bundle)
    metrics = json.loads(json.dumps(bundle.report["metrics"]))
    for sets in metrics.values():
        for told in sets.values():
            for name in ADDED:
                del told[name]
    graphs = {path.stem: path.read_bytes() for path in (tiny_bundle / "onnx").iterdir()}
    write_bundle(
        tmp_path / "older",
        config=bundle.config,
        inputs=bundle.inputs,
        weights=bundle.read_stored(),
        graphs=graphs,
        report={**bundle.report, "metrics": metrics},
        golden=[dict(each) for each in bundle.golden],
        card=bundle.card,
    )
    return tmp_path / "older"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_report_lacks_is_measured_and_all_else_stays(older_bundle, tiny_bundle, manifest_folder, tmp_path):
    out = tmp_path / "newer"
    assert remeasure(older_bundle, out, source=manifest_folder, work=tmp_path / "work", workers=1) == ADDED
    before, after = files_of(older_bundle), files_of(out)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"report.json", "SHA256SUMS"}
    trained = read_bundle(tiny_bundle).report["metrics"]
    report = load_bundle(out, threads=1).description.report
    assert report["added"]["measures"] == list(ADDED)
    for part, sets in report["metrics"].items():
        for key, told in sets.items():
            assert told["confusion"] == trained[part][key]["confusion"]
            assert told["confidence_at_90_percent_coverage"] == pytest.approx(
                trained[part][key]["confidence_at_90_percent_coverage"], abs=1e-4
            )


def test_a_report_that_lacks_nothing_stays_as_it_is(tiny_bundle, manifest_folder, tmp_path):
    out = tmp_path / "same"
    assert remeasure(tiny_bundle, out, source=manifest_folder, work=tmp_path / "work", workers=1) == ()
    assert files_of(out) == files_of(tiny_bundle)


def test_other_data_is_refused(older_bundle, manifest_folder, tmp_path):
    lines = (manifest_folder / "manifest.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(manifest_folder / "images")
    (other / "manifest.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(ModelError, match="other rows, labels or splits"):
        remeasure(older_bundle, tmp_path / "newer", source=other, work=tmp_path / "work", workers=1)
    assert not (tmp_path / "newer").exists()
