"""Run the blocks of a document in a folder like a checkout, with one bash for all commands, which keeps variables and jobs."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import free_port
from tests.documents.blocks import (
    HELP,
    PROJECT,
    SHELL,
    Block,
    BlockError,
    commands_in,
    difference,
    json_values,
    problems_of,
    text_pattern,
)

ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|localhost):8000\b")
SERVES = re.compile(r"^(?:[A-Z_]+=\S+ +)*polymodal serve\b(?!.* (?:--help|-h|--check)\b)")
"""A command that runs until it is stopped."""
COPIED = ("examples", "scripts", ".env.example", "Makefile", "pyproject.toml", "docker-compose.yml", "README.md")
LINKED = ("app", "model", "docs", "deploy", "benchmarks", "client")
NODE = shutil.which("node")
SCRIPTS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
ENTRY = "from {0} import {1}; {1}()".format(*SCRIPTS["polymodal"].split(":"))
"""Code of the command `polymodal`."""

POLYMODAL = [sys.executable, "-c", ENTRY]
SHIM = """#!/bin/sh
# `serve` replaces the service that this document started before.
if [ "$1" = serve ]; then
    if [ -s "$STATE/serve.pid" ]; then
        kill -TERM "$(cat "$STATE/serve.pid")" 2>/dev/null
        while kill -0 "$(cat "$STATE/serve.pid")" 2>/dev/null; do sleep 0.1; done
    fi
    echo $$ >"$STATE/serve.pid"
fi
exec "{python}" -c '{entry}' "$@"
"""
MAKE = """#!/bin/sh
# Targets are only checked to exist.
for target in "$@"; do
    case $target in
    *=* | -*) ;;
    *) grep -q "^$target:" Makefile || { echo "the Makefile has no target $target" >&2; exit 1; } ;;
    esac
done
"""
PIP = """#!/usr/bin/env -S {python}
# Nothing is installed; extras are checked to exist.
import re, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = {{extra for word in sys.argv for names in re.findall(r"(?:polymodal|\\.)\\[(.+?)\\]", word) for extra in names.split(",")}}
unknown = extras - project["optional-dependencies"].keys()
sys.exit(", ".join(unknown) + ": no extra of pyproject.toml" if unknown else 0)
"""
CURL = 'fail-with-body\nsilent\nshow-error\nnoproxy = "*"\nmax-time = 60\n'
"""Settings of curl: the command fails when the response is a problem."""
TIMEOUT_S = 500
PROLOGUE = r"""
set -o pipefail
step() { printf '%s' "$1" >"$STATE/at"; exec >"$STATE/$1.out" 2>"$STATE/$1.err"; }
ready() {
    for _ in $(seq 600); do
        curl --disable --silent --fail --noproxy '*' --output /dev/null "http://127.0.0.1:$1/readyz" 2>/dev/null && return
        [ "$1" != "$POLYMODAL_PORT" ] || [ -n "$(jobs -rp)" ] || break
        sleep 0.1
    done
    echo "no service is ready at port $1; its log:" >&2
    cat "$STATE/serve.log" >&2
    exit 1
}
finish() { status=$?; trap - EXIT; kill $(jobs -p) 2>/dev/null; wait; exit "$status"; }
trap finish EXIT
"""


@dataclass
class Step:
    """A command of a shell block, or another block."""

    block: Block
    line: int
    command: str
    """For bash, before the address is replaced."""
    printed: str = ""

    @property
    def place(self) -> str:
        return f"{self.block.document}:{self.line}"


# --- the folder ---


def make_checkout(folder: Path) -> Path:
    """Make a folder like a checkout."""
    place = folder / "polymodal"
    place.mkdir()
    for name in COPIED:
        source = PROJECT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
    for name in LINKED:
        if (PROJECT / name).exists():
            (place / name).symlink_to(PROJECT / name)
    return place


def add_user_data(place: Path, things: Path, bundle: Path) -> None:
    """Add a user's data (things/, things.csv, new.csv), and the bundle that was trained on them (bundles/things)."""
    shutil.copytree(things, place / "things")
    shutil.copytree(things / "images", place / "images")
    shutil.copytree(bundle, place / "bundles/things")
    (place / "bundles/things.run").mkdir()
    with (things / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        "things.csv": [name for name in rows[0] if name != "split"],
        "new.csv": ["id", "image", "text"],
        "bundles/things.run/split.csv": ["id", "split"],
    }
    for name, names in columns.items():
        with (place / name).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def _write_programs(folder: Path) -> None:
    """Write the programs that come first on the path."""
    folder.mkdir(parents=True)
    programs = {
        "polymodal": SHIM.format(python=sys.executable, entry=ENTRY),
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "make": MAKE,
        "pip": PIP.format(python=sys.executable),
    }
    for name, text in programs.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / "activate").write_text("", encoding="utf-8")


# --- running ---


