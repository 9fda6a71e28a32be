"""The CPU runtime: exported graphs executed by ONNX Runtime, with the bundle's weights handed to them.

The graphs carry no weights: each names its own as the network does below its prefix, and gets them from
weights.safetensors, so that a bundle holds every weight once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import onnxruntime as ort

from model.bundle import Bundle
from model.errors import BundleError
from model.types import Array, FloatArray

HEAD: Final = "head"
UNUSED: Final = "unused:"
"""Before the name of a weight as a key of a graph's metadata: the network has it, and the graph doesn't."""
ERRORS_ONLY: Final = 3  # ONNX Runtime's log level; its warnings are about its own optimiser


class OnnxRuntime:
    """Executes one session per encoder and one for fusion and head."""

    name: ClassVar[str] = "onnx"

    def __init__(self, sessions: Mapping[str, ort.InferenceSession], order: Sequence[str]) -> None:
        self._sessions = sessions
        self._order = tuple(order)

    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """One modality's collated batch of B to embeddings (B, D)."""
        return _run(self._sessions[modality], batch)

    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Embeddings (B, D) by modality and their presence (B, M) to logits (B, K)."""
        return _run(self._sessions[HEAD], {**{name: embeddings[name] for name in self._order}, "present": present})


def start(bundle: Bundle, threads: int) -> OnnxRuntime:
    """Open a session for each graph. Raises BundleError when a graph is missing or its weights don't fit."""
    order = bundle.config.network.order
    weights = bundle.read_weights()
    sessions = {name: _open(bundle, name, _below(weights, f"encoders.{name}."), threads) for name in order}
    rest = {name: array for name, array in weights.items() if not name.startswith("encoders.")}
    return OnnxRuntime({**sessions, HEAD: _open(bundle, HEAD, rest, threads)}, order)


def _below(weights: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}


def _open(bundle: Bundle, name: str, weights: Mapping[str, Array], threads: int) -> ort.InferenceSession:
    graph = bundle.graph(name)
    if graph is None:
        raise BundleError(f"{bundle.directory}: onnx/{name}.onnx is missing; export the bundle or serve it with torch")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # ONNX Runtime refuses a weight that its graph lacks; those that serving doesn't need, the exporter has listed.
    used = {key: ort.OrtValue.ortvalue_from_numpy(array) for key, array in weights.items() if not is_unused(graph, key)}
    options.add_external_initializers(list(used), list(used.values()))
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BundleError(f"{bundle.directory}: onnx/{name}.onnx cannot be used: {problem}") from problem


def is_unused(graph: bytes, name: str) -> bool:
    """Whether a graph's metadata say that it doesn't need the weight of this name.

    Read as protocol buffers write a key (field 1): tag, length in groups of seven bits, bytes; so serving needs no parser of ONNX.
    """
    key = f"{UNUSED}{name}".encode()
    low, high = len(key) & 0x7F, len(key) >> 7
    return b"\x0a" + (bytes((low | 0x80, high)) if high else bytes((low,))) + key in graph


def _run(session: ort.InferenceSession, feed: Mapping[str, Any]) -> FloatArray:
    result: FloatArray = np.asarray(session.run(None, dict(feed))[0], dtype=np.float32)
    return result
