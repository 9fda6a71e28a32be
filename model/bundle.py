"""Save and load the folder that holds all that serving needs; nothing in it can run code.

config.json          architecture, preprocessing, labels, task, calibration per set of present modalities
weights.safetensors  every weight once, in 8 or 16 bits where that is enough; both runtimes read them from here
tokenizer.json       the text input's vocabulary (each input names its own files)
onnx/*.onnx          one graph per encoder and one for fusion + head, without weights
onnx/*.int8.onnx     encoders that compute in 8 bits; each has the weights that it doesn't share with weights.safetensors
report.json          metrics, data digest, code version, seeds
golden.json          a few inputs and what was said of them, replayed before serving
README.md            the model card
SHA256SUMS           a digest of every file above (`sha256sum -c` checks it); its own digest is the model's version
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model.config import FORMAT, BundleConfig
from model.errors import BundleError
from model.modalities import MODALITIES, Input
from model.types import Array

CONFIG: Final = "config.json"
WEIGHTS: Final = "weights.safetensors"
REPORT: Final = "report.json"
GOLDEN: Final = "golden.json"
CARD: Final = "README.md"
SUMS: Final = "SHA256SUMS"
REQUIRED: Final = (CONFIG, WEIGHTS, REPORT, GOLDEN, CARD)

LARGE: Final = 2**16
"""Elements from which on a matrix is stored in 8 bits: word embeddings and the layers of a transformer, most of a bundle."""
INT8: Final = ".int8"
"""After a modality's name: that of its graph in 8 bits."""
SCALE: Final = ".scale"
"""After a weight's name: that of the scales of its rows."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all found, and found unaltered."""

    directory: Path
    config: BundleConfig
    digest: str
    """SHA-256 of SHA256SUMS, and so of every file: 64 hexadecimal digits."""
    inputs: Mapping[str, Input]
    """In the network's order."""
    report: Mapping[str, Any]
    golden: tuple[Mapping[str, Any], ...]
    card: str
    files: frozenset[str] = frozenset()
    """Everything that SHA256SUMS lists; whatever else lies in the folder is not part of the bundle."""

    def read_weights(self) -> dict[str, Array]:
        """Every weight by its name in the network, as float32.

        They are not kept: a runtime makes its own copy, and these would stay in memory as long as the service runs.
        """
        return widen(self.read_stored())

    def read_stored(self) -> dict[str, Array]:
        """What `narrow` made of the weights, as it lies in the file."""
        try:
            return load_file(self.directory / WEIGHTS)
        except SafetensorError as problem:
            raise BundleError(f"{self.directory}: {WEIGHTS} cannot be read: {problem}") from problem

    def graph(self, name: str) -> bytes | None:
        """The ONNX graph of an encoder or of the "head", or with INT8 after it the one in 8 bits; None when there is none."""
        return (self.directory / _graph_file(name)).read_bytes() if self.has_graph(name) else None

    def has_graph(self, name: str) -> bool:
        """Whether `graph` has something to read."""
        return _graph_file(name) in self.files


def read_bundle(directory: Path) -> Bundle:
    """Open a bundle, every file checked against its recorded digest.

    Raises BundleError when something is missing, altered, unreadable, or of another version of the layout.
    """
    try:
        return _read(directory)
    except OSError as problem:
        raise BundleError(f"{problem.filename or directory}: cannot be read: {problem.strerror}") from problem


def _read(directory: Path) -> Bundle:
    sums = _read_sums(directory)
    for file, recorded in sums.items():
        path = directory / file
        if not path.is_file():
            raise BundleError(f"{directory}: {file} is missing, though {SUMS} lists it")
        if _sha256(path) != recorded:
            raise BundleError(f"{directory}: {file} was altered: its SHA-256 is not the one in {SUMS}")
    if unlisted := [file for file in REQUIRED if file not in sums]:
        raise BundleError(f"{directory}: {', '.join(unlisted)} is missing from {SUMS}")
    config = _read_config(directory)
    needed = [file for name in config.network.modalities for file in MODALITIES[name].files]
    if unlisted := [file for file in needed if file not in sums]:
        raise BundleError(f"{directory}: {', '.join(unlisted)} is missing from {SUMS}")
    return Bundle(
        directory=directory,
        config=config,
        digest=_sha256(directory / SUMS),
        inputs=_load_inputs(directory, config),
        report=_read_object(directory / REPORT),
        golden=_read_golden(directory / GOLDEN),
        card=(directory / CARD).read_text(encoding="utf-8", errors="replace"),
        files=frozenset(sums),
    )


