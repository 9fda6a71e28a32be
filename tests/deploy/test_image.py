"""Serving works without the files that the image leaves out, and the Dockerfile keeps its promises."""

import os
import py_compile
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

from scripts import image_slim, image_trial, serve_requirements

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LEFT_OUT = [  # as modules: folders that are removed as a whole, and removed requirements
    *(
        pattern.replace("/", ".")
        for pattern in image_slim.FILES
        if re.fullmatch(r"[A-Za-z0-9_/]+", pattern) and "torch" not in pattern
    ),
    *(
        "huggingface_hub",
        "flatbuffers",
        "google.protobuf",
        "PIL._avif",
        "PIL._imagingcms",
        "PIL._imagingft",
        "PIL._imagingtk",
    ),
]
SERVE = """
import io, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == module or name.startswith(module + ".") for module in {left_out!r}):
            raise ModuleNotFoundError(f"{{name}} is left out of the image", name=name)
sys.meta_path.insert(0, Refuse())
from PIL import Image
from polymodal.app.cli import main
from polymodal.app.workers.engine import Engine
from polymodal.app.main import create_app
from polymodal.app.settings import embedded_bundle, load_settings
from polymodal.model import load_bundle
create_app(load_settings({{}}))
for runtime in ("onnx-int8", "onnx"):
    predictor = load_bundle(embedded_bundle().path, runtime=runtime, threads=1)
    predictor.warm_up()
for name in ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"):
    image = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(image, name)
    (prediction,) = predictor.predict([predictor.prepare({{"image": image.getvalue(), "text": b"a boat"}})])
    assert prediction.scores
print("served")
"""


@pytest.fixture
def installed(tmp_path):
    """Returns a function that makes site-packages: each package has one module, one licence, and requirements."""

    def make(**requirements):
        for name, required in requirements.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("")
            metadata = tmp_path / f"{name}-1.0.dist-info"
            (metadata / "licenses").mkdir(parents=True)
            (metadata / "licenses" / "LICENSE").write_text("yes")
            head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            (metadata / "METADATA").write_text(head + "".join(f"Requires-Dist: {package}\n" for package in required))
            files = [f"{name}/__init__.py", f"{name}/__pycache__/__init__.pyc", f"{name}-1.0.dist-info/METADATA"]
            files += [f"{name}-1.0.dist-info/licenses/LICENSE", f"{name}-1.0.dist-info/RECORD"]
            (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        return tmp_path

    return make


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def slim(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["image_slim.py", str(folder)])
    image_slim.main()


@pytest.mark.parametrize(
    ("packages", "requirements", "removed"),
    [
        pytest.param(
            {"tokenizers": ["huggingface-hub"], "huggingface_hub": ["tqdm", "pyyaml"], "tqdm": [], "pyyaml": []}
            | {"transformers": ["tqdm", "numpy"]},
            (),
            ["huggingface_hub", "pyyaml"],
            id="a-requirement-of-another-package-stays",
        ),
        pytest.param(
            {"tokenizers": ["huggingface-hub"], "huggingface_hub": ["tqdm"], "tqdm": []}
            | {"transformers": ["huggingface-hub"]},
            (),
            [],
            id="another-package-requires-the-unused-one",
        ),
        pytest.param(
            {"tokenizers": ["huggingface-hub"], "huggingface_hub": ["tqdm", "pyyaml"], "tqdm": [], "pyyaml": []},
            ["tqdm>=4; python_version > '3'"],
            ["huggingface_hub", "pyyaml"],
            id="a-requirement-by-name-stays",
        ),
        pytest.param(
            {"tokenizers": ["huggingface-hub"], "huggingface_hub": [], "other": ['huggingface-hub; extra == "hub"']},
            (),
            ["huggingface_hub"],
            id="an-extra-that-is-not-installed-keeps-nothing",
        ),
    ],
)
def test_packages_that_only_unused_requirements_need_are_removed(installed, packages, requirements, removed):
    installation = distributions(path=[str(installed(**packages))])
    assert [package.metadata["Name"] for package in image_slim.unused(installation, requirements)] == removed


def test_a_removed_package_leaves_no_file(installed, monkeypatch, capsys):
    folder = installed(
        tokenizers=["huggingface-hub<3"],
        huggingface_hub=["tqdm", "typing_extensions"],
        tqdm=[],
        typing_extensions=[],
        pydantic=["typing_extensions"],
    )
    slim(folder, monkeypatch)
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".dist-info")
    assert names == ["pydantic", "tokenizers", "typing_extensions"]
    assert not list(folder.glob("tqdm*"))
    assert capsys.readouterr().out.startswith("removed: huggingface_hub, tqdm; ")


def test_files_that_no_import_reaches_are_removed_and_licences_stay(installed, monkeypatch):
    folder = installed(numpy=[])
    (folder / "numpy" / "ma" / "tests").mkdir(parents=True)
    (folder / "numpy" / "ma" / "tests" / "test_core.py").write_text("")
    (folder / "numpy" / "__init__.pyi").write_text("")
    (folder / "numpy" / "py.typed").write_text("")
    slim(folder, monkeypatch)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "numpy/__init__.py",
        "numpy/py.typed",
        "numpy-1.0.dist-info/METADATA",
        "numpy-1.0.dist-info/licenses/LICENSE",
    } <= left
    assert not {path for path in left if "tests" in path or path.endswith(".pyi")}


