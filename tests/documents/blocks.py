"""Fenced blocks of the documents: parse them, and check them as their language and their comment require.

A comment directly above a fence changes how the block is checked:

    <!-- not run: needs a cluster -->            neither run nor checked, with the reason
    <!-- slow: trains for a minute -->           only run by `make test-documents`
    <!-- fails: the key was taken back -->       its last command must exit with another code than 0
    <!-- output -->                              plain text: the output of the last command above; a line … matches any lines
    <!-- answer: curl http://127.0.0.1:8000/v1/models -->     JSON: the output of this command
    <!-- file: things/manifest.csv -->           written to this file, for the commands below

Without a comment, shell, Python and JavaScript are run, and JSON, YAML, TOML, CSV and env files are parsed. JSON after a command
of its section that printed JSON must match the output: "…" matches any value, at the end of a list any further items, and scores
may differ a little.
"""

import csv
import io
import json
import math
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(PROJECT))
    for path in [
        *(PROJECT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "examples/README.md")),
        *(PROJECT / "docs").rglob("*.md"),
    ]
    if "decisions" not in path.parts
)
SHELL = ("sh", "bash")
RUN = (*SHELL, "python", "js")
PARSED = ("json", "yaml", "toml", "csv", "env")
MARKS = {"not run": True, "slow": True, "fails": True, "output": False, "answer": True, "file": True}
"""First words of comments, and whether a note must follow."""
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>.*)$")
OUTSIDE = ("docker", "podman", "kubectl", "helm", "kind", "git", "npm", "npx", "pipx", "apt-get", "sudo", "systemctl")
"""Commands that tests must not run."""
SCORE_TOLERANCE = 0.01
"""Graphs in 8 bits are exact everywhere, but libraries that scale an image may differ in a pixel's last bit."""
IDENTIFIER = re.compile(r"[0-9a-f]{32}")
HELP = f"""Either give a block a language ({", ".join((*RUN, *PARSED))}), or put a comment directly above it:
{__doc__.split(chr(10) * 2)[2]}"""


