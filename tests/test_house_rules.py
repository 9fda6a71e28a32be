"""Rules of the architecture, checked in the source: which package may import which, and where files are."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from polymodal import model
from polymodal.model import MODALITIES, evaluation, training
from polymodal.model.targets import TARGETS

PROJECT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(PROJECT) for package in ("app", "model") for path in (PROJECT / package).rglob("*.py")
)
TARGET_PLOTS, TARGET_HEADS = (
    [str(path.relative_to(PROJECT)) for path in sorted((PROJECT / "model/targets").glob(f"*/{name}.py"))]
    for name in ("plots", "head")
)
COMMANDS = {
    **{
        f"model.evaluation.{name}": ("app/commands/bundles.py", "app/commands/terminal.py")
        for name in evaluation.__all__
    },
    "model.evaluation.build_index": ("app/commands/index.py",),
    "model.evaluation.folder.write_folder": ("app/commands/bundles.py",),  # apart, because it needs matplotlib
    "model.speech.packages.fetch_speech": ("app/commands/fetch.py",),
    "model.progress.track": ("app/commands/terminal.py",),
    "model.targets.target_name": ("app/commands/training.py",),
}
"""Names that the command line may import in addition to the public API of the model, and the files that may."""


@dataclass(frozen=True)
class Import:
    """A name that a file imports; `inside`: in a function."""

    file: Path
    target: str
    """A module, or a module and a name in it."""
    inside: bool
    line: int

    def __str__(self):
        return f"{self.file}:{self.line} imports {self.target}"

    def touches(self, *packages: str) -> bool:
        return any(self.target == package or self.target.startswith(f"{package}.") for package in packages)


def tree_of(file: Path) -> ast.Module:
    return ast.parse((PROJECT / file).read_text(encoding="utf-8"), str(file))


def imports_in(file: Path) -> Iterator[Import]:
    tree = tree_of(file)
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            Import(file, target.removeprefix("polymodal."), id(node) in inner, node.lineno) for target in targets
        )


IMPORTS = [imported for file in SOURCES for imported in imports_in(file)]


def below(*places: str):
    """Return the imports in these folders and files."""
    return [imported for imported in IMPORTS if any(imported.file.is_relative_to(place) for place in places)]


def assert_none(imports):
    assert not (offences := [str(imported) for imported in imports]), "\n".join(offences)


# --- arrows ---


def test_public_names_of_training_and_evaluation_are_pinned():
    names = ["ManifestError", "PRESETS", "align", "aligns", "export", "import_encoders", "remeasure", "train"]
    assert sorted(training.__all__) == names


def test_the_service_uses_only_the_public_api_of_the_model():
    allowed = {f"model.{name}" for name in model.__all__}
    assert_none(
        imported
        for imported in below("app")
        if imported.touches("model")
        and imported.target not in allowed
        and not (
            imported.file.is_relative_to("app/commands") and imported.touches("model.training") and imported.inside
        )
        and str(imported.file) not in COMMANDS.get(imported.target, ())
    )


@pytest.mark.parametrize(
    ("places", "forbidden"),
    [
        pytest.param(["model"], ["app", "fastapi", "starlette", "uvicorn", "httpx", "structlog"], id="model-service"),
        pytest.param(["model/evaluation"], ["model.training", "torch"], id="evaluation-training"),
        pytest.param(["model/modalities"], ["model.training", "model.manifest"], id="modalities-training"),
        pytest.param(
            [f"app/access/{name}.py" for name in ("keys", "scopes", "rates", "counters")],
            ["fastapi", "starlette", "app.api"],
            id="access-control-http",
        ),
        pytest.param(
            ["app/serving/service.py", "app/serving/batching.py"],
            ["fastapi", "starlette", "uvicorn", "app.api"],
            id="batching-http",
        ),
        pytest.param(["app/problems.py"], ["app", "model"], id="problems-rest"),
    ],
)
def test_a_package_does_not_import(places, forbidden):
    assert below(*places)
    assert_none(imported for imported in below(*places) if imported.touches(*forbidden))


def test_serving_never_imports_evaluation():
    inside = below("model/evaluation", "model/training", "app/commands", "app/commands/terminal.py", *TARGET_PLOTS)
    assert_none(
        imported
        for imported in IMPORTS
        if imported.touches("model.evaluation", "app.commands.terminal") and imported not in inside
    )
    assert_none(
        imported
        for imported in below("app/commands")
        if imported.touches("model.evaluation", "app.commands.terminal")
        and not imported.inside
        and imported.file != Path("app/commands/terminal.py")
    )


def modules(*names):
    """Return the files of these names in the packages of all modalities."""
    return [
        f"{modality.package.removeprefix('polymodal.').replace('.', '/')}/{name}.py"
        for modality in MODALITIES.values()
        for name in names
    ]


@pytest.mark.parametrize(
    ("package", "places"),
    [
        pytest.param("fastapi", ["app"], id="fastapi"),
        pytest.param("starlette", ["app"], id="starlette"),
        pytest.param(
            "onnxruntime",
            [
                "model/runtimes/onnx_runtime.py",
                "model/runtimes/onnx_int8_runtime.py",
                "model/training/int8.py",
                "model/training/quantise.py",
            ],
            id="onnxruntime",
        ),
        pytest.param("onnx", ["model/training", "model/modalities/audio/presets.py"], id="onnx"),
        pytest.param("accelerate", ["model/training"], id="accelerate"),
        pytest.param("limits", ["app/access/counters.py"], id="limits"),
        pytest.param("redis", ["app/access/counters.py"], id="redis"),
        pytest.param("opentelemetry", ["app/observe/tracing.py"], id="opentelemetry"),
        pytest.param(
            "prometheus_client", ["app/observe/metrics.py", "app/api/routes/metrics.py"], id="prometheus-client"
        ),
        pytest.param("pyarrow", ["model/manifest/tables.py", "model/evaluation/scores.py"], id="pyarrow"),
        pytest.param("jinja2", ["model/evaluation/page.py"], id="jinja2"),
        pytest.param("tokenizers", ["model/modalities/text"], id="tokenizers"),
        pytest.param("av", ["model/modalities/audio/decoding.py"], id="pyav"),
        pytest.param("soundfile", ["model/modalities/audio/decoding.py"], id="soundfile"),
        pytest.param("soxr", ["model/modalities/audio/decoding.py"], id="soxr"),
        pytest.param("huggingface_hub", ["model/modalities/hub.py"], id="huggingface-hub"),
        pytest.param(
            "matplotlib",
            ["model/evaluation/plots.py", "model/evaluation/folder.py", *TARGET_PLOTS],
            id="matplotlib",
        ),
        pytest.param(
            "PIL",
            [
                "model/modalities/image/input.py",
                "model/modalities/image/levels.py",
                "model/modalities/image/thumbnail.py",
                "model/modalities/image/near_duplicates.py",
                "model/modalities/image/towers.py",
                "model/training/sources",
            ],
            id="pillow",
        ),
        pytest.param("safetensors", ["model/bundle.py", *modules("presets")], id="safetensors"),
        pytest.param(
            "torch",
            [
                "model/modalities/hub.py",
                "model/modalities/libraries.py",
                "model/modalities/projections.py",
                "model/modalities/towers.py",
                *modules("towers"),
                *modules("encoders", "augment", "presets"),
                "model/fusion.py",
                "model/targets/heads.py",
                *TARGET_HEADS,
                "model/network.py",
                "model/runtimes/torch_runtime.py",
                "model/training",
            ],
            id="torch",
        ),
    ],
)
def test_a_library_is_imported_only_in_its_packages(package, places):
    inside = below(*places)
    assert_none(imported for imported in IMPORTS if imported.touches(package) and imported not in inside)


def test_serving_never_imports_training():
    inside = below("model/training", "app/commands")
    assert_none(imported for imported in IMPORTS if imported.touches("model.training") and imported not in inside)
    assert_none(
        imported for imported in below("app/commands") if imported.touches("model.training") and not imported.inside
    )


LEVEL = {
    "model/modalities/image": "model.modalities.image",
    "model/modalities/text": "model.modalities.text",
    "model/modalities/audio": "model.modalities.audio",
    "model/fusion.py": "model.fusion",
    "model/targets/answers.py": "model.tasks",
    "model/targets/heads.py": "model.heads",
}


@pytest.mark.parametrize("package", LEVEL)
def test_packages_of_one_level_do_not_import_each_other(package):
    others = [module for path, module in LEVEL.items() if path != package]
    assert_none(imported for imported in below(package) if imported.touches(*others))


def names_of_modalities(file: Path) -> Iterator[str]:
    """Yield where a file names an entry of MODALITIES: as a string, or by importing from its package."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Constant) and node.value in MODALITIES:
            yield f"{file}:{node.lineno}: {node.value!r}"
    packages = [modality.package.removeprefix("polymodal.") for modality in MODALITIES.values()]
    yield from (str(imported) for imported in imports_in(file) if imported.touches(*packages))


