"""Save and load bundles: folders with everything that serving needs and nothing that can run code.

config.json          format, kind, architecture, preprocessing, labels, target, calibration of the measured sets of modalities
weights.safetensors  every weight once, in 8 or 16 bits where that is enough; all runtimes read them from here
tokenizer.json       the text input's vocabulary (each input names its own files)
onnx/*.onnx          one graph per encoder and, of a network, one for fusion + head, without weights
onnx/*.int8.onnx     encoders that compute in 8 bits, with the weights that they don't share with weights.safetensors
report.json          metrics, data digest, code version, seeds
golden.json          a few inputs and their recorded predictions, replayed before serving
README.md            the model card
SHA256SUMS           a digest of every file above (`sha256sum -c` checks it); its own digest is the model's version
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from polymodal.model.config import FORMAT, HEAD, BundleConfig, KindConfig, upgraded
from polymodal.model.digest import file_sha256
from polymodal.model.errors import BundleError
from polymodal.model.modalities import MODALITIES, Input
from polymodal.model.replacing import replacing
from polymodal.model.targets import check_config
from polymodal.model.types import Array

CONFIG: Final = "config.json"
WEIGHTS: Final = "weights.safetensors"
REPORT: Final = "report.json"
GOLDEN: Final = "golden.json"
CARD: Final = "README.md"
SUMS: Final = "SHA256SUMS"
REQUIRED: Final = (CONFIG, REPORT, GOLDEN, CARD)
"""In addition to the weights of the kind."""

LARGE: Final = 2**16
"""Fewest elements of a matrix that is stored in 8 bits: word embeddings and transformer layers, most of a bundle."""
INT8: Final = ".int8"
"""Suffix of a modality's name that names its graph in 8 bits."""
SCALE: Final = ".scale"
"""Suffix of a weight's name that names the scales of its rows."""


Config = TypeVar("Config", bound=KindConfig)
Weight = TypeVar("Weight")


@dataclass(frozen=True)
class AnyBundle(Generic[Config]):
    """A bundle of any kind, whose files are all present and unaltered."""

    directory: Path
    config: Config
    digest: str
    """SHA-256 of SHA256SUMS, and so of every file: 64 hexadecimal digits."""
    inputs: Mapping[str, Input]
    """In the model's order."""
    report: Mapping[str, Any]
    golden: tuple[Mapping[str, Any], ...]
    card: str
    files: frozenset[str] = frozenset()
    """Everything that SHA256SUMS lists; other files in the folder do not belong to the bundle."""

    def read_weights(self) -> dict[str, Array]:
        """Return every weight by its name in the network, as float32.

        They are not cached: a runtime makes its own copy, and these would stay in memory as long as the service runs.
        """
        return decompress_weights(self.read_stored())

    def read_stored(self, graph: str | None = None) -> dict[str, Array]:
        """Return the weights as they are stored in the file: all by their names in the model, or those of one graph by their names
        in it, without reading the others."""
        try:
            with safe_open(self.directory / WEIGHTS, "numpy") as file:
                names = {name: name for name in sorted(file.keys())}
                chosen = names if graph is None else graph_weights(names, graph)
                return {name: file.get_tensor(key) for name, key in chosen.items()}
        except (OSError, SafetensorError) as problem:
            raise BundleError(f"{self.directory}: {WEIGHTS} cannot be read: {problem}") from problem

    def graph(self, name: str) -> bytes | None:
        """Return the ONNX graph of an encoder or of the "head", in 8 bits for a name with the suffix INT8; None if missing."""
        return (self.directory / _graph_file(name)).read_bytes() if self.has_graph(name) else None

    def has_graph(self, name: str) -> bool:
        """Return whether the bundle has this graph."""
        return _graph_file(name) in self.files


Bundle: TypeAlias = AnyBundle[BundleConfig]
"""The bundle of a network."""


def read_bundle(directory: Path) -> Bundle:
    """Open the bundle of a network; see `read_kind`."""
    return read_kind(directory, BundleConfig)