def run_blocks(blocks: list[Block], place: Path, shared_port: int, *, slowly: bool = False) -> list[str]:
    """Run and check blocks in order; return a line for each. Raises BlockError at the first failure.

    Requests to 127.0.0.1:8000 go to the service at `shared_port`, until the document starts a service of its own.
    """
    steps: list[Step] = []
    compared: list[tuple[Block, int]] = []  # with the number of steps before it
    lines = []
    if problems := problems_of(blocks):
        raise BlockError("\n".join([*problems, HELP]))
    for block in blocks:
        done = block.treatment
        if block.mark == "slow" and not slowly:
            done = "skipped, slow"
        elif block.language == "js" and done == "run" and NODE is None:
            done = "skipped, as node is not installed"
        elif done == "run" and block.language in SHELL:
            steps += [Step(block, block.line + at, command) for at, command in commands_in(block.text)]
        elif done == "run":
            program = {"python": "python", "js": "node --input-type=module <"}[block.language]
            steps.append(Step(block, block.line, f'{program} "$STATE/{block.line}"'))
        elif done == "written":
            steps.append(Step(block, block.line, f'install -D -m 644 "$STATE/{block.line}" "{block.note}"'))
        if block.mark == "answer":
            steps.append(Step(block, block.line, block.note))
        if done == "compared" or (done == "parsed" and block.language == "json"):
            compared.append((block, len(steps)))
        lines.append(f"{block.place} {block.language or 'text'}: {done}{f' ({block.note})' if block.note else ''}")
    if steps:
        _run(steps, place, shared_port)
    for block, before in compared:
        _compare(block, [step for step in steps[:before] if step.block.section == block.section])
    return lines


def _run(steps: list[Step], place: Path, shared_port: int) -> None:
    state, port = place.parent / "state", free_port()
    (state / "home").mkdir(parents=True)
    (state / ".curlrc").write_text(CURL, encoding="utf-8")
    _write_programs(place / ".venv/bin")
    for program in (place / "examples").glob("*.py"):
        program.write_text(
            ADDRESS.sub(f"127.0.0.1:{shared_port}", program.read_text(encoding="utf-8")), encoding="utf-8"
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLYMODAL_")}
    environment |= {"STATE": str(state), "HOME": str(state / "home"), "CURL_HOME": str(state), "HF_HUB_OFFLINE": "1"}
    environment |= {
        "PATH": f"{place / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'client'}",
    }
    environment |= {"POLYMODAL_PORT": str(port), "POLYMODAL_WORKERS": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "*"}
    script = _script(steps, state, shared_port, port)
    (state / "script").write_text(script, encoding="utf-8")
    bash = subprocess.Popen(
        ["bash", state / "script"], cwd=place, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        status = bash.wait(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        status = "none in time"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(bash.pid, signal.SIGKILL)  # processes that the document left running
        bash.wait()
    for number, step in enumerate(steps):
        if (state / f"{number}.out").exists():
            step.printed = (state / f"{number}.out").read_text(encoding="utf-8")
    if status != 0:
        at = int((state / "at").read_text())
        output = (state / f"{at}.out").read_text("utf-8")[-1500:] + (state / f"{at}.err").read_text("utf-8")[-3000:]
        allowed = "an exit code other than 0" if steps[at].block.mark == "fails" else "0"
        raise BlockError(
            f"{steps[at].place}: exit code {status} instead of {allowed} from\n{steps[at].command}\n{output}\n"
            f"Fix the command, or if it can't be run here: {HELP}"
        )


def _script(steps: list[Step], state: Path, shared_port: int, own_port: int) -> str:
    """Return the script of all steps, each with its output in files of its own."""
    lines, port = [PROLOGUE], shared_port
    for number, step in enumerate(steps):
        lines.append(f"step {number}")
        command = re.sub(r"\s+#.*$", "", step.command).removesuffix("&").rstrip()
        if SERVES.search(command):
            port = own_port
            without_port = re.sub(r" --port \d+", "", command)
            lines += [f'{without_port} >"$STATE/serve.log" 2>&1 &', f"ready {port}"]
            continue
        if ADDRESS.search(step.command + step.block.text):
            lines.append(f"ready {port}")
        (state / str(step.block.line)).write_text(ADDRESS.sub(f"127.0.0.1:{port}", step.block.text), encoding="utf-8")
        lines += [ADDRESS.sub(f"127.0.0.1:{port}", step.command), "status=$?"]
        last = step is steps[-1] or steps[number + 1].block is not step.block
        lines.append(
            '[ "$status" != 0 ] || exit'
            if step.block.mark == "fails" and last
            else '[ "$status" = 0 ] || exit "$status"'
        )
    return "\n".join(lines) + "\n"


def _compare(block: Block, before: list[Step]) -> None:
    if block.mark == "output":
        printed = before[-1].printed if before else ""
        lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        if not text_pattern(block.text).fullmatch(lines):
            raise BlockError(
                f"{block.place}: not the output of {before[-1].command if before else 'a command'}:\n{lines}"
            )
        return
    shown, printed = json_values(block.text), [value for step in before for value in _json_of(step)]
    if not printed and block.mark != "answer":
        return
    actual = printed[-len(shown) :]
    if problem := difference(shown, actual):
        raise BlockError(f"{block.place}: differs from the output: {problem}. The output is\n{actual}\n{HELP}")


def _json_of(step: Step) -> list[object]:
    try:
        return json_values(step.printed)
    except ValueError:
        return []
