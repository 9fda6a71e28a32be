"""Commands about a finished bundle: their output, the files that they write and their exit codes."""

import csv
import json
import sys

import pytest

from polymodal.app.commands import terminal
from polymodal.app.commands.command import BAD_ROWS, INTERRUPTED
from polymodal.model import load_bundle
from tests.command_line import assert_explained, polymodal


@pytest.fixture
def with_a_bad_row(manifest_folder, tmp_path):
    """Return the folder of a manifest with five rows without labels, of which the image of the second is missing."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("test-sea-0", "test-sea-1"):
        (folder / f"images/{name}.png").write_bytes((manifest_folder / f"images/{name}.png").read_bytes())
    rows = ["id,image,text", "a,images/test-sea-0.png,blue", "b,images/lost.png,", "c,,red", "d,images/test-sea-1.png,"]
    (folder / "manifest.csv").write_text("\n".join([*rows, "e,,ripe fruit"]) + "\n", encoding="utf-8")
    return folder


# --- evaluate ---


def test_evaluate_prints_the_figures_of_the_training(tiny_bundle, manifest_folder):
    result = polymodal("evaluate", tiny_bundle, manifest_folder)
    assert result.exit_code == 0, result.output
    assert "shapes, test split of" in result.stdout
    for recorded in load_bundle(tiny_bundle, threads=1).description.report["metrics"]["test"].values():
        low, high = recorded["intervals"]["accuracy"]
        assert f"{recorded['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in result.stdout
    assert all(label in result.stdout for label in ("sea", "tomato"))


def test_evaluate_writes_a_folder_and_prints_json(tiny_bundle, manifest_folder, tmp_path):
    options = ["--split", "validation", "--out", tmp_path / "report", "--json"]
    result = polymodal("evaluate", tiny_bundle, manifest_folder, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "report/metrics.json").read_bytes())
    assert json.loads(result.stdout)["split"] == "validation"
    assert (tmp_path / "report/index.html").exists()


def test_evaluate_lists_skipped_rows(tiny_bundle, tmp_path):
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
def test_a_missing_package_is_reported_before_the_work(
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


def test_predict_prints_the_best_labels_first(tiny_bundle):
    result = polymodal("predict", tiny_bundle, "--text", "deep water, blue")
    assert result.stdout.index("sea") < result.stdout.index("tomato")
    best = polymodal("predict", tiny_bundle, "--text", "deep water, blue", "--top-k", "1").stdout
    assert "sea" in best
    assert "tomato" not in best


def test_predict_explains_invalid_inputs(tiny_bundle, tmp_path):
    (tmp_path / "words.png").write_text("words", encoding="utf-8")
    for options, message in (
        (["--text", " "], "at least one of image, text"),
        (["--input", "image=none.png"], "none.png: No such file"),
        (["--image", tmp_path / "words.png"], "image: bytes of no known picture format; allowed: image/jpeg"),
    ):
        assert_explained(polymodal("predict", tiny_bundle, *options), message)


@pytest.mark.parametrize(
    "options", ["", "--input sound=a.wav", "--input text", "--text a --input text=b", "--image lost.png"]
)
def test_wrong_inputs_of_predict_are_wrong_usage(tiny_bundle, options):
    assert polymodal("predict", tiny_bundle, *options.split()).exit_code == 2


def test_inputs_may_be_passed_by_name(tiny_bundle, manifest_folder):
    image = manifest_folder / "images/test-sea-0.png"
    by_option = polymodal("predict", tiny_bundle, "--image", image, "--text", "a=b", "--json")
    by_name = polymodal("predict", tiny_bundle, "--input", "text=a=b", "--input", f"image={image}", "--json")
    assert by_name.stdout == by_option.stdout != ""


# --- score ---


def test_score_reports_bad_rows_and_scores_the_others(tiny_bundle, with_a_bad_row, tmp_path):
    result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "scores.csv", "--json")
    assert result.exit_code == 0, result.output
    assert "scores.csv: 5 rows, 1 with an error" in result.stderr
    assert "1 row left out:\n  b: image 'images/lost.png' is not there" in result.stderr
    summary = json.loads(result.stdout)
    assert {name: summary[name] for name in ("rows", "resumed", "failed")} == {"rows": 5, "resumed": 0, "failed": 1}
    (error,) = summary["errors"]
    assert error["id"] == "b"
    assert error["problem"].startswith("image 'images/lost.png' is not there")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [name for name, row in rows.items() if row["error"]] == ["b"]
    assert rows["c"]["label"] == rows["e"]["label"] == "tomato"


def test_score_with_strict_has_an_exit_code_for_bad_rows(tiny_bundle, with_a_bad_row, tmp_path):
    result = polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "scores.csv", "--strict")
    assert (result.exit_code, result.stdout) == (BAD_ROWS, "")
    assert "1 with an error" in result.stderr
    assert (tmp_path / "scores.csv").exists()


def test_an_interrupted_score_explains_how_to_resume(tiny_bundle, with_a_bad_row, tmp_path, monkeypatch):
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


def test_an_output_that_cannot_be_written_is_explained(tiny_bundle, with_a_bad_row, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    assert_explained(polymodal("score", tiny_bundle, with_a_bad_row, "--out", tmp_path / "file/scores.csv"), "file")


@pytest.mark.parametrize("command", ["score", "evaluate", "check"])
def test_warnings_about_a_manifest_are_printed_once(tiny_bundle, tmp_path, command):
    rows = ["deep water, blue;sea;x", "red;tomato;x"] * 4
    (tmp_path / "new.csv").write_text("\n".join(["text;label;mood", *rows]), encoding="utf-8")

    def run(*options):
        bundle = [] if command == "check" else [tiny_bundle]
        out = ["--out", tmp_path / f"scores{len(options)}.csv"] if command == "score" else []
        return polymodal(command, *bundle, tmp_path / "new.csv", *out, *options)

    output = run().output
    assert output.count("warning: new.csv: read as UTF-8, separated by semicolons") == 1
    assert output.count("warning: unknown column 'mood' is ignored") == 1
    warnings = json.loads(run("--json").stdout)["warnings"]
    assert len([warning for warning in warnings if "new.csv" in warning or "mood" in warning]) == 2


# --- card, export ---


def test_a_card_is_markdown_in_a_file_and_formatted_in_a_terminal(tiny_bundle):
    markdown = (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert polymodal("card", tiny_bundle).stdout == markdown
    formatted = polymodal("card", tiny_bundle, FORCE_COLOR="1", COLUMNS="100").stdout
    assert "## How good it is" in markdown
    assert "How good it is" in formatted
    assert "## How good it is" not in formatted


def test_a_card_as_json_is_the_models_description_in_the_service(tiny_bundle):
    card = json.loads(polymodal("card", tiny_bundle, "--json").stdout)
    assert (card["name"], card["task"], card["labels"]) == ("shapes", "single-label", ["sea", "tomato"])
    assert card["card"] == (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert {spec["name"] for spec in card["inputs"]} == {"image", "text"}


def test_the_embedded_bundle_is_found_by_its_name():
    assert polymodal("card", "illustrations").stdout.startswith("# illustrations\n")


@pytest.mark.parametrize("command", [["card"], ["predict", "--text", "blue"]], ids=["card", "predict"])
def test_a_missing_bundle_is_explained(tmp_path, command):
    name, *options = command
    assert_explained(polymodal(name, tmp_path / "nowhere", *options), "nowhere: no such folder; expected a bundle")


@pytest.mark.slow
def test_an_exported_bundle_is_reported_as_json(tiny_bundle, tmp_path):
    result = polymodal("export", tiny_bundle, "--out", tmp_path / "again", "--json")
    assert result.exit_code == 0, result.output
    exported = json.loads(result.stdout)
    assert exported["bundle"] == str(tmp_path / "again")
    assert len(exported["digest"]) == 64


# --- models of other kinds ---


@pytest.mark.slow
def test_an_imported_model_is_reported_as_json(dual_encoder):
    folder, bundle = dual_encoder
    printed = json.loads((bundle.parent / "printed.json").read_text(encoding="utf-8"))
    description = load_bundle(bundle, threads=1).description
    assert printed["digest"] == description.digest
    assert (printed["source"], printed["name"]) == (folder.name, "tiny")
    assert {"family", "licence"} <= set(printed)


def test_an_imported_model_embeds_a_manifest_and_has_a_card(dual_encoder, with_a_bad_row, tmp_path):
    result = polymodal("embed", dual_encoder[1], with_a_bad_row, "--out", tmp_path / "vectors.jsonl")
    assert result.exit_code == 0, result.output
    first, second, *_ = map(json.loads, (tmp_path / "vectors.jsonl").read_text(encoding="utf-8").splitlines())
    assert len(first["image"]) == len(first["text"])
    assert "images/lost.png" in second["error"] or "cannot be read" in second["error"]
    assert polymodal("card", dual_encoder[1]).stdout.startswith("# tiny")
    card = json.loads(polymodal("card", dual_encoder[1], "--json").stdout)
    assert (card["kind"], card["tasks"], card["labels"]) == ("encoders", ["embed"], [])


def test_an_imported_model_compares_and_fills_an_index(dual_encoder, manifest_folder, tmp_path):
    image, bundle = manifest_folder / "images/test-sea-0.png", ("--bundle", dual_encoder[1])
    compared = json.loads(polymodal("similarity", image, "blue", *bundle, "--json").stdout)
    assert "match" not in compared["pairs"][0]
    built = polymodal("index", "build", manifest_folder, "--out", tmp_path / "shapes", *bundle)
    assert built.exit_code == 0, built.output
    answer = json.loads(
        polymodal("index", "search", tmp_path / "shapes", image, "--top-k", "1", *bundle, "--json").stdout
    )
    assert answer["hits"][0]["match"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["predict", "BUNDLE", "--text", "a cat"], id="predict"),
        pytest.param(["score", "BUNDLE", "MANIFEST", "--out", "scores.csv"], id="score"),
        pytest.param(["evaluate", "BUNDLE", "MANIFEST"], id="evaluate"),
    ],
)
def test_a_command_that_needs_a_target_names_the_kind(dual_encoder, manifest_folder, tmp_path, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"BUNDLE": dual_encoder[1], "MANIFEST": manifest_folder}
    result = polymodal(*(places.get(argument, argument) for argument in arguments))
    assert_explained(result, "a model of kind encoders, for embed alone; allowed: a network, which predicts a target")
    assert not (tmp_path / "scores.csv").exists()


def test_a_model_that_cannot_be_imported_is_explained(tmp_path):
    assert_explained(polymodal("import", tmp_path / "nowhere", "--out", tmp_path / "out"), "no such folder")
