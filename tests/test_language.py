"""The language of docs/glossary.md: no identifier and no docstring uses a word that the glossary replaces."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FOLDERS = ("app", "benchmarks", "client", "examples", "model", "polymodal", "scripts", "tests")

VERBS = {"ask", "asks", "asked", "asking", "hear", "hears", "heard", "know", "knows", "said", "say", "says", "saying"} | {
    "tell", "tells", "telling", "told", "want", "wants", "wanted",
}  # fmt: skip
"""What people do, and a program doesn't."""
NOUNS = {"door", "doors", "likeness", "outcome", "outcomes", "picture", "pictures", "question", "questions"} | {
    "room", "rooms", "twin", "twins", "workforce",
}  # fmt: skip
OTHERS = {"anew", "begun", "beside", "quick", "quicker", "stands", "untouched"}
DOCSTRING = VERBS | NOUNS | OTHERS
IDENTIFIER = DOCSTRING | {
    "doubt",
    "elsewhere",
    "finding",
    "findings",
    "framed",
    "meant",
    "part",
    "parts",
    "sayable",
    "widen",
}
"""Words of a name, between underscores and capitals."""
VARIABLE = {"each", "found", "given", "here", "wanted"}
"""Whole names of variables: the noun is missing."""
ALLOWED: dict[str, set[str]] = {
    # The standard's word: RFC 7578 calls a field of a form a part.
    "app/api/body/form.py": {"part", "parts"},
    # A field of the doctor's JSON.
    "app/doctor/result.py": {"found"},
    # A field of a problem in JSON, and a public attribute of the client.
    "client/polymodal_client/errors.py": {"found"},
    "tests/app/api/body/test_body.py": {"part", "parts"},
    # A field of a problem in JSON, and of InputError and RequestError, from which it comes.
    "app/api/schemas.py": {"found"},
    # The field of errors in the API's answers, and the scheme of messages: `input: found; allowed: …`.
    "model/errors.py": {"found"},
    "model/faults.py": {"found"},
    # Names of weights in bundles.
    "model/fusion.py": {"widen"},
    "model/modalities/text/encoders.py": {"widen"},
    # Fields of an error in JSON.
    "app/problems.py": {"found"},
    "app/workers/wire.py": {"found"},
}
"""By file, words that a standard or another library uses there."""


def python_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (PROJECT / name).is_file()]


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a file defines: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def docstrings_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def offences(file: str, source: str) -> list[str]:
    tree, allowed = ast.parse(source, file), ALLOWED.get(file, set())
    found_names = [
        f"{file}:{line}: {name} has the word {word!r}"
        for line, name in names_in(tree)
        for word in sorted((words_of(name) & IDENTIFIER) | ({name} & VARIABLE))
        if word not in allowed
    ]
    prose = [
        f"{file}:{line}: a docstring has the word {word!r}"
        for line, text in docstrings_in(tree)
        for word in sorted(set(re.findall(r"[a-z]+", text.lower())) & DOCSTRING)
        if word not in allowed
    ]
    return found_names + prose


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_and_docstrings_use_the_glossary(folder):
    files = [file for file in python_files() if file.startswith(f"{folder}/")]
    assert files
    problems = [problem for file in files for problem in offences(file, (PROJECT / file).read_text(encoding="utf-8"))]
    assert not problems, f"{len(problems)} words that docs/glossary.md replaces:\n" + "\n".join(problems)


def test_every_python_file_belongs_to_a_checked_folder():
    assert {file.partition("/")[0] for file in python_files()} <= set(FOLDERS)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        pytest.param("def who_is_told(): ...", "told", id="function"),
        pytest.param("class LastOutcome: ...", "outcome", id="class"),
        pytest.param("for each in (): ...", "each", id="variable"),
        pytest.param("def send(picture): ...", "picture", id="argument"),
        pytest.param('"""What the model says."""', "says", id="docstring"),
    ],
)
def test_a_replaced_word_is_reported_with_its_line(source, word):
    (problem,) = offences("file.py", source)
    assert problem.startswith("file.py:1: ")
    assert repr(word) in problem


def test_words_that_only_contain_a_replaced_one_are_no_offence():
    source = 'def multipart(essay, unknown): """Return what is unasked."""'
    assert offences("file.py", source) == []
