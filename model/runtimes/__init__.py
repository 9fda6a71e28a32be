"""The same graph executed by different engines, one file each, one contract.

B examples, M modalities, D embedding width, K labels.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from model.bundle import Bundle
from model.errors import BundleError
from model.types import Array, FloatArray


class Runtime(Protocol):
    """Executes a bundle's network. One call at a time; rows don't influence each other."""

    name: ClassVar[str]

    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """One modality's collated batch of B to embeddings (B, D)."""
        ...

    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Embeddings (B, D) of every modality and their presence bool (B, M) to logits (B, K)."""
        ...


# By module name, because importing an engine is what serving with another one must not do (torch takes seconds and
# hundreds of megabytes). Each module offers `start(bundle, threads) -> Runtime`; the second name is what it imports.
RUNTIMES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx": ("model.runtimes.onnx_runtime", "onnxruntime"),
    "torch": ("model.runtimes.torch_runtime", "torch"),
}


def start_runtime(name: str, bundle: Bundle, threads: int) -> Runtime:
    """Start the named runtime; "auto" takes ONNX Runtime where the bundle has graphs, and torch otherwise.

    `threads` is how many one forward pass may use. Raises BundleError when the runtime can't execute this bundle.
    """
    if name == "auto":
        name = "onnx" if bundle.graph("head") is not None else "torch"
    if name not in RUNTIMES:
        raise BundleError(f"runtime {name!r} is not known; known are auto, {', '.join(RUNTIMES)}")
    module, engine = RUNTIMES[name]
    if importlib.util.find_spec(engine) is None:
        raise BundleError(f"{bundle.directory}: runtime {name!r} needs the package {engine}, which is not installed")
    runtime: Runtime = importlib.import_module(module).start(bundle, threads)
    return runtime
