"""The same graph executed by different engines, one file each, one contract.

B examples, M modalities, D embedding width, K labels.
"""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Final, Protocol

from model.bundle import INT8, Bundle
from model.errors import BundleError
from model.types import Array, FloatArray

# Since 1.29 ONNX Runtime tells its makers about processes and models, over the network, and keeps a file for that in the folder of
# temporary files; it reads this when it is imported: https://github.com/microsoft/onnxruntime/pull/27379
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Runtime(Protocol):
    """Executes a bundle's network. Thread-safe; rows don't influence each other."""

    name: str

    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """One modality's collated batch of B to embeddings (B, D)."""
        ...

    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Embeddings (B, D) of every modality and their presence bool (B, M) to logits (B, K)."""
        ...


# By module name, because importing an engine is what serving with another one must not do (torch takes seconds and
# hundreds of megabytes). Each module offers `start(bundle, threads) -> Runtime`; the second name is what it imports.
RUNTIMES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx-int8": ("model.runtimes.onnx_int8_runtime", "onnxruntime"),
    "onnx": ("model.runtimes.onnx_runtime", "onnxruntime"),
    "torch": ("model.runtimes.torch_runtime", "torch"),
}


def suitable(bundle: Bundle) -> tuple[str, ...]:
    """The runtimes that "auto" means for a bundle, the best first; a later one serves when an earlier one disagrees with the
    bundle's golden inputs."""
    if not bundle.has_graph("head"):
        return ("torch",)
    in_8_bits = any(bundle.has_graph(name + INT8) for name in bundle.config.network.order)
    return ("onnx-int8", "onnx") if in_8_bits else ("onnx",)


def start_runtime(name: str, bundle: Bundle, threads: int) -> Runtime:
    """Start the named runtime; `suitable` says what "auto" means.

    `threads` is how many one forward pass may use. Raises BundleError when the runtime can't execute this bundle.
    """
    if name not in RUNTIMES:
        raise BundleError(f"runtime {name!r} is not known; known are auto, {', '.join(RUNTIMES)}")
    module, engine = RUNTIMES[name]
    if importlib.util.find_spec(engine) is None:
        raise BundleError(f"{bundle.directory}: runtime {name!r} needs the package {engine}, which is not installed")
    runtime: Runtime = importlib.import_module(module).start(bundle, threads)
    return runtime
