"""What the image leaves out is never wanted, and what its Dockerfile says holds."""

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
LEFT_OUT = [  # folders that patterns name whole, and what is struck out of requirements, as modules
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
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if any(name == left or name.startswith(left + ".") for left in {left!r}):
            raise ModuleNotFoundError(f"{{name}} is left out of the image", name=name)
sys.meta_path.insert(0, Refusing())
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
    packed = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(packed, name)
    (prediction,) = predictor.predict([predictor.prepare({{"image": packed.getvalue(), "text": b"a boat"}})])
    assert prediction.scores
print("served")
"""


@pytest.fixture
def installed(tmp_path):
    """Makes site-packages of packages that each have one module, one licence, and requirements."""

    def make(**requirements):
        for name, wanted in requirements.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("")
            metadata = tmp_path / f"{name}-1.0.dist-info"
            (metadata / "licenses").mkdir(parents=True)
            (metadata / "licenses" / "LICENSE").write_text("yes")
            lines = [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                "Version: 1.0",
                *(f"Requires-Dist: {each}" for each in wanted),
            ]
            (metadata / "METADATA").write_text("\n".join(lines) + "\n")
            files = [f"{name}/__init__.py", f"{name}/__pycache__/__init__.pyc", f"{name}-1.0.dist-info/METADATA"]
            files += [f"{name}-1.0.dist-info/licenses/LICENSE", f"{name}-1.0.dist-info/RECORD"]
            (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        return tmp_path

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".dist-info")


def slim(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["image_slim.py", str(folder)])
    image_slim.main()


def test_a_package_that_only_an_unused_path_wants_leaves_with_what_only_it_wants(installed, monkeypatch, capsys):
    folder = installed(
        tokenizers=["huggingface-hub<3"],
        huggingface_hub=["tqdm", "typing_extensions"],
        tqdm=[],
        typing_extensions=[],
        pydantic=["typing_extensions"],
    )
    slim(folder, monkeypatch)
    assert names(folder) == ["pydantic", "tokenizers", "typing_extensions"]
    assert not list(folder.glob("tqdm*"))
    assert capsys.readouterr().out.startswith("left out: huggingface_hub, tqdm; ")


def test_what_another_package_wants_stays(installed, monkeypatch):
    folder = installed(
        tokenizers=["huggingface-hub"],
        huggingface_hub=["tqdm", "pyyaml"],
        tqdm=[],
        pyyaml=[],
        transformers=["tqdm", "numpy"],
    )
    slim(folder, monkeypatch)
    assert names(folder) == ["tokenizers", "tqdm", "transformers"]


def test_an_extra_that_wants_what_is_struck_out_keeps_it(installed, monkeypatch):
    folder = installed(
        tokenizers=["huggingface-hub"], huggingface_hub=["tqdm"], tqdm=[], transformers=["huggingface-hub"]
    )
    slim(folder, monkeypatch)
    assert names(folder) == ["huggingface_hub", "tokenizers", "tqdm", "transformers"]


def test_what_was_asked_for_by_name_stays(installed):
    folder = installed(tokenizers=["huggingface-hub"], huggingface_hub=["tqdm", "pyyaml"], tqdm=[], pyyaml=[])
    left = image_slim.unreached(distributions(path=[str(folder)]), ["tqdm>=4; python_version > '3'"])
    assert [each.metadata["Name"] for each in left] == ["huggingface_hub", "pyyaml"]


def test_requirements_of_extras_nobody_asked_for_keep_nothing(installed):
    folder = installed(tokenizers=["huggingface-hub"], huggingface_hub=[], other=['huggingface-hub; extra == "hub"'])
    assert [each.metadata["Name"] for each in image_slim.unreached(distributions(path=[str(folder)]))] == [
        "huggingface_hub"
    ]


def test_files_that_no_import_reaches_leave_and_licences_stay(installed, monkeypatch):
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


def test_libraries_stay_as_long_as_an_extension_names_them(tmp_path):
    """Also two that name each other: only what an extension reaches stays."""
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
        [sys.executable, "-c", SERVE.format(left=LEFT_OUT)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout == "served\n", run.stderr


def stages():
    """Each stage's name, what it begins from, and its instructions."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found = {}
    for part in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        origin, _, name = head.partition(" AS ")
        found[name] = (origin, [line for line in body.splitlines() if line.strip()])
    return found


def origins(name):
    """A stage and all stages below it."""
    while name in stages():
        yield name
        name = stages()[name][0]


def test_the_default_target_serves_and_has_no_torch():
    assert list(stages())[-1] == "serve"
    assert not any("torch" in line for stage in origins("serve") for line in stages()[stage][1])


@pytest.mark.parametrize("target", ["serve", "torch"])
def test_a_target_is_tried_and_runs_as_nobody_from_nothing(target):
    lines = [line for stage in origins(target) for line in stages()[stage][1]]
    assert "USER 10001:10001" in lines
    assert stages()[list(origins(target))[-1]][0] == "scratch"
    assert any(re.match(r"COPY --from=trial(-torch)? /opt/bytecode ", line) for line in lines)
    assert sum(line.startswith(("HEALTHCHECK ", "CMD ")) for line in lines) == 2


def test_where_there_is_no_shell_none_is_used():
    for name, (_, lines) in stages().items():
        if list(origins(name))[-1] == "image":
            for line in lines:
                if line.startswith("RUN "):
                    assert re.fullmatch(r'RUN (--\S+ )*\["python", .*\]', line)


def test_no_instruction_is_for_one_kind_of_processor():
    assert not re.search(r"amd64|x86_64|aarch64|arm64|--platform", DOCKERFILE)


def test_what_is_copied_is_let_into_the_context():
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


def test_extras_are_added_to_what_serving_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plain, redis = serve_requirements.requirements(project, []), serve_requirements.requirements(project, ["redis"])
    assert not any(each.startswith("torch") for each in plain)
    assert redis == [*plain, *project["optional-dependencies"]["redis"]]


def test_an_extra_of_extras_is_resolved_here_and_not_looked_for_on_an_index():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = serve_requirements.requirements(project, ["dev"])
    assert set(project["optional-dependencies"]["redis"]) < set(found)
    assert not any(each.startswith("polymodal") for each in found)


def test_an_extra_that_there_is_not_ends_the_build():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit, match=r"no extra is called ottel; there are train, "):
        serve_requirements.requirements(project, ["ottel"])