def read_kind(directory: Path, config_type: type[Config]) -> AnyBundle[Config]:
    """Open a bundle of the kind with this type of config.json, and check every file against its recorded digest.

    Raises BundleError when something is missing, altered, unreadable, of another kind or of another version of the layout.
    """
    try:
        return _read(directory, config_type)
    except OSError as problem:
        raise BundleError(f"{problem.filename or directory}: cannot be read: {problem.strerror}") from problem


def _read(directory: Path, config_type: type[Config]) -> AnyBundle[Config]:
    sums = _read_sums(directory)
    for file, recorded in sums.items():
        path = directory / file
        if not path.is_file():
            raise BundleError(f"{directory}: {file} is missing, though {SUMS} lists it")
        if file_sha256(path) != recorded:
            raise BundleError(f"{directory}: {file} was altered: its SHA-256 is not the one in {SUMS}")
    if unlisted := [file for file in (*REQUIRED, *config_type.weights) if file not in sums]:
        raise BundleError(f"{directory}: {', '.join(unlisted)} is missing from {SUMS}")
    config = _read_config(directory, config_type)
    needed = [file for name in config.order for file in MODALITIES[name].input.files]
    if unlisted := [file for file in needed if file not in sums]:
        raise BundleError(f"{directory}: {', '.join(unlisted)} is missing from {SUMS}")
    return AnyBundle(
        directory=directory,
        config=config,
        digest=file_sha256(directory / SUMS),
        inputs=_load_inputs(directory, config),
        report=_read_object(directory / REPORT),
        golden=_read_golden(directory / GOLDEN),
        card=(directory / CARD).read_text(encoding="utf-8", errors="replace"),
        files=frozenset(sums),
    )


def write_bundle(
    directory: Path,
    *,
    config: KindConfig,
    inputs: Mapping[str, Input],
    weights: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    report: Mapping[str, Any],
    golden: list[dict[str, Any]],
    card: str,
    verify: Callable[[Path], object] = read_bundle,
) -> None:
    """Write a bundle of encoders next to `directory`, then move it there, as `write_kind` does.

    The inputs write their `files`; `config` must have their settings already.
    """

    def fill(fresh: Path) -> None:
        (fresh / "onnx").mkdir()
        for entry in inputs.values():
            entry.save(fresh)
        # In C order, because safetensors writes memory as it is, and weights in channels-last layout are in another order.
        save_file({name: np.asarray(array, order="C") for name, array in weights.items()}, fresh / WEIGHTS)
        (fresh / WEIGHTS).chmod(0o644)  # safetensors allows only the owner; a container serves as another user
        for name, graph in graphs.items():
            (fresh / _graph_file(name)).write_bytes(graph)

    write_kind(directory, fill, config=config, report=report, golden=golden, card=card, verify=verify)


def write_kind(
    directory: Path,
    fill: Callable[[Path], None],
    *,
    config: KindConfig,
    report: Mapping[str, Any],
    golden: list[dict[str, Any]],
    card: str,
    verify: Callable[[Path], object],
) -> None:
    """Write a bundle of any kind next to `directory`, then move it there; an older one is replaced.

    `fill` writes the files of the kind into a folder, which `verify` gets when all files are written. If one of them or the
    writing fails, the new bundle is removed and an older one stays as it was. Raises BundleError as `check_replaceable` does.
    """
    check_replaceable(directory)
    try:
        with replacing(directory) as fresh:
            fill(fresh)
            settings = _as_json(config.model_dump(mode="json", exclude_none=True))
            texts = {CONFIG: settings, REPORT: _as_json(report), GOLDEN: _as_json(golden), CARD: card}
            for file, text in texts.items():
                (fresh / file).write_text(text, encoding="utf-8")
            files = sorted(path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file())
            sums = "".join(f"{file_sha256(fresh / file)}  {file}\n" for file in files)
            (fresh / SUMS).write_text(sums, encoding="utf-8")
            verify(fresh)
    except BundleError as problem:  # its message names the folder that was removed
        raise BundleError(str(problem).replace(str(fresh), str(directory))) from problem


