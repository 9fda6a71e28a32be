"""The commands that work with a finished bundle, as a user meets them: what they print, write and exit with."""

import asyncio
import csv
import json
import sys

import httpx
import pytest
from typer.testing import CliRunner

from polymodal.app.cli import app
from polymodal.app.commands import terminal
from polymodal.app.commands.command import BAD_ROWS, INTERRUPTED
from polymodal.app.main import create_app
from polymodal.app.settings import Settings
from polymodal.model import load_bundle


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def assert_explained(result, *words, code=1):
    """One message and that exit code: nothing of Python."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


@pytest.fixture
def with_a_bad_row(manifest_folder, tmp_path):
    """Five rows without labels, of which the second has no picture."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("test-sea-0", "test-sea-1"):
        (folder / f"images/{name}.png").write_bytes((manifest_folder / f"images/{name}.png").read_bytes())
    rows = ["id,image,text", "a,images/test-sea-0.png,blue", "b,images/lost.png,", "c,,red", "d,images/test-sea-1.png,"]
    (folder / "manifest.csv").write_text("\n".join([*rows, "e,,ripe fruit"]) + "\n", encoding="utf-8")
    return folder


# --- evaluate ---


def test_evaluate_prints_what_the_training_measured(tiny_bundle, manifest_folder):
    result = polymodal("evaluate", tiny_bundle, manifest_folder)
    assert result.exit_code == 0, result.output
    recorded = load_bundle(tiny_bundle, threads=1).description.report["metrics"]["test"]
    assert "shapes, test split of" in result.stdout
    for key in recorded:
        low, high = recorded[key]["intervals"]["accuracy"]
        assert f"{recorded[key]['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in result.stdout
    for label in ("sea", "tomato"):
        assert label in result.stdout


def test_evaluate_writes_a_folder_and_json(tiny_bundle, manifest_folder, tmp_path):
    options = ["--split", "validation", "--out", tmp_path / "report", "--json"]
    result = polymodal("evaluate", tiny_bundle, manifest_folder, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "report/metrics.json").read_bytes())
    assert json.loads(result.stdout)["split"] == "validation"
    assert (tmp_path / "report/index.html").exists()


