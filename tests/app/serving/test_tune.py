"""Plans are measured with real workers, and the service uses the best one."""

import json

import pytest
from typer.testing import CliRunner

from polymodal.app.cli import app
from polymodal.app.cpus import Plan, plans
from polymodal.app.main import create_app
from polymodal.app.serving import tune
from polymodal.app.serving.tune import Measured, best
from polymodal.app.settings import BundleSource, Settings, SettingsError, load_settings
from polymodal.cores import available_cpus
from polymodal.model import load_bundle


def test_every_plan_uses_all_cores_and_has_several_sizes_of_batches():
    candidates = plans(8)
    assert {(plan.workers, plan.threads) for plan in candidates} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert len({plan.batch_items for plan in candidates}) > 2
    assert {(plan.workers, plan.threads) for plan in plans(1)} == {(1, 1)}


def test_the_best_plan_is_the_smallest_of_the_fastest():
    fast, lean, slow = (
        Measured(Plan(workers, 1, 8, 4), items_per_s) for workers, items_per_s in ((4, 100.0), (2, 98.0), (1, 60.0))
    )
    assert best([fast, lean, slow]) is lean
    assert best([fast, slow]) is fast
    smaller = Measured(Plan(4, 1, 4, 4), 99.0)
    assert best([fast, smaller]) is smaller


@pytest.mark.slow
def test_every_plan_is_measured_and_reported(tiny_bundle):
    reported = []
    inputs = tune.examples(load_bundle(tiny_bundle, threads=1))
    tried = [Plan(1, 1, 1, 2), Plan(1, 1, 8, 2)]
    measured = tune.measure(BundleSource("shapes", tiny_bundle), "onnx", tried, inputs, 0.01, reported.append)
    assert [result.plan for result in measured] == tried
    assert all(result.items_per_s > 0 for result in measured)
    assert reported == measured


@pytest.mark.slow
def test_the_command_writes_a_plan_that_the_service_reads(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("polymodal.app.cpus.plans", lambda cores: [Plan(1, 1, 5, cores)])
    out = tmp_path / "plan.json"
    result = CliRunner().invoke(app, ["tune", str(tiny_bundle), "--out", str(out), "--seconds", "0.1"])
    assert result.exit_code == 0, result.output
    assert "workers 1, threads 1, batches of up to 5" in result.stdout
    settings = load_settings({"POLYMODAL_PLAN": str(out)})
    assert (settings.workers, settings.inference_threads, settings.max_batch_items) == (1, 1, 5)
    assert settings.plan.cores == available_cpus()
    assert json.loads(out.read_text())["runtime"].startswith("onnx")


@pytest.fixture
def plan(tmp_path):
    def write(**changed):
        document = {"plan": {"workers": 3, "threads": 2, "batch_items": 4, "cores": 6, **changed}}
        (tmp_path / "plan.json").write_text(json.dumps(document))
        return str(tmp_path / "plan.json")

    return write


def test_other_settings_override_the_plan(plan):
    settings = load_settings({"POLYMODAL_PLAN": plan(), "POLYMODAL_MAX_BATCH_ITEMS": "7"})
    assert (settings.workers, settings.inference_threads, settings.max_batch_items) == (3, 2, 7)
    one = load_settings({"POLYMODAL_PLAN": plan(), "POLYMODAL_WORKERS": "1"})
    assert (one.workers, one.inference_threads) == (1, available_cpus())  # threads were measured for three


@pytest.mark.parametrize(
    "changed",
    [{"workers": -1}, {"threads": 0}, {"batch_items": "many"}, {"cores": None}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_file_that_is_no_plan_is_refused_before_the_start(plan, changed):
    with pytest.raises(SettingsError, match=r"POLYMODAL_PLAN=.*plan\.json"):
        load_settings({"POLYMODAL_PLAN": plan(**changed)})


def test_a_plan_that_is_missing_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.json cannot be read: No such file"):
        load_settings({"POLYMODAL_PLAN": str(tmp_path / "absent.json")})


async def test_a_plan_for_another_number_of_cores_is_logged(tiny_bundle, logs):
    predictor = load_bundle(tiny_bundle, threads=1)
    service = create_app(Settings(plan=Plan(1, 1, 4, cores=4096)), {"shapes": predictor})
    async with service.router.lifespan_context(service):
        assert [entry["measured"] for entry in logs if entry["event"] == "plan_for_other_cores"] == [4096]