@pytest.mark.parametrize("folder", ["model", "app/commands"])
def test_only_the_table_names_modalities(folder):
    # Sources build data sets of images and texts, tasks have examples of answers, and recognisers hear sounds alone.
    own = ("model/modalities", "model/training/sources", "model/tasks", "model/kinds/speech.py", "model/speech")
    files = [file for file in SOURCES if file.is_relative_to(folder) and not any(map(file.is_relative_to, own))]
    assert files
    assert [place for file in files for place in names_of_modalities(file)] == []


def test_only_the_table_names_a_target():
    """No other file of the model compares with a target's name, or imports its package."""
    inside = ("model/targets", "model/tasks/classify.py")  # the examples of answers have the targets' names
    files = [file for file in SOURCES if file.is_relative_to("model") and not any(map(file.is_relative_to, inside))]
    named = [
        f"{file}:{node.lineno}: {node.value!r}"
        for file in files
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Constant) and node.value in TARGETS
    ]
    assert not named, "\n".join(named)
    packages = [f"model.targets.{name.replace('-', '_')}" for name in TARGETS]
    assert_none(
        imported
        for imported in IMPORTS
        if imported.touches(*packages) and not imported.file.is_relative_to("model/targets")
    )


def test_imports_have_no_cycle():
    modules = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in SOURCES}
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for name, file in modules.items():
        for imported in imports_in(file):
            target = imported.target if imported.target in modules else imported.target.rpartition(".")[0]
            if target in modules and target != name:
                edges[name].add(target)
    list(TopologicalSorter(edges).static_order())  # raises CycleError, which names the cycle


