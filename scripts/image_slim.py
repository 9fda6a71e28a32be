"""Remove the files that serving never opens from an environment: for the Dockerfile, checked by scripts/image_trial.py.

    python scripts/image_slim.py /opt/polymodal/lib/python3.11/site-packages [requirements.txt]

It removes packages that only an unused code path of another package requires, and files that no import reaches, and prints
their size. Licences, notices and the metadata of the remaining packages stay, for scanners and lawyers.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from shutil import rmtree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNUSED: dict[str, set[str]] = {
    "tokenizers": {"huggingface-hub"},  # downloads vocabularies by name; a bundle brings its own
    "onnxruntime": {"flatbuffers", "protobuf"},  # its tools that rewrite models
}
"""Requirements by package that serving does not use; they are removed with the packages that only they require."""

FILES = (
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.a",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/_core/*_tests.*.so",
    # The Python extension includes all of ONNX Runtime; this is another copy, for programs in C.
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    # Fonts and windows. The module for colour profiles stays: images in Lab need it.
    "PIL/_imagingft.*.so",
    "PIL/_imagingtk.*.so",
    # Tracebacks are coloured for Python only.
    "pygments/lexers/[!_ps]*.py",
    "pygments/lexers/_[a-z]*_builtins.py",
    "pygments/lexers/p[!y]*.py",
    "pygments/lexers/s[!p]*.py",
    "torch/include",
    "torch/share",
    "torch/test",
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/bin/*Test",
)
"""Patterns of files in site-packages that no import reaches."""


def main() -> None:
    """Slim the folder of the first argument, and print the removed packages and bytes."""
    folder = Path(sys.argv[1])
    before = size(folder)
    requirements = [line for file in sys.argv[2:] for line in Path(file).read_text(encoding="utf-8").splitlines()]
    removed = list(unused(distributions(path=[str(folder)]), requirements))
    names = ", ".join(sorted(package.metadata["Name"] for package in removed))
    for package in removed:
        uninstall(package)
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern)}):
        remove(path)
    for path in orphans(folder):
        remove(path)
    sys.stdout.write(f"removed: {names or 'no package'}; {before - size(folder):,} bytes\n")


def unused(installed: Iterable[Distribution], requirements: Iterable[str] = ()) -> Iterator[Distribution]:
    """Yield the packages that nothing requires without the unused requirements; `requirements` are always kept."""
    packages: dict[str, Distribution] = {canonicalize_name(package.metadata["Name"]): package for package in installed}
    required = {name: _required_by(package) & packages.keys() for name, package in packages.items()}
    ignored: set[str] = set().union(*(UNUSED.get(name, set()) & names for name, names in required.items()))
    used = {name: names - UNUSED.get(name, set()) for name, names in required.items()}
    candidates = _closure(ignored, required)
    by_name = {canonicalize_name(Requirement(line).name) for line in requirements}
    kept = _closure((packages.keys() - candidates) | (packages.keys() & by_name), used)
    yield from (packages[name] for name in sorted(candidates - kept))


def _closure(names: Iterable[str], required: dict[str, set[str]]) -> set[str]:
    """Return the names with all that they require, directly or indirectly."""
    reached: set[str] = set()
    pending = list(names)
    while pending:
        if (name := pending.pop()) not in reached:
            reached.add(name)
            pending += required[name]
    return reached


def _required_by(package: Distribution) -> set[str]:
    requirements = map(Requirement, package.requires or [])
    return {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate({"extra": ""})
    }


def uninstall(package: Distribution) -> None:
    """Remove the files in a package's RECORD, and the folders that are empty afterwards."""
    for entry in package.files or []:
        path = Path(str(package.locate_file(entry)))
        path.unlink(missing_ok=True)
        while not (path := path.parent).exists() or not any(path.iterdir()):
            if path.exists():
                path.rmdir()


def orphans(folder: Path) -> set[Path]:
    """Return the libraries of wheels (name.libs/…) that no extension links, directly or through another library."""
    binaries = {path: path.read_bytes() for path in folder.rglob("*.so*") if path.is_file()}
    orphaned = {path for path in binaries if path.parent.suffix == ".libs"}
    pending = [path for path in binaries if path not in orphaned]
    while pending:
        content = binaries[pending.pop()]
        linked = {path for path in orphaned if path.name.encode() in content}
        orphaned -= linked
        pending += linked
    return orphaned


def remove(path: Path) -> None:
    """Remove a file or a folder; it may have been removed with a folder above it."""
    if path.is_dir():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
