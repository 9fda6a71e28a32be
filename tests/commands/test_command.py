"""What all commands have in common: help with examples that work, exit codes, errors without tracebacks."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from polymodal.app.cli import app
from polymodal.app.commands.command import BAD_ROWS, BUG, FAILED, INTERRUPTED, AsJson, command
from polymodal.model import ModelError

PROJECT = Path(__file__).parents[2]
DOCUMENTATION = (PROJECT / "docs/commands.md").read_text(encoding="utf-8")
TREE = typer.main.get_command(app)
WITHOUT_JSON = {"serve"}  # it prints no result


def leaves(node=TREE, names=()):
    """Every command with its name, such as `keys add`."""
    if hasattr(node, "commands"):
        for name, each in node.commands.items():
            yield from leaves(each, (*names, name))
    else:
        yield " ".join(names), node


COMMANDS = dict(leaves())


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def examples_of(epilog):
    return [line.strip() for line in (epilog or "").splitlines() if "polymodal " in line]


EXAMPLES = [
    *((f"polymodal, {line}", line) for line in examples_of(TREE.epilog)),
    *((f"{name}: {line}", line) for name, each in COMMANDS.items() for line in examples_of(each.epilog)),
]


def test_every_command_has_examples_of_itself():
    for name, each in COMMANDS.items():
        found = examples_of(each.epilog)
        assert found, name
        assert all(f"polymodal {name}" in line for line in found), name


def invocations(line):
    """The words of each `polymodal` in a line of shell."""
    for part in re.split(r"&&|[;>()]", line):
        words = shlex.split(part)
        if "polymodal" in words:
            yield words[words.index("polymodal") + 1 :]


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_an_example_has_only_options_that_there_are(line):
    for words in invocations(line):
        node = TREE
        while hasattr(node, "commands"):
            node = node.commands[words.pop(0)]
        known = {option for parameter in node.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_has_a_result_can_say_it_in_json(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    if name not in WITHOUT_JSON and name != "keys remove":
        assert "--json" in options
    assert "--debug" in options


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documentation_has_every_command_with_an_example(name):
    assert f"polymodal {name}" in DOCUMENTATION


def test_the_documentation_has_every_exit_code():
    for code in (0, FAILED, 2, BAD_ROWS, BUG, INTERRUPTED):
        assert f"\n| {code} |" in DOCUMENTATION


def test_the_documentation_has_every_option():
    missing = {
        f"{name} {option}"
        for name, each in COMMANDS.items()
        for parameter in each.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help" and not parameter.hidden and option not in DOCUMENTATION
    }
    assert not missing


# --- errors ---


def failing(error):
    commands = typer.Typer()

    @commands.callback()
    def everything() -> None:
        """So that the command below has a name."""

    @command(commands, "polymodal work")
    def work(as_json: AsJson = False) -> None:
        """Fail."""
        raise error

    return commands


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param(ModelError("a bundle that is none"), FAILED, "polymodal: a bundle that is none\n", id="model"),
        pytest.param(
            FileNotFoundError(2, "No such file", "x.csv"), FAILED, "polymodal: x.csv: No such file\n", id="file"
        ),
        pytest.param(
            ModuleNotFoundError("no", name="pyarrow"), FAILED, "polymodal: the package pyarrow is not", id="package"
        ),
        pytest.param(
            ValueError("odd"), BUG, "polymodal: an error of polymodal itself (ValueError: odd); where it", id="bug"
        ),
        pytest.param(OSError(28, "No space left on device"), FAILED, "polymodal: No space left on device\n", id="disk"),
        pytest.param(KeyboardInterrupt(), INTERRUPTED, "", id="ctrl-c"),
        pytest.param(
            KeyboardInterrupt("x.part has 3 rows"), INTERRUPTED, "polymodal: x.part has 3 rows\n", id="stopped"
        ),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(error, code, message):
    ended = CliRunner().invoke(failing(error), ["work"])
    assert ended.exit_code == code
    assert ended.stdout == ""
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") <= 1
    shown = CliRunner().invoke(failing(error), ["work", "--debug"])
    assert shown.exit_code == code
    assert "Traceback (most recent call last)" in shown.stderr
    assert (message.partition(";")[0] if code == BUG else message) in shown.stderr
    assert "shown by --debug" not in shown.stderr


def test_debug_may_stand_before_the_command_and_after_it(tmp_path):
    asked = ["card", tmp_path / "nowhere"]
    assert "Traceback" not in polymodal(*asked).output
    for line in (["--debug", *asked], [*asked, "--debug"]):
        result = polymodal(*line)
        assert result.exit_code == FAILED
        assert "Traceback" in result.stderr
        assert "no such folder; expected a bundle" in result.stderr.splitlines()[-1]
    assert "Traceback" not in polymodal(*asked).output


def test_a_reader_that_has_seen_enough_is_no_error():
    ended = CliRunner().invoke(failing(BrokenPipeError(32, "Broken pipe")), ["work"])
    assert "polymodal:" not in ended.output


def test_wrong_usage_is_2():
    for words in (
        ["abacus"],
        ["predict", "--abacus"],
        ["predict", "--top-k", "0"],
        ["serve", "--port", "70000"],
        ["score"],
    ):
        assert polymodal(*words).exit_code == 2, words
    assert "Did you mean" in polymodal("sevre").output


def test_the_version_is_that_of_the_project():
    result = polymodal("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"polymodal \d+\.\d+\.\d+\S*\n", result.stdout)


def test_help_has_a_short_form():
    assert "Usage:" in polymodal("-h").output
    assert "Usage:" in polymodal("keys", "add", "-h").output


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        pytest.param("polymodal ser", {"serve"}, id="command"),
        pytest.param("polymodal keys re", {"remove"}, id="command-of-a-group"),
        pytest.param("polymodal predict --to", {"--top-k"}, id="option"),
        pytest.param("polymodal train --device c", {"cpu", "cuda"}, id="choice"),
    ],
)
def test_a_shell_can_complete_commands_and_options(line, offered):
    environment = {
        "_POLYMODAL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = CliRunner().invoke(app, [], prog_name="polymodal", env=environment)
    assert set(result.stdout.split()) == offered


def test_commands_import_what_is_heavy_when_they_run():
    for file in (PROJECT / "app/commands").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert {name for name in names if name.startswith(("app.", "model"))} <= {
            "polymodal.app.commands.bundles",
            "polymodal.app.commands.command",
            "polymodal.app.cpus",
        }, file


# --- JSON ---


def test_a_manifest_is_checked_for_machines(manifest_folder, tmp_path):
    summary = json.loads(polymodal("check", manifest_folder, "--json").stdout)
    assert summary["rows"] == {"train": 24, "validation": 12, "test": 12}
    assert summary["labels"]["train"] == {"sea": 12, "tomato": 12}
    assert summary["errors"] == []
    (tmp_path / "manifest.csv").write_text("image,text,label\nlost.png,words,sea\n", encoding="utf-8")
    broken = polymodal("check", tmp_path, "--json")
    assert broken.exit_code == FAILED
    assert any("lost.png" in error for error in json.loads(broken.stdout)["errors"])


def test_a_root_is_allowed_by_an_option_that_may_be_repeated(tmp_path):
    for name in ("photos/a.png", "archive/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/things.csv"
    table.write_text(f"image,label\n{tmp_path}/photos/a.png,x\n../archive/b.png,y\n", encoding="utf-8")
    refused = polymodal("check", table)
    assert "2 × image … leaves the folder: line 2" in refused.stdout
    assert "or below a folder that --root names" in refused.stdout
    allowed = polymodal("check", table, "--root", tmp_path / "photos", "--root", tmp_path / "archive")
    assert "image" not in "".join(line for line in allowed.stdout.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    ("package", "name", "words"),
    [
        pytest.param("training", "train", ["MANIFEST", "--out", "out"], id="train"),
        pytest.param("training", "export", ["bundle", "--manifest", "MANIFEST", "--out", "out"], id="export"),
        pytest.param("training", "remeasure", ["bundle", "--manifest", "MANIFEST", "--out", "out"], id="remeasure"),
        pytest.param("evaluation", "score", ["bundle", "MANIFEST", "--out", "out.csv"], id="score"),
        pytest.param("evaluation", "evaluate", ["bundle", "MANIFEST"], id="evaluate"),
    ],
)
def test_every_command_that_reads_a_manifest_passes_its_roots_on(monkeypatch, tmp_path, package, name, words):
    passed = []

    def run(*_args, roots, **_options):
        passed.extend(roots)
        raise ModelError("enough seen")

    monkeypatch.setattr(f"polymodal.model.{package}.{name}", run)
    monkeypatch.setattr("polymodal.app.commands.bundles.open_bundle", lambda bundle: bundle)
    (tmp_path / "things.csv").write_text("text,label\n", encoding="utf-8")
    words = [str(tmp_path / "things.csv") if word == "MANIFEST" else word for word in words]
    assert "enough seen" in polymodal(name, *words, "--root", tmp_path, "--root", tmp_path.parent).stderr
    assert passed == [tmp_path, tmp_path.parent]


def test_scoring_is_summed_up_for_machines(tiny_bundle, tmp_path):
    (tmp_path / "rows.csv").write_text("id,image,text\na,,blue\nb,lost.png,\n", encoding="utf-8")
    result = polymodal("score", tiny_bundle, tmp_path / "rows.csv", "--out", tmp_path / "scores.csv", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {name: found[name] for name in ("rows", "resumed", "failed")} == {"rows": 2, "resumed": 0, "failed": 1}
    (error,) = found["errors"]
    assert error["id"] == "b"
    assert error["problem"].startswith("image 'lost.png' is not there")


def test_a_card_for_machines_is_what_the_service_says_of_a_model(tiny_bundle):
    card = json.loads(polymodal("card", tiny_bundle, "--json").stdout)
    assert (card["name"], card["task"], card["labels"]) == ("shapes", "single-label", ["sea", "tomato"])
    assert card["card"] == (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert {each["name"] for each in card["inputs"]} == {"image", "text"}


def test_keys_are_listed_for_machines_without_their_hashes(tmp_path):
    file = tmp_path / "keys.json"
    made = json.loads(polymodal("keys", "add", "shop", "--file", file, "--json").stdout)
    assert made["key"].startswith("pm_")
    (listed,) = json.loads(polymodal("keys", "list", "--file", file, "--json").stdout)
    assert listed == {name: made[name] for name in ("name", "scopes", "created", "expires")}
    removed = polymodal("keys", "remove", "shop", "--file", file)
    assert (removed.stdout, removed.stderr) == ("", f"polymodal: {file}: shop opens nothing any more\n"[11:])
    assert json.loads(polymodal("keys", "list", "--file", file, "--json").stdout) == []


def test_a_toy_data_set_is_reported_as_json(tmp_path):
    written = json.loads(polymodal("data", "shapes", "--out", tmp_path / "shapes", "--rows", "8", "--json").stdout)
    assert written == {"manifest": str(tmp_path / "shapes/manifest.csv"), "rows": 8}


def test_an_exported_bundle_is_reported_as_json(tiny_bundle, tmp_path):
    result = polymodal("export", tiny_bundle, "--out", tmp_path / "again", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["bundle"] == str(tmp_path / "again")
    assert len(found["digest"]) == 64