class BlockError(Exception):
    """A block that fails its check, with the remedy."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    """Number of its first line of text."""
    section: str
    language: str
    text: str
    mark: str = ""
    """First words of the comment above."""
    note: str = ""
    """Rest of that comment."""

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def treatment(self) -> str:
        """How it is checked: run, compared, written, parsed, or not run."""
        if self.mark == "not run":
            return "not run"
        if self.mark in ("output", "answer"):
            return "compared"
        if self.mark == "file":
            return "written"
        if self.language in RUN:
            return "run"
        if self.language in PARSED:
            return "parsed"
        raise BlockError(f"{self.place}: a block of {self.language or 'no language'} that nothing runs or checks")


def blocks_of(document: str, text: str) -> Iterator[Block]:
    """Yield the fenced blocks in order."""
    lines = text.splitlines()
    section, number = "", 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("#"):
            section = line.lstrip("# ")
        if opening := FENCE.match(line):
            end = next(
                (at for at in range(number + 1, len(lines)) if lines[at].strip() == opening["fence"]), len(lines)
            )
            content = [line.removeprefix(opening["indent"]) for line in lines[number + 1 : end]]
            mark, note = _comment_above(lines, number, f"{document}:{number + 2}")
            language = opening["info"].split()[0] if opening["info"].strip() else ""
            yield Block(document, number + 2, section, language, "\n".join(content) + "\n", mark, note)
            number = end
        number += 1


def _comment_above(lines: list[str], fence: int, place: str) -> tuple[str, str]:
    above = [line.strip() for line in lines[:fence]]
    while above and not above[-1]:
        above.pop()
    if not above or not (comment := re.fullmatch(r"<!--\s*([a-z ]+?)\s*(?::\s*(.*?))?\s*-->", above[-1])):
        return "", ""
    mark, note = comment[1], comment[2] or ""
    if mark not in MARKS:
        return "", ""
    if MARKS[mark] and not note:
        raise BlockError(f"{place}: the comment «{mark}:» has no reason\n{HELP}")
    return mark, note


def read_blocks(document: str) -> list[Block]:
    return list(blocks_of(document, (PROJECT / document).read_text(encoding="utf-8")))


def problems_of(blocks: list[Block]) -> list[str]:
    """Return all errors that are found without running anything."""
    problems = []
    for block in blocks:
        try:
            if block.treatment == "parsed":
                parse(block)
            if block.treatment == "run" and block.language in SHELL:
                _check_commands(block)
        except BlockError as problem:
            problems.append(str(problem))
    return problems


# --- parsing ---


def json_values(text: str) -> list[Any]:
    """Return all JSON values in the text. Raises ValueError."""
    decoder, values, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


def parse(block: Block) -> None:
    """Parse a block in its language. Raises BlockError."""
    try:
        match block.language:
            case "json":
                json_values(block.text)
            case "yaml":
                list(yaml.safe_load_all(block.text))
            case "toml":
                tomllib.loads(block.text)
            case "csv":
                _parse_csv(block.text)
            case "env":
                _parse_env(block.text)
    except (ValueError, yaml.YAMLError) as problem:
        raise BlockError(f"{block.place}: not {block.language}: {problem}") from problem


def _parse_csv(text: str) -> None:
    widths = {len(row) for row in csv.reader(io.StringIO(text), strict=True)}
    if len(widths) != 1:
        raise ValueError(f"rows of {sorted(widths)} cells")


def _parse_env(text: str) -> None:
    for line in text.splitlines():
        if line.strip() and not re.match(r"#|(export )?[A-Z][A-Z0-9_]*=", line):
            raise ValueError(f"{line!r} is no NAME=value")


# --- comparison ---


def difference(shown: Any, actual: Any, where: str = "") -> str:
    """Return the first difference between a document's value and the actual one, or an empty string."""
    if shown == "…" or (_identifier(shown) and _identifier(actual)):
        return ""
    if isinstance(shown, str) and isinstance(actual, str) and shown.endswith("…") and actual.startswith(shown[:-1]):
        return ""
    if isinstance(shown, float) and isinstance(actual, float):
        return "" if math.isclose(shown, actual, abs_tol=SCORE_TOLERANCE) else f"{where}: {shown}, but it is {actual}"
    if isinstance(shown, dict) and isinstance(actual, dict):
        if shown.keys() != actual.keys():
            return f"{where}: the fields {', '.join(shown)}, but they are {', '.join(actual)}"
        return next(filter(None, (difference(shown[key], actual[key], f"{where}.{key}") for key in shown)), "")
    if isinstance(shown, list) and isinstance(actual, list):
        if shown and shown[-1] == "…":
            shown, actual = shown[:-1], actual[: len(shown) - 1]
        if len(shown) != len(actual):
            return f"{where}: {len(shown)} of them, but there are {len(actual)}"
        pairs = enumerate(zip(shown, actual, strict=True))
        return next(filter(None, (difference(*pair, f"{where}[{at}]") for at, pair in pairs)), "")
    return "" if shown == actual else f"{where}: {shown!r}, but it is {actual!r}"


def _identifier(value: Any) -> bool:
    return isinstance(value, str) and bool(IDENTIFIER.fullmatch(value))


def text_pattern(shown: str) -> re.Pattern[str]:
    """Return the pattern of a listing; a line … matches any lines, and blanks at the ends of lines are ignored."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()) + r"[ \t]*\n" for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


# --- shell ---


def commands_in(script: str) -> Iterator[tuple[int, str]]:
    """Yield the commands of a block with their line numbers; a command has as many lines as bash needs."""
    pending: list[str] = []
    for number, line in enumerate(script.splitlines()):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending.append(line)
        if not line.endswith("\\") and _is_complete("\n".join(pending)):
            yield number - len(pending) + 1, "\n".join(pending)
            pending = []
    if pending:
        yield len(script.splitlines()) - len(pending), "\n".join(pending)


def _check_commands(block: Block) -> None:
    for at, command in commands_in(block.text):
        if program := re.search(rf"(?:^|[;&|(]\s*|\b[A-Z_]+=\S*\s+)({'|'.join(OUTSIDE)})\b", command):
            problem = f"{program[1]} reaches beyond this machine or this test; mark the block as not run"
            raise BlockError(f"{block.document}:{block.line + at}: {problem}")


def _is_complete(command: str) -> bool:
    result = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
    return result.returncode == 0 and "here-document" not in result.stderr
