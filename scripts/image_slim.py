"""Take out of an environment what serving never opens; only the Dockerfile asks, and scripts/image_trial.py is the proof.

    python scripts/image_slim.py /opt/polymodal/lib/python3.11/site-packages [requirements.txt]    prints what left, with its bytes

Two kinds leave: whole packages that only an unused path of another one wants, and files that no import ever reaches. What a
scanner or a lawyer looks for stays: licences, notices, and the metadata of every package that stays.
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
"""Requirements of a package that serving doesn't reach: what nothing else wants goes with them."""

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
    # The Python extension has the whole of ONNX Runtime within itself; this is another copy, for programs in C.
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    # Letters and windows. Colours in Lab need Pillow's module for colour profiles.
    "PIL/_imagingft.*.so",
    "PIL/_imagingtk.*.so",
    # Of the languages that tracebacks are coloured in, Python is enough.
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
"""Patterns below site-packages of what no import reaches."""


def main() -> None:
    """Slim the folder that is named, and say what left."""
    folder = Path(sys.argv[1])
    before = size(folder)
    asked = [line for file in sys.argv[2:] for line in Path(file).read_text(encoding="utf-8").splitlines()]
    left = [each.metadata["Name"] for each in unreached(distributions(path=[str(folder)]), asked)]
    for each in list(distributions(path=[str(folder)])):
        if each.metadata["Name"] in left:
            uninstall(each)
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern)}):
        remove(path)
    for path in orphans(folder):
        remove(path)
    sys.stdout.write(f"left out: {', '.join(sorted(left)) or 'no package'}; {before - size(folder):,} bytes\n")


def unreached(installed: Iterable[Distribution], asked: Iterable[str] = ()) -> Iterator[Distribution]:
    """Those that nothing requires any more once the unused requirements are struck out, directly or through each other.

    Requirements that were asked for by name always count.
    """
    packages: dict[str, Distribution] = {canonicalize_name(each.metadata["Name"]): each for each in installed}
    everything = {name: _wanted(each) & packages.keys() for name, each in packages.items()}
    struck: set[str] = set().union(*(UNUSED.get(name, set()) & wanted for name, wanted in everything.items()))
    used = {name: wanted - UNUSED.get(name, set()) for name, wanted in everything.items()}
    candidates = _closure(struck, everything)
    named = {canonicalize_name(Requirement(each).name) for each in asked}
    kept = _closure((packages.keys() - candidates) | (packages.keys() & named), used)
    yield from (packages[name] for name in sorted(candidates - kept))


def _closure(names: Iterable[str], wanted: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = list(names)
    while ahead:
        if (name := ahead.pop()) not in reached:
            reached.add(name)
            ahead += wanted[name]
    return reached


def _wanted(distribution: Distribution) -> set[str]:
    requirements = map(Requirement, distribution.requires or [])
    return {
        canonicalize_name(each.name) for each in requirements if not each.marker or each.marker.evaluate({"extra": ""})
    }


def uninstall(distribution: Distribution) -> None:
    """Remove the files that a package's RECORD lists, and folders that are empty then."""
    for entry in distribution.files or []:
        path = Path(str(distribution.locate_file(entry)))
        path.unlink(missing_ok=True)
        while not (path := path.parent).exists() or not any(path.iterdir()):
            if path.exists():
                path.rmdir()


def orphans(folder: Path) -> set[Path]:
    """Libraries that wheels bring along (name.libs/…) and that no extension names, neither itself nor through another library."""
    binaries = {path: path.read_bytes() for path in folder.rglob("*.so*") if path.is_file()}
    orphaned = {path for path in binaries if path.parent.suffix == ".libs"}
    ahead = [path for path in binaries if path not in orphaned]
    while ahead:
        content = binaries[ahead.pop()]
        named = {path for path in orphaned if path.name.encode() in content}
        orphaned -= named
        ahead += named
    return orphaned


def remove(path: Path) -> None:
    """A file, or a folder with all below it; neither when it went with a folder above it."""
    if path.is_dir():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
