"""The package works without the service, and has the documented dependencies, names and examples."""

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polymodal_client
from polymodal_client import AsyncClient, Client
from polymodal_client.calls import models

FOLDER = Path(__file__).parents[2] / "client"
IMPORT = """
import json, sys
for name in ("app", "model", "fastapi", "starlette", "pydantic", "numpy", "PIL", "torch", "onnxruntime", "uvicorn", "structlog"):
    sys.modules[name] = None  # as if it were not installed
import pytest

import polymodal_client
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_the_package_does_not_import_the_service():
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"httpx", "anyio"} <= set(json.loads(done.stdout))


def test_the_dependencies_are_httpx_and_anyio():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [line.split(">")[0] for line in project["dependencies"]] == ["anyio", "httpx"]
    assert project["version"] == polymodal_client.__version__
    assert (FOLDER / "polymodal_client/py.typed").exists()


def calls_of(kind):
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(member) and name not in ("close", "aclose")
    }


def test_both_clients_have_the_same_calls():
    assert calls_of(Client) == calls_of(AsyncClient)
    assert set(calls_of(Client)) == {
        *("call", "classify", "classify_batch", "embed", "embed_batch", "health", "model", "models"),
        *("similarity", "search", "indexes", "transcribe"),
    }


def test_exported_names_exist_and_are_sorted():
    assert sorted(polymodal_client.__all__) == polymodal_client.__all__
    assert all(hasattr(polymodal_client, name) for name in polymodal_client.__all__)


def test_the_key_is_in_no_repr():
    with Client("http://service", api_key="pm_secret") as client:
        step = next(client._exchange.perform(models()))
        assert step.headers["Authorization"] == "Bearer pm_secret"
        assert "secret" not in repr(client) + repr(client._exchange) + repr(step)


def code_of(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "document", [FOLDER / "README.md", FOLDER.parent / "docs/client.md"], ids=lambda path: path.name
)
def test_the_code_of_the_documentation_imports_existing_names(document):
    blocks = code_of(document, "python")
    assert blocks
    for block in blocks:
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "polymodal_client":
                assert {name.name for name in node.names} <= set(polymodal_client.__all__)


def test_the_first_examples_of_the_documentation_work(listening, solid, tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/boat.png").write_bytes(solid("red"))
    monkeypatch.chdir(tmp_path)
    first, second, *_ = code_of(FOLDER.parent / "docs/client.md", "python")
    with listening() as service:
        for block in (first, second):
            exec(compile(block.replace("http://127.0.0.1:8000", service.url), "client.md", "exec"), {})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("red 0.")
    assert lines[1].endswith(" red")
    assert len(lines) == 5