def check_replaceable(directory: Path) -> None:
    """Raise BundleError when `directory` holds anything but a bundle, because it would be deleted."""
    if directory.is_dir():
        if (directory / SUMS).is_file() or not any(directory.iterdir()):
            return
        raise BundleError(
            f"{directory}: holds files that are no bundle; allowed: a new or empty folder, or an older bundle"
        )
    if directory.exists():
        raise BundleError(f"{directory}: is a file; allowed: a new or empty folder, or an older bundle")


def compress_weights(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights as they are stored: large matrices in 8 bits, smaller ones and convolutions in half precision.

    An 8-bit matrix has one scale per row, the row's largest magnitude over 127, stored next to it. Vectors (biases, running
    statistics) stay float32, because they are few and some are too small for half precision. Raises BundleError for a weight
    that is not finite, or beyond ±65,504 where it is stored in half precision.
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


def halve_weights(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights as they are stored if none of them may change: in half precision where that is exact, as read."""
    return {name: _halved(array) for name, array in weights.items()}


def decompress_weights(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return stored weights as float32, as networks take them."""
    return {name: _decompress(name, stored) for name in stored if not name.endswith(SCALE)}


def graph_weights(weights: Mapping[str, Weight], graph: str) -> dict[str, Weight]:
    """Return the weights of one graph by their names in it: of a modality's encoder, or of fusion and head for HEAD."""
    if graph == HEAD:
        return {name: weight for name, weight in weights.items() if not name.startswith("encoders.")}
    prefix = f"encoders.{graph}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _halved(array: Array) -> Array:
    with np.errstate(over="ignore"):  # what is beyond half precision becomes infinite, and is stored as it was
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else array


def _quantise(array: Array) -> tuple[Array, Array]:
    """Quantise a matrix (R, C) to int8 (R, C) and a scale for each row (R, 1)."""
    scale = np.abs(array).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    with np.errstate(invalid="ignore"):  # a value that is not finite makes its scale not finite
        return np.rint(array / scale).astype(np.int8), scale


def _decompress(name: str, stored: Mapping[str, Array]) -> Array:
    array = stored[name]
    if array.dtype == np.int8:
        if name + SCALE not in stored:
            raise BundleError(f"{WEIGHTS}: {name} is stored in 8 bits, but {name + SCALE} is missing")
        return array * stored[name + SCALE]
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _graph_file(name: str) -> str:
    return f"onnx/{name}.onnx"


def _read_sums(directory: Path) -> dict[str, str]:
    """Read the digest of each file. Names are checked, so that a forged list can't name files outside the bundle."""
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


def _read_config(directory: Path, config_type: type[Config]) -> Config:
    content = _read_json(directory / CONFIG)
    version = content.get("format") if isinstance(content, dict) else None
    if version not in (2, FORMAT):
        raise BundleError(f"{directory}: {CONFIG} has format {version!r}; this release reads formats 2 and {FORMAT}")
    if version == 2:
        content = upgraded(content)
    allowed = config_type.model_fields["kind"].default
    if content.get("kind", allowed) != allowed:
        raise BundleError(f"{directory}: a model of kind {content['kind']!r}; allowed here: {allowed}")
    try:
        config = config_type.model_validate(content)
    except ValidationError as problem:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or CONFIG}: {e['msg']}" for e in problem.errors())
        raise BundleError(f"{directory}: {CONFIG} cannot be used: {problems}") from problem
    try:
        if isinstance(config, BundleConfig):
            check_config(config)
    except ValueError as problem:
        raise BundleError(f"{directory}: {CONFIG} cannot be used: {problem}") from problem
    if unknown := [name for name in config.order if name not in MODALITIES]:
        raise BundleError(f"{directory}: {CONFIG} names {', '.join(unknown)}; known are {', '.join(MODALITIES)}")
    return config


def _load_inputs(directory: Path, config: KindConfig) -> dict[str, Input]:
    try:
        return {name: MODALITIES[name].input.load(settings, directory) for name, settings in config.settings.items()}
    except Exception as problem:
        files = ", ".join([CONFIG, *(file for name in config.order for file in MODALITIES[name].input.files)])
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
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise BundleError(f"{path.parent}: {path.name} holds no list of JSON objects")
    return tuple(content)


def _as_json(content: Any) -> str:  # noqa: ANN401 — JSON
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
