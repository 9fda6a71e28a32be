"""What all commands share: help with working examples, exit codes, errors without tracebacks, and JSON."""

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
from tests.command_line import assert_explained, polymodal

DOCUMENTATION = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
ROOT = typer.main.get_command(app)
WITHOUT_RESULT = {"serve", "keys remove"}


def commands_below(node=ROOT, names=()):
    """Yield every command with its name, such as `keys add`."""
    if hasattr(node, "commands"):
        for name, child in node.commands.items():
            yield from commands_below(child, (*names, name))
    else:
        yield " ".join(names), node


COMMANDS = dict(commands_below())


def examples_in(epilog):
    return [line.strip() for line in (epilog or "").splitlines() if "polymodal " in line]


def options_of(node):
    return {option for parameter in node.params if not parameter.hidden for option in parameter.opts}


EXAMPLES = [
    (f"{name}: {line}", line)
    for name, node in {"polymodal": ROOT, **COMMANDS}.items()
    for line in examples_in(node.epilog)
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name):
    result = polymodal(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    lines = examples_in(COMMANDS[name].epilog)
    assert lines
    assert all(f"polymodal {name}" in line for line in lines)


def invocations(line):
    """Yield the arguments of each `polymodal` in a line of shell."""
    for command_line in re.split(r"&&|[;>()]", line):
        words = shlex.split(command_line)
        if "polymodal" in words:
            yield words[words.index("polymodal") + 1 :]


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_examples_use_only_existing_options(line):
    for words in invocations(line):
        node = ROOT
        while hasattr(node, "commands"):
            node = node.commands[words.pop(0)]
        assert {word for word in words if word.startswith("--")} <= options_of(node)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_debug_and_prints_its_result_as_json(name):
    assert {"--debug", *(() if name in WITHOUT_RESULT else ("--json",))} <= options_of(COMMANDS[name])


def test_the_documentation_has_every_command_option_and_exit_code():
    commands = {f"polymodal {name}" for name in COMMANDS}
    options = {option for node in COMMANDS.values() for option in options_of(node) if option.startswith("--")}
    codes = {f"\n| {code} |" for code in (0, FAILED, 2, BAD_ROWS, BUG, INTERRUPTED)}
    assert [text for text in commands | options | codes if text not in DOCUMENTATION] == []


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
        pytest.param(ModelError("a broken bundle"), FAILED, "polymodal: a broken bundle\n", id="model"),
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
    debugged = CliRunner().invoke(failing(error), ["work", "--debug"])
    assert debugged.exit_code == code
    assert "Traceback (most recent call last)" in debugged.stderr
    assert (message.partition(";")[0] if code == BUG else message) in debugged.stderr
    assert "shown by --debug" not in debugged.stderr


def test_debug_is_accepted_before_and_after_the_command(tmp_path):
    words = ["card", tmp_path / "nowhere"]
    for line in (["--debug", *words], [*words, "--debug"]):
        result = polymodal(*line)
        assert result.exit_code == FAILED
        assert "Traceback" in result.stderr
        assert "no such folder; expected a bundle" in result.stderr.splitlines()[-1]
        assert_explained(polymodal(*words), "no such folder")  # the option does not outlast its command


def test_a_closed_pipe_has_no_message():
    ended = CliRunner().invoke(failing(BrokenPipeError(32, "Broken pipe")), ["work"])
    assert "polymodal:" not in ended.output


WRONG_USAGE = [
    *("abacus", "predict --abacus", "predict --top-k 0", "serve --port 70000", "score"),
    *("train . --out out --device abacus", "train . --out out --precision int3", "train . --out out --epochs 0"),
    *("train . --out out --batch-size 1", "train . --out out --workers 0", "train . --out out --seed x"),
]


@pytest.mark.parametrize("line", WRONG_USAGE)
def test_wrong_usage_is_exit_code_2(line):
    assert polymodal(*line.split()).exit_code == 2


def test_a_similar_command_is_suggested():
    assert "Did you mean" in polymodal("sevre").output


def test_the_version_is_printed():
    result = polymodal("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"polymodal \d+\.\d+\.\d+\S*\n", result.stdout)


def test_help_lists_the_commands_and_has_a_short_form():
    result = polymodal("-h")
    assert result.exit_code == 0
    assert all(name.split()[0] in result.output for name in COMMANDS)
    assert "Usage:" in polymodal("keys", "add", "-h").output


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        pytest.param("polymodal ser", {"serve"}, id="command"),
        pytest.param("polymodal keys re", {"remove"}, id="command-of-a-group"),
        pytest.param("polymodal predict --to", {"--top-k"}, id="option"),
        pytest.param("polymodal train --device c", {"cpu", "cuda"}, id="choice"),
    ],
)
def test_a_shell_completes_commands_and_options(line, completions):
    environment = {
        "_POLYMODAL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = CliRunner().invoke(app, [], prog_name="polymodal", env=environment)
    assert set(result.stdout.split()) == completions


# --- roots of manifests ---


def test_root_is_repeatable_and_allows_files_outside_the_manifests_folder(tmp_path):
    for name in ("photos/a.png", "archive/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/things.csv"
    table.write_text(f"image,label\n{tmp_path}/photos/a.png,x\n../archive/b.png,y\n", encoding="utf-8")
    rejected = polymodal("check", table)
    assert "2 × image … leaves the folder: line 2" in rejected.stdout
    assert "or below a folder that --root names" in rejected.stdout
    allowed = polymodal("check", table, "--root", tmp_path / "photos", "--root", tmp_path / "archive")
    assert "image" not in "".join(line for line in allowed.stdout.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    ("package", "name", "words"),
    [
        pytest.param("training", "train", ["MANIFEST", "--out", "out"], id="train"),
        pytest.param("training", "export", ["bundle", "--manifest", "MANIFEST", "--out", "out"], id="export"),
        pytest.param("training", "remeasure", ["bundle", "--manifest", "MANIFEST", "--out", "out"], id="remeasure"),
        pytest.param("evaluation", "score", ["bundle", "MANIFEST", "--out", "out.csv"], id="score"),
        pytest.param("evaluation", "embed", ["bundle", "MANIFEST", "--out", "out.csv"], id="embed"),
        pytest.param("evaluation", "evaluate", ["bundle", "MANIFEST"], id="evaluate"),
    ],
)
def test_every_command_with_a_manifest_passes_its_roots_on(monkeypatch, tmp_path, package, name, words):
    passed = []

    def run(*_args, roots, **_options):
        passed.extend(roots)
        raise ModelError("stopped by the test")

    monkeypatch.setattr(f"polymodal.model.{package}.{name}", run)
    for opens in ("open_bundle", "open_model"):
        monkeypatch.setattr(f"polymodal.app.commands.bundles.{opens}", lambda bundle: bundle)
    (tmp_path / "things.csv").write_text("text,label\n", encoding="utf-8")
    words = [str(tmp_path / "things.csv") if word == "MANIFEST" else word for word in words]
    assert_explained(polymodal(name, *words, "--root", tmp_path, "--root", tmp_path.parent), "stopped by the test")
    assert passed == [tmp_path, tmp_path.parent]


# --- JSON ---


def test_keys_are_listed_as_json_without_their_hashes(tmp_path):
    file = tmp_path / "keys.json"
    added = json.loads(polymodal("keys", "add", "shop", "--file", file, "--json").stdout)
    assert added["key"].startswith("pm_")
    (listed,) = json.loads(polymodal("keys", "list", "--file", file, "--json").stdout)
    assert listed == {name: added[name] for name in ("name", "scopes", "created", "expires")}
    removed = polymodal("keys", "remove", "shop", "--file", file)
    assert (removed.stdout, removed.stderr) == ("", f"{file}: revoked shop\n")
    assert json.loads(polymodal("keys", "list", "--file", file, "--json").stdout) == []


def test_a_toy_data_set_is_reported_as_json(tmp_path):
    written = json.loads(polymodal("data", "shapes", "--out", tmp_path / "shapes", "--rows", "8", "--json").stdout)
    assert written == {"manifest": str(tmp_path / "shapes/manifest.csv"), "rows": 8}