def test_a_library_stays_if_an_extension_links_it_directly_or_indirectly(tmp_path):
    """Two removed libraries link each other."""
    (tmp_path / "PIL").mkdir()
    (tmp_path / "pillow.libs").mkdir()
    contents = {
        "PIL/_imaging.so": b"\0libtiff-12345678.so.6\0",
        "pillow.libs/libtiff-12345678.so.6": b"\0liblzma-12345678.so.5\0",
        "pillow.libs/liblzma-12345678.so.5": b"",
        "pillow.libs/libfreetype-12345678.so.6": b"\0libharfbuzz-12345678.so.0\0",
        "pillow.libs/libharfbuzz-12345678.so.0": b"\0libfreetype-12345678.so.6\0",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert {path.name for path in image_slim.orphans(tmp_path)} == {
        "libfreetype-12345678.so.6",
        "libharfbuzz-12345678.so.0",
    }


def test_serving_imports_nothing_that_is_left_out():
    assert {"onnxruntime.transformers", "numpy.f2py", "huggingface_hub"} <= set(LEFT_OUT)
    run = subprocess.run(
        [sys.executable, "-c", SERVE.format(left_out=LEFT_OUT)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout == "served\n", run.stderr


def stages():
    """Return base and instructions of each stage, by its name."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    result = {}
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        head, _, body = stage.partition("\n")
        base, _, name = head.partition(" AS ")
        result[name] = (base, [line for line in body.splitlines() if line.strip()])
    return result


def bases(name):
    """Yield a stage and all stages below it."""
    while name in stages():
        yield name
        name = stages()[name][0]


def instructions(name):
    return [line for stage in bases(name) for line in stages()[stage][1]]


def test_the_default_target_serves_and_has_no_torch():
    assert list(stages())[-1] == "serve"
    assert not any("torch" in line for line in instructions("serve"))


@pytest.mark.parametrize("target", ["serve", "torch"])
def test_a_target_is_from_scratch_and_tried_and_runs_as_an_unprivileged_user(target):
    lines = instructions(target)
    assert "USER 10001:10001" in lines
    assert stages()[list(bases(target))[-1]][0] == "scratch"
    assert any(re.match(r"COPY --from=trial(-torch)? /opt/bytecode ", line) for line in lines)
    assert sum(line.startswith(("HEALTHCHECK ", "CMD ")) for line in lines) == 2


def test_stages_without_a_shell_use_none():
    for name, (_, lines) in stages().items():
        if list(bases(name))[-1] == "image":
            for line in lines:
                if line.startswith("RUN "):
                    assert re.fullmatch(r'RUN (--\S+ )*\["python", .*\]', line)


def test_no_instruction_is_for_one_kind_of_processor():
    assert not re.search(r"amd64|x86_64|aarch64|arm64|--platform", DOCKERFILE)


def test_the_context_has_exactly_the_copied_files():
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    sources = {
        word
        for _, lines in stages().values()
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    } | set(re.findall(r"type=bind,source=([^,]+)", DOCKERFILE))
    assert "scripts/image_trial.py" in sources
    assert sources == set(allowed)


def test_extras_are_added_to_the_requirements_of_serving(project):
    plain, redis = serve_requirements.requirements(project, []), serve_requirements.requirements(project, ["redis"])
    assert not any(line.startswith("torch") for line in plain)
    assert redis == [*plain, *project["optional-dependencies"]["redis"]]


def test_an_extra_that_names_extras_is_resolved_without_an_index(project):
    lines = serve_requirements.requirements(project, ["dev"])
    assert set(project["optional-dependencies"]["redis"]) < set(lines)
    assert not any(line.startswith("polymodal") for line in lines)


def test_an_unknown_extra_ends_the_build(project):
    with pytest.raises(SystemExit, match=r"unknown extra ottel; allowed: train, "):
        serve_requirements.requirements(project, ["ottel"])


def test_bytecode_does_not_depend_on_the_time_of_its_source(tmp_path):
    source = tmp_path / "module.py"
    compiled = tmp_path / "cache" / tmp_path.relative_to("/") / "module.cpython-311.pyc"
    compiled.parent.mkdir(parents=True)
    contents = set()
    for moment in (1_000_000_000, 1_700_000_000):
        source.write_text("answer = 42\n")
        os.utime(source, (moment, moment))
        py_compile.compile(str(source), str(compiled), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        assert image_trial.recompile(tmp_path / "cache") == 1
        contents.add(compiled.read_bytes())
    assert len(contents) == 1


def test_the_image_keeps_bytecode_where_python_looks_for_it():
    environment = " ".join(line for line in instructions("serve") if line.startswith("ENV "))
    assert "PYTHONPYCACHEPREFIX=/opt/bytecode" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment


def test_a_trial_sends_requests_to_a_real_service_and_stops_it(monkeypatch, capsys):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    image_trial.serve("onnx")
    assert re.fullmatch(r"onnx: ready after \d+\.\d s\n", capsys.readouterr().out)


def test_a_trial_fails_if_the_service_does_not_start(monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SystemExit, match="tpu: no service after"):
        image_trial.serve("tpu")