def test_imports_inside_functions_have_a_reason():
    """Commands and optional dependencies are imported when they are used; nothing else is."""
    optional = (
        "app/access/counters.py",
        "app/observe/tracing.py",
        "model/manifest/tables.py",
        "model/modalities/audio/input.py",
        "model/evaluation/scores.py",
        "model/training/curves.py",
    )
    allowed = {Path(file) for file in optional}
    assert_none(
        imported
        for imported in IMPORTS
        if imported.inside and imported.file not in allowed and not imported.file.is_relative_to("app/commands")
    )


# --- what is loaded when ---


def run(code: str, *arguments: str) -> list[str]:
    """Return the modules that are loaded after `code` has run in its own process."""
    report = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code + report, *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", ["polymodal.model", "polymodal.app.main", "polymodal.app.cli"])
def test_importing_loads_nothing_heavy(module):
    loaded = run(f"import {module}")
    heavy = {
        "torch",
        "onnxruntime",
        "polymodal.model.training",
        "polymodal.model.evaluation",
        "accelerate",
        "pyarrow",
        "onnx",
        "matplotlib",
        "opentelemetry.sdk",  # the API of opentelemetry is a dependency of FastAPI
    }
    assert not heavy & set(loaded)


def test_the_help_of_the_command_line_loads_neither_models_nor_servers():
    loaded = run("import polymodal.app.cli")
    assert not {"numpy", "PIL", "pydantic", "structlog", "uvicorn", "fastapi", "asyncio"} & set(loaded)


SERVE = """
import asyncio, sys
import httpx
from polymodal.app.main import create_app
from polymodal.app.settings import Settings

async def serve():
    app = create_app(Settings(bundles="shapes=" + sys.argv[1], runtime="onnx", workers=0))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.post("/v1/" + sys.argv[2], json={"text": "ripe fruit"}, timeout=60)
        assert answer.status_code == 200, answer.text

asyncio.run(serve())
"""


