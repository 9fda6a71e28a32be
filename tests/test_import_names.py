"""Every import and program is of `polymodal`, also in a project that has modules named app and model."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("polymodal")


@pytest.fixture
def project(tmp_path):
    """Return the folder of another project, whose own app and model must not be imported."""
    for name in ("app", "model"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of another project')\n")
    return tmp_path


def run(project, *command):
    done = subprocess.run(command, cwd=project, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([str(PROGRAM)], id="program"),
        pytest.param([sys.executable, "-m", "polymodal"], id="module"),
    ],
)
def test_the_program_runs_in_a_project_with_its_own_app_and_model(project, command):
    assert run(project, *command, "--version").startswith("polymodal ")


def test_a_notebook_next_to_a_model_loads_a_bundle(project, tiny_bundle):
    code = f"import polymodal; print(polymodal.load_bundle({str(tiny_bundle)!r}).description.name)"
    assert run(project, sys.executable, "-c", code) == "shapes\n"


def test_public_names_are_imported_when_they_are_used(project):
    code = "import polymodal, sys; print('numpy' in sys.modules, sorted(polymodal.__all__))"
    loaded, names = run(project, sys.executable, "-c", code).split(" ", 1)
    assert loaded == "False"
    assert "load_bundle" in names


def test_a_worker_is_not_imported_from_the_current_folder(project, tiny_bundle):
    code = f"""
import asyncio
from pathlib import Path
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.supervisor import ProcessSupervisor

async def main():
    supervisor = ProcessSupervisor(Settings(workers=1))
    async with supervisor.working():
        loaded = await supervisor.load("shapes", BundleSource("shapes", Path({str(tiny_bundle)!r})))
        print(loaded.description.name)

asyncio.run(main())
"""
    assert run(project, sys.executable, "-c", code) == "shapes\n"


@pytest.mark.slow
def test_a_wheel_has_the_files_where_the_source_tree_has_links(tmp_path):
    if not (PROJECT / ".git").exists():
        pytest.skip("not a checkout")
    tree = subprocess.run(
        ["git", "archive", "HEAD", "pyproject.toml", "README.md", "LICENSE", "app", "model", "polymodal"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "x", "-C", str(tmp_path)], input=tree.stdout, check=True)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    subprocess.run([sys.executable, "-m", *build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").glob("polymodal-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "polymodal/__main__.py",
        "polymodal/app/main.py",
        "polymodal/app/web/index.html",
        "polymodal/app/vendor/swagger-ui/swagger-ui-bundle.js",
        "polymodal/app/vendor/swagger-ui/LICENSE",
        "polymodal/model/bundles/illustrations/SHA256SUMS",
    } <= names
    assert not [name for name in names if name.startswith(("app/", "model/", "tests/"))]
