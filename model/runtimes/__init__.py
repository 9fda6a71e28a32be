"""Runtimes, which execute the same network with different engines. Each is a module of this package.

B examples, M modalities, D embedding width, A width of an aligned vector (0 without alignment heads), K labels.
"""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

from polymodal.model.bundle import INT8, AnyBundle
from polymodal.model.config import HEAD
from polymodal.model.errors import BundleError
from polymodal.model.types import Array, FloatArray

# Since 1.29 ONNX Runtime sends telemetry about processes and models, and keeps a file of it in the folder for temporary files.
# It reads this variable on import: https://github.com/microsoft/onnxruntime/pull/27379
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Runtime(Protocol):
    """Executes a bundle's network. Thread-safe; rows don't influence each other."""

    name: str

    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """Return embeddings (B, D + A) of one modality's collated batch of B."""
        ...

    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Return logits (B, K) of embeddings (B, D) of every modality and their presence bool (B, M)."""
        ...


# Module, and the package that it imports. The module is named, because serving with one engine must not import another (torch
# takes seconds and hundreds of megabytes). It has a function `start(bundle, threads) -> Runtime`.
RUNTIMES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx-int8": ("polymodal.model.runtimes.onnx_int8_runtime", "onnxruntime"),
    "onnx": ("polymodal.model.runtimes.onnx_runtime", "onnxruntime"),
    "torch": ("polymodal.model.runtimes.torch_runtime", "torch"),
}


def suitable(bundle: AnyBundle[Any]) -> tuple[str, ...]:
    """Return the runtimes that "auto" tries, best first: the next one is used if one fails the golden inputs."""
    if HEAD in bundle.config.graphs and not bundle.has_graph(HEAD):
        return ("torch",)
    in_8_bits = any(bundle.has_graph(name + INT8) for name in bundle.config.order)
    return ("onnx-int8", "onnx") if in_8_bits else ("onnx",)


def start_runtime(name: str, bundle: AnyBundle[Any], threads: int) -> Runtime:
    """Start the named runtime; `suitable` defines "auto".

    One forward pass may use `threads` threads. Raises BundleError when the runtime can't execute this bundle.
    """
    if name not in RUNTIMES:
        raise BundleError(f"runtime {name!r} is not known; known are auto, {', '.join(RUNTIMES)}")
    module, engine = RUNTIMES[name]
    if importlib.util.find_spec(engine) is None:
        raise BundleError(f"{bundle.directory}: runtime {name!r} needs the package {engine}, which is not installed")
    runtime: Runtime = importlib.import_module(module).start(bundle, threads)
    return runtime