def test_serving_with_onnx_runtime_never_loads_torch(tiny_bundle):
    assert_serves_without_torch(run(SERVE, str(tiny_bundle), "classify"))


def test_serving_an_imported_model_loads_neither_torch_nor_transformers(dual_encoder):
    assert_serves_without_torch(run(SERVE, str(dual_encoder[1]), "embed"))


def assert_serves_without_torch(loaded: list[str]) -> None:
    assert "onnxruntime" in loaded
    unused = {
        "torch",
        "transformers",
        "onnx",
        "opentelemetry.sdk",
        "polymodal.model.training",
        "polymodal.model.network",
    }
    assert not unused & set(loaded)


def test_workers_load_no_http_and_the_service_loads_no_runtime():
    assert not {"fastapi", "starlette", "uvicorn", "torch", "opentelemetry"} & set(
        run("import polymodal.app.workers.__main__")
    )
    assert not {"torch", "onnxruntime"} & set(run("import polymodal.app.main"))


EVALUATE = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from polymodal.app.cli import app
app(sys.argv[1:], standalone_mode=False)
"""


def test_evaluate_needs_no_torch_and_loads_matplotlib_only_for_figures(tiny_bundle, manifest_folder, tmp_path):
    command = ["evaluate", str(tiny_bundle), str(manifest_folder)]
    shown = run(EVALUATE, *command)
    written = run(EVALUATE, *command, "--out", str(tmp_path))
    assert "onnxruntime" in shown
    assert not {"polymodal.model.training", "polymodal.model.network", "onnx", "matplotlib"} & set(shown)
    assert "matplotlib" in written
    assert not {"polymodal.model.training", "polymodal.model.network", "onnx", "matplotlib.pyplot"} & set(written)


# --- where files are ---


@pytest.mark.parametrize("file", SOURCES, ids=str)
def test_every_module_has_a_docstring(file):
    assert ast.get_docstring(tree_of(file)), f"{file} has no docstring"


def test_files_are_named_after_things():
    vague = re.compile(r"(^|_)(utils?|helpers?|common|core|managers?|misc|base)(_|$)")
    named = [*SOURCES, *(path.relative_to(PROJECT) for path in (PROJECT / "tests").rglob("*.py"))]
    assert [str(file) for file in named if any(vague.search(name) for name in file.with_suffix("").parts)] == []


def calls_in(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_file_that_is_read_can_run_code():
    assert_none(
        imported
        for imported in IMPORTS
        if imported.touches("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
    )
    for file in SOURCES:
        for name, call in calls_in(file):
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            where = f"{file}:{call.lineno}: {name}"
            assert name not in ("eval", "exec"), where
            assert name != "torch.load" or options.get("weights_only") == "True", where
            assert options.get("allow_pickle") != "True", where
            assert options.get("trust_remote_code") != "True", where


def test_the_folders_and_modules_of_the_design_exist():
    for folder in (
        "app/api/routes",
        "app/web",
        "model/modalities",
        "model/runtimes",
        "model/training",
        "docs",
        "tests",
    ):
        assert (PROJECT / folder).is_dir(), folder
    for file in modules("input", "encoders", "augment", "presets"):
        assert (PROJECT / file).is_file()


TOP = {
    ".ci",
    ".github",
    "app",
    "benchmarks",
    "client",
    "deploy",
    "docs",
    "examples",
    "model",
    "polymodal",
    "scripts",
    "tests",
}


def git(*arguments: str) -> list[str]:
    """Return the lines that git prints. Skips the test outside a checkout."""
    if not (PROJECT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_top_folders_are_those_of_the_design():
    assert {file.split("/")[0] for file in git("ls-files") if "/" in file} <= TOP


def test_what_git_ignores_is_not_tracked():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []


RECORDS = sorted((PROJECT / "docs/decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_has_number_date_context_decision_and_consequences(record):
    text = record.read_text(encoding="utf-8")
    assert re.match(r"# \d{4}\b", text), "no number in its title"
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text), "no date"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"Context", "Decision", "Consequences"} <= set(headings)


def test_decisions_are_numbered_without_gaps():
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