def test_evaluate_lists_the_rows_that_it_left_out(tiny_bundle, tmp_path):
    rows = ["id,text,label", "a,blue,sea", "b,red,tomato", "c,a table,[bold]furniture[/bold]"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = polymodal("evaluate", tiny_bundle, tmp_path)
    assert result.exit_code == 0
    assert "1 row left out:\n  c: label '[bold]furniture[/bold]' is not one of the bundle's" in result.stderr


@pytest.mark.parametrize(
    ("command", "package"),
    [
        pytest.param(["evaluate", "--out", "report"], "matplotlib", id="figures"),
        pytest.param(["score", "--out", "scores.parquet"], "pyarrow", id="parquet"),
    ],
)
def test_a_package_that_is_missing_is_named_before_the_work(
    tiny_bundle, manifest_folder, tmp_path, monkeypatch, command, package
):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("polymodal.model.evaluation.folder", "polymodal.model.evaluation.plots"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    name, option, value = command
    result = polymodal(name, tiny_bundle, manifest_folder, option, tmp_path / value)
    assert_explained(result, f"polymodal: the package {package}", "pip install 'polymodal[train]'")
    assert not list(tmp_path.iterdir())


# --- predict ---


@pytest.mark.parametrize("given", [("image", "text"), ("image",), ("text",)], ids="+".join)
def test_predict_says_what_the_service_says(tiny_bundle, manifest_folder, given):
    picture = manifest_folder / "images/test-sea-0.png"
    options = [*(("--image", picture) if "image" in given else ()), *(("--text", "blue") if "text" in given else ())]
    result = polymodal("predict", tiny_bundle, *options, "--json")
    assert result.exit_code == 0, result.output

    async def asked():
        service = create_app(Settings(bundles=f"shapes={tiny_bundle}", workers=0, inference_threads=1))
        transport = httpx.ASGITransport(service)
        async with (
            service.router.lifespan_context(service),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            files = {"image": picture.read_bytes()} if "image" in given else {}
            files |= {"text": (None, "blue")} if "text" in given else {}
            return (await client.post("/v1/classify", files=files)).json()

    answer = asyncio.run(asked())
    found = json.loads(result.stdout)
    assert found.keys() == answer.keys()
    assert {name: found[name] for name in ("model", "digest", "modalities")} == {
        name: answer[name] for name in ("model", "digest", "modalities")
    }
    assert [each["label"] for each in found["labels"]] == [each["label"] for each in answer["labels"]]
    for mine, theirs in zip(found["labels"], answer["labels"], strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-6)


def test_predict_shows_the_best_labels_first(tiny_bundle):
    result = polymodal("predict", tiny_bundle, "--text", "deep water, blue")
    assert result.stdout.index("sea") < result.stdout.index("tomato")
    best = polymodal("predict", tiny_bundle, "--text", "deep water, blue", "--top-k", "1").stdout
    assert "sea" in best
    assert "tomato" not in best


def test_predict_explains_what_it_cannot_take(tiny_bundle, tmp_path):
    assert_explained(polymodal("predict", tiny_bundle, "--text", " "), "at least one of image, text")
    assert polymodal("predict", tiny_bundle).exit_code == 2
    for options in (["--input", "sound=a.wav"], ["--input", "text"], ["--text", "a", "--input", "text=b"]):
        assert polymodal("predict", tiny_bundle, *options).exit_code == 2
    assert_explained(polymodal("predict", tiny_bundle, "--input", "image=none.png"), "none.png: No such file")
    (tmp_path / "words.png").write_text("words", encoding="utf-8")
    result = polymodal("predict", tiny_bundle, "--image", tmp_path / "words.png")
    assert_explained(result, "polymodal: image: bytes of no known picture format; allowed: image/jpeg")
    assert polymodal("predict", tiny_bundle, "--image", tmp_path / "lost.png").exit_code == 2


def test_inputs_by_name_are_those_of_the_options(tiny_bundle, manifest_folder):
    image = manifest_folder / "images/test-sea-0.png"
    options = polymodal("predict", tiny_bundle, "--image", image, "--text", "a=b", "--json").stdout
    assert (
        polymodal("predict", tiny_bundle, "--input", "text=a=b", "--input", f"image={image}", "--json").stdout
        == options
    )


# --- score ---


def test_score_reports_bad_rows_and_goes_on(tiny_bundle, with_a_bad_row, tmp_path):
    result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "scores.csv: 5 rows, 1 with an error" in result.stderr
    assert "1 row left out:\n  b: image 'images/lost.png' is not there" in result.stderr
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [name for name, row in rows.items() if row["error"]] == ["b"]
    assert rows["c"]["label"] == rows["e"]["label"] == "tomato"


def test_score_can_be_strict_about_bad_rows(tiny_bundle, with_a_bad_row, tmp_path):
    result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "scores.csv", "--strict")
    assert_explained(result, "1 with an error", code=BAD_ROWS)
    assert (tmp_path / "scores.csv").exists()


def test_ctrl_c_says_how_to_go_on(tiny_bundle, with_a_bad_row, tmp_path, monkeypatch):
    def interrupted(rows, total, done=0):
        yield next(rows)
        raise KeyboardInterrupt

    out = tmp_path / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr(terminal, "watched", interrupted)
        result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", out)
    assert_explained(result, "scores.csv.part holds 0 rows, and the same command goes on from there", code=INTERRUPTED)
    assert not out.exists()
    assert polymodal("score", tiny_bundle, with_a_bad_row, "--out", out).exit_code == 0


def test_a_place_that_cannot_be_written_to_is_explained(tiny_bundle, with_a_bad_row, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "file/scores.csv")
    assert_explained(result, "polymodal: ", "file")


@pytest.mark.parametrize("command", ["score", "evaluate", "check"])
def test_what_was_read_in_another_way_is_shown_once(tiny_bundle, tmp_path, command):
    rows = [
        f"{'deep water, blue' if number % 2 else 'red'};{'sea' if number % 2 else 'tomato'};x" for number in range(8)
    ]
    (tmp_path / "new.csv").write_text("\n".join(["text;label;mood", *rows]), encoding="utf-8")
    bundle = [] if command == "check" else [tiny_bundle]
    out = ["--out", tmp_path / "scores.csv"] if command == "score" else []
    shown = polymodal(command, *bundle, tmp_path / "new.csv", *out).output
    assert shown.count("warning: new.csv: read as UTF-8, separated by semicolons") == 1
    assert shown.count("warning: unknown column 'mood' is ignored") == 1
    out = ["--out", tmp_path / "again.csv"] if command == "score" else []
    summary = json.loads(polymodal(command, *bundle, tmp_path / "new.csv", *out, "--json").stdout)
    assert len([warning for warning in summary["warnings"] if "new.csv" in warning or "mood" in warning]) == 2


# --- card ---


def test_a_card_is_raw_where_nobody_looks_and_set_in_type_in_a_terminal(tiny_bundle):
    raw = (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert polymodal("card", tiny_bundle).stdout == raw
    set_in_type = polymodal("card", tiny_bundle, FORCE_COLOR="1", COLUMNS="100").stdout
    assert "## How good it is" in raw
    assert "How good it is" in set_in_type
    assert "## How good it is" not in set_in_type


def test_the_embedded_bundle_is_known_by_its_name():
    assert polymodal("card", "illustrations").stdout.startswith("# illustrations\n")


@pytest.mark.parametrize("command", [["card"], ["predict", "--text", "blue"]], ids=["card", "predict"])
def test_a_bundle_that_is_not_there_is_explained(tmp_path, command):
    name, *options = command
    assert_explained(polymodal(name, tmp_path / "nowhere", *options), "nowhere: no such folder; expected a bundle")