def write_bundle(
    directory: Path,
    *,
    config: BundleConfig,
    inputs: Mapping[str, Input],
    weights: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    report: Mapping[str, Any],
    golden: list[dict[str, Any]],
    card: str,
    verify: Callable[[Path], object] = read_bundle,
) -> None:
    """Write a whole bundle next to `directory`, then move it there; an older one is replaced.

    `verify` gets the folder that was written. When it raises, or the writing fails, nothing of the new bundle is left, and an
    older one stays as it was. The inputs' `files` are written by the inputs; what they say of themselves must be in `config`
    already. Raises BundleError as `check_replaceable` does.
    """
    check_replaceable(directory)
    fresh, older = (directory.with_name(f".{directory.name}.{state}") for state in ("part", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    if older.exists() and not directory.exists():  # a run was killed between the two moves below
        older.rename(directory)
    shutil.rmtree(older, ignore_errors=True)
    try:
        _write(fresh, config, inputs, weights, graphs, report, golden, card)
        verify(fresh)
        if directory.exists():
            directory.rename(older)
        fresh.rename(directory)
    except BaseException as problem:
        shutil.rmtree(fresh, ignore_errors=True)
        if older.exists() and not directory.exists():
            older.rename(directory)
        if isinstance(problem, BundleError):  # it names the folder that is gone
            raise BundleError(str(problem).replace(str(fresh), str(directory))) from problem
        raise
    shutil.rmtree(older, ignore_errors=True)


def _write(
    fresh: Path,
    config: BundleConfig,
    inputs: Mapping[str, Input],
    weights: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    report: Mapping[str, Any],
    golden: list[dict[str, Any]],
    card: str,
) -> None:
    (fresh / "onnx").mkdir(parents=True)
    for each in inputs.values():
        each.save(fresh)
    (fresh / CONFIG).write_text(_as_json(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    # In C order: safetensors writes an array's memory as it lies, and that of channels-last convolutions lies otherwise.
    save_file({name: np.asarray(array, order="C") for name, array in weights.items()}, fresh / WEIGHTS)
    (fresh / WEIGHTS).chmod(0o644)  # safetensors makes it the owner's alone; a container serves as somebody else
    for name, graph in graphs.items():
        (fresh / _graph_file(name)).write_bytes(graph)
    (fresh / REPORT).write_text(_as_json(report), encoding="utf-8")
    (fresh / GOLDEN).write_text(_as_json(golden), encoding="utf-8")
    (fresh / CARD).write_text(card, encoding="utf-8")
    files = sorted(path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file())
    (fresh / SUMS).write_text("".join(f"{_sha256(fresh / file)}  {file}\n" for file in files), encoding="utf-8")


def check_replaceable(directory: Path) -> None:
    """Raise BundleError when `directory` holds anything but a bundle: it would be deleted for the new one."""
    if directory.is_dir():
        if (directory / SUMS).is_file() or not any(directory.iterdir()):
            return
        raise BundleError(
            f"{directory}: holds files that are no bundle; allowed: a new or empty folder, or an older bundle"
        )
    if directory.exists():
        raise BundleError(f"{directory}: is a file; allowed: a new or empty folder, or an older bundle")


def narrow(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Weights as they are stored: large matrices in 8 bits, smaller ones and convolutions in half precision.

    An 8-bit matrix has one scale for each row, the row's largest magnitude over 127, stored beside it. Vectors (biases, running
    statistics) are few, and some are too small for halves: they stay float32. Raises BundleError for a weight that is not finite,
    or beyond ±65,504 where a half has to hold it.
    """
    stored: dict[str, Array] = {}
    for name, array in weights.items():
        if array.dtype == np.float32 and array.ndim == 2 and array.size >= LARGE:
            stored[name], stored[name + SCALE] = _quantise(array)
        else:
            stored[name] = array.astype(np.float16) if array.dtype == np.float32 and array.ndim > 1 else array
    if broken := [name.removesuffix(SCALE) for name, array in stored.items() if not np.isfinite(array).all()]:
        raise BundleError(f"not finite in the precision of a bundle: {', '.join(broken)}")
    return stored


def widen(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Stored weights as networks take them: float32."""
    return {name: _widen(name, stored) for name in stored if not name.endswith(SCALE)}


def below(weights: Mapping[str, Array], modality: str) -> dict[str, Array]:
    """The weights of one modality's encoder, by their names in it."""
    prefix = f"encoders.{modality}."
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}


def behind(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of fusion and head, which follow the encoders."""
    return {name: array for name, array in weights.items() if not name.startswith("encoders.")}


def _quantise(array: Array) -> tuple[Array, Array]:
    """A matrix (R, C) as int8 with a scale for each row: (R, C) and (R, 1)."""
    scale = np.abs(array).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    with np.errstate(invalid="ignore"):  # what is not finite is found by its scale
        return np.rint(array / scale).astype(np.int8), scale


def _widen(name: str, stored: Mapping[str, Array]) -> Array:
    array = stored[name]
    if array.dtype == np.int8:
        if name + SCALE not in stored:
            raise BundleError(f"{WEIGHTS}: {name} is stored in 8 bits, but {name + SCALE} is missing")
        return array * stored[name + SCALE]
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _graph_file(name: str) -> str:
    return f"onnx/{name}.onnx"


def _read_sums(directory: Path) -> dict[str, str]:
    """File to digest. Names are checked, so that a forged list can't make us read elsewhere."""
    if not directory.is_dir():
        raise BundleError(f"{directory}: no such folder; expected a bundle written by `polymodal train`")
    path = directory / SUMS
    if not path.is_file():
        raise BundleError(f"{directory}: {SUMS} is missing; expected a bundle written by `polymodal train`")
    sums: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        digest, separator, file = line.partition("  ")
        if not separator or len(digest) != 64 or not file or file.startswith("/") or ".." in file.split("/"):
            raise BundleError(f"{directory}: line {number} of {SUMS} is not «digest, two spaces, file»")
        sums[file] = digest
    return sums


def _read_config(directory: Path) -> BundleConfig:
    content = _read_json(directory / CONFIG)
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise BundleError(f"{directory}: {CONFIG} has format {version!r}; this release reads format {FORMAT}")
    try:
        config = BundleConfig.model_validate(content)
    except ValidationError as problem:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or CONFIG}: {e['msg']}" for e in problem.errors())
        raise BundleError(f"{directory}: {CONFIG} cannot be used: {told}") from problem
    if unknown := [name for name in config.network.modalities if name not in MODALITIES]:
        raise BundleError(f"{directory}: {CONFIG} names {', '.join(unknown)}; known are {', '.join(MODALITIES)}")
    return config


def _load_inputs(directory: Path, config: BundleConfig) -> dict[str, Input]:
    try:
        return {
            name: MODALITIES[name].load(modality.input, directory)
            for name, modality in config.network.modalities.items()
        }
    except Exception as problem:
        files = ", ".join([CONFIG, *(file for name in config.network.modalities for file in MODALITIES[name].files)])
        raise BundleError(f"{directory}: preprocessing cannot be set up from {files}: {problem}") from problem


def _read_json(path: Path) -> Any:  # noqa: ANN401 — JSON
    try:
        return json.loads(path.read_bytes())
    except ValueError as problem:
        raise BundleError(f"{path.parent}: {path.name} is not JSON: {problem}") from problem


def _read_object(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise BundleError(f"{path.parent}: {path.name} holds no JSON object")
    return content


def _read_golden(path: Path) -> tuple[Mapping[str, Any], ...]:
    content = _read_json(path)
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise BundleError(f"{path.parent}: {path.name} holds no list of JSON objects")
    return tuple(content)


def _as_json(content: Any) -> str:  # noqa: ANN401 — JSON
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
