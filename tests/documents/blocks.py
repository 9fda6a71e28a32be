"""The fenced blocks of the documents, and what each of them asks to be done with it.

A comment right above a fence says what the block's language doesn't:

    <!-- not run: needs a cluster -->            neither run nor checked, and why
    <!-- slow: trains for a minute -->           only run by `make test-documents`
    <!-- fails: the key was taken back -->       its last command ends with another exit code than 0
    <!-- output -->                              plain text: what the last command above prints; a line … stands for any lines
    <!-- answer: curl http://127.0.0.1:8000/v1/models -->     JSON: what this command prints
    <!-- file: things/manifest.csv -->           written to that file, for the commands below

Without one, shell lines, Python and JavaScript are run, and JSON, YAML, TOML, CSV and env files are parsed. JSON that follows a
command of its section which printed JSON must be what was printed: "…" stands for any value, as the last of a list for any more of
them, and scores may differ a little.
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
"""The words that a comment may begin with, and whether something must follow."""
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>.*)$")
OUTSIDE = ("docker", "podman", "kubectl", "helm", "kind", "git", "npm", "npx", "pipx", "apt-get", "sudo", "systemctl")
"""Commands that no test should give."""
SCORE_TOLERANCE = 0.01
"""Graphs in 8 bits are exact everywhere, but libraries that scale a picture may differ in a pixel's last bit."""
IDENTIFIER = re.compile(r"[0-9a-f]{32}")
HELP = f"""Either say in which language a block is ({", ".join((*RUN, *PARSED))}), or put a comment right above it:
{__doc__.split(chr(10) * 2)[2]}"""


class Wrong(Exception):
    """What is the matter with a block, and what to do."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    line: int
    """Of its first line of text."""
    section: str
    language: str
    text: str
    mark: str = ""
    """What the comment above begins with."""
    note: str = ""
    """What follows in that comment."""

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def treatment(self) -> str:
        """What is done with it: run, compared, written, parsed or nothing."""
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
        raise Wrong(f"{self.place}: a block of {self.language or 'no language'} that nothing runs or checks")


def blocks_of(document: str, text: str) -> Iterator[Block]:
    """Every fenced block in the document's order."""
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
            inside = [each.removeprefix(opening["indent"]) for each in lines[number + 1 : end]]
            mark, note = _comment_above(lines, number, f"{document}:{number + 2}")
            language = opening["info"].split()[0] if opening["info"].strip() else ""
            yield Block(document, number + 2, section, language, "\n".join(inside) + "\n", mark, note)
            number = end
        number += 1


def _comment_above(lines: list[str], fence: int, place: str) -> tuple[str, str]:
    above = [line.strip() for line in lines[:fence]]
    while above and not above[-1]:
        above.pop()
    if not above or not (found := re.fullmatch(r"<!--\s*([a-z ]+?)\s*(?::\s*(.*?))?\s*-->", above[-1])):
        return "", ""
    mark, note = found[1], found[2] or ""
    if mark not in MARKS:
        return "", ""
    if MARKS[mark] and not note:
        raise Wrong(f"{place}: the comment «{mark}:» says no more\n{HELP}")
    return mark, note


def read_blocks(document: str) -> list[Block]:
    return list(blocks_of(document, (PROJECT / document).read_text(encoding="utf-8")))


def unchecked(blocks: list[Block]) -> list[str]:
    """What is wrong with blocks before anything is run, all of it."""
    problems = []
    for block in blocks:
        try:
            if block.treatment == "parsed":
                parse(block)
            if block.treatment == "run" and block.language in SHELL:
                _stays_here(block)
        except Wrong as problem:
            problems.append(str(problem))
    return problems


# --- what is parsed ---


def json_values(text: str) -> list[Any]:
    """All JSON values in the text, one after the other; raises ValueError for anything else."""
    decoder, values, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


def parse(block: Block) -> None:
    """Raises Wrong when the block isn't what its language says."""
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
        raise Wrong(f"{block.place}: not {block.language}: {problem}") from problem


def _parse_csv(text: str) -> None:
    widths = {len(row) for row in csv.reader(io.StringIO(text), strict=True)}
    if len(widths) != 1:
        raise ValueError(f"rows of {sorted(widths)} cells")


def _parse_env(text: str) -> None:
    for line in text.splitlines():
        if line.strip() and not re.match(r"#|(export )?[A-Z][A-Z0-9_]*=", line):
            raise ValueError(f"{line!r} is no NAME=value")


# --- what is compared ---


def difference(shown: Any, found: Any, where: str = "") -> str:
    """The first thing in which what a document shows is not what was found, or ""."""
    if shown == "…" or (_identifier(shown) and _identifier(found)):
        return ""
    if isinstance(shown, str) and isinstance(found, str) and shown.endswith("…") and found.startswith(shown[:-1]):
        return ""
    if isinstance(shown, float) and isinstance(found, float):
        return "" if math.isclose(shown, found, abs_tol=SCORE_TOLERANCE) else f"{where}: {shown}, but it is {found}"
    if isinstance(shown, dict) and isinstance(found, dict):
        if shown.keys() != found.keys():
            return f"{where}: the fields {', '.join(shown)}, but they are {', '.join(found)}"
        return next(filter(None, (difference(shown[key], found[key], f"{where}.{key}") for key in shown)), "")
    if isinstance(shown, list) and isinstance(found, list):
        if shown and shown[-1] == "…":
            shown, found = shown[:-1], found[: len(shown) - 1]
        if len(shown) != len(found):
            return f"{where}: {len(shown)} of them, but there are {len(found)}"
        pairs = enumerate(zip(shown, found, strict=True))
        return next(filter(None, (difference(*pair, f"{where}[{at}]") for at, pair in pairs)), "")
    return "" if shown == found else f"{where}: {shown!r}, but it is {found!r}"


def _identifier(value: Any) -> bool:
    return isinstance(value, str) and bool(IDENTIFIER.fullmatch(value))


def text_pattern(shown: str) -> re.Pattern[str]:
    """A listing; a line … stands for any lines, and blanks at the ends of lines don't count."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()) + r"[ \t]*\n" for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


# --- shell ---


def commands_in(script: str) -> Iterator[tuple[int, str]]:
    """The commands of a block with the numbers of their lines: as many lines as bash needs to find a whole one."""
    pending: list[str] = []
    for number, line in enumerate(script.splitlines()):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending.append(line)
        if not line.endswith("\\") and _is_whole("\n".join(pending)):
            yield number - len(pending) + 1, "\n".join(pending)
            pending = []
    if pending:
        yield len(script.splitlines()) - len(pending), "\n".join(pending)


def _stays_here(block: Block) -> None:
    for at, command in commands_in(block.text):
        if found := re.search(rf"(?:^|[;&|(]\s*|\b[A-Z_]+=\S*\s+)({'|'.join(OUTSIDE)})\b", command):
            raise Wrong(
                f"{block.document}:{block.line + at}: {found[1]} reaches beyond this machine or this test, so say why it isn't run"
            )


def _is_whole(command: str) -> bool:
    told = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
    return told.returncode == 0 and "here-document" not in told.stderr