def test_bytecode_is_the_same_whenever_its_source_was_written(tmp_path):
    source = tmp_path / "module.py"
    compiled = tmp_path / "cache" / tmp_path.relative_to("/") / "module.cpython-311.pyc"
    compiled.parent.mkdir(parents=True)
    seen = set()
    for moment in (1_000_000_000, 1_700_000_000):
        source.write_text("answer = 42\n")
        os.utime(source, (moment, moment))
        py_compile.compile(str(source), str(compiled), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        assert image_trial.settle(tmp_path / "cache") == 1
        seen.add(compiled.read_bytes())
    assert len(seen) == 1


def test_the_image_keeps_bytecode_where_python_looks_for_it():
    environment = " ".join(line for stage in origins("serve") for line in stages()[stage][1] if line.startswith("ENV "))
    assert "PYTHONPYCACHEPREFIX=/opt/bytecode" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment


@pytest.mark.parametrize("runtime", ["onnx"])
def test_a_trial_asks_a_real_service_and_ends_it(runtime, monkeypatch, capsys):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    image_trial.serve(runtime)
    assert re.fullmatch(rf"{runtime}: ready after \d+\.\d s\n", capsys.readouterr().out)


def test_a_trial_of_what_does_not_start_fails(monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SystemExit, match="tpu: no service after"):
        image_trial.serve("tpu")
