"""The CPU runtime: exported graphs executed by ONNX Runtime, with the bundle's weights.

The graphs contain no weights. They name them as the network does, without the graph's prefix, and get them from
weights.safetensors, so that a bundle stores every weight once.

B examples, M modalities, D embedding width, K labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from polymodal.model.bundle import AnyBundle, decompress_weights
from polymodal.model.config import HEAD
from polymodal.model.errors import BundleError
from polymodal.model.runtimes.processor import processor
from polymodal.model.types import Array, FloatArray

UNUSED: Final = "unused:"
"""Prefix of a metadata key that names a weight of the network that the graph does not have."""
PRECISE: Final = "session.x64quantprecision"
"""Session option that makes products of 8-bit numbers exact on x86-64 without VNNI."""
NO_OVERFLOW: Final = "no-overflow"
"""Metadata key of a graph in 8 bits whose sums of two products never exceed 16 bits."""
ERRORS_ONLY: Final = 3  # ONNX Runtime's log level; its warnings are about its own optimiser


class OnnxRuntime:
    """Executes one session per encoder and, of a network, one for fusion and head."""

    def __init__(self, sessions: Mapping[str, ort.InferenceSession], order: Sequence[str], name: str = "onnx") -> None:
        self.name = name
        self._sessions = sessions
        self._order = tuple(order)

    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """Return embeddings (B, D) of one modality's collated batch of B."""
        return _run(self._sessions[modality], batch)

    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Return logits (B, K) of embeddings (B, D) by modality and their presence (B, M)."""
        return _run(self._sessions[HEAD], {**{name: embeddings[name] for name in self._order}, "present": present})


def start(bundle: AnyBundle[Any], threads: int) -> OnnxRuntime:
    """Open a session for each graph. Raises BundleError when a graph is missing or its weights don't fit."""
    sessions = {  # one graph's weights at a time, because a session copies them
        name: open_graph(bundle, name, decompress_weights(bundle.read_stored(name)), threads)
        for name in bundle.config.graphs
    }
    return OnnxRuntime(sessions, bundle.config.order)


def open_graph(bundle: AnyBundle[Any], name: str, weights: Mapping[str, Array], threads: int) -> ort.InferenceSession:
    """Open a session of one of a bundle's graphs. Raises BundleError when it is missing or its weights don't fit."""
    graph = bundle.graph(name)
    if graph is None:
        raise BundleError(f"{bundle.directory}: onnx/{name}.onnx is missing; export the bundle or serve it with torch")
    try:
        return open_session(graph, weights, threads)
    except Exception as problem:
        raise BundleError(f"{bundle.directory}: onnx/{name}.onnx cannot be used: {problem}") from problem


def open_session(graph: bytes, weights: Mapping[str, Array], threads: int) -> ort.InferenceSession:
    """Open a session of a graph with the weights that it needs; `weights` has them by their names in the graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena keeps the memory of the largest batch and is not faster
    options.log_severity_level = ERRORS_ONLY
    if not processor().has_vnni and not _has_key(graph, NO_OVERFLOW):
        # Without VNNI, ONNX Runtime adds pairs of products in 16 bits, which overflow. With this entry it takes unsigned weights:
        # exact, and slower. With VNNI nothing overflows, and the entry made convolutions 2.5 times slower (decision 0010).
        options.add_session_config_entry(PRECISE, "1")
    # ONNX Runtime rejects a weight that the graph lacks; the exporter lists these in the metadata.
    used = {
        key: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))  # torch's may be in channels-last layout
        for key, array in weights.items()
        if not is_unused(graph, key)
    }
    options.add_external_initializers(list(used), list(used.values()))
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def is_unused(graph: bytes, name: str) -> bool:
    """Return whether a graph's metadata lists the weight of this name as unused."""
    return _has_key(graph, f"{UNUSED}{name}")


def _has_key(graph: bytes, text: str) -> bool:
    """Return whether a graph's metadata has this key.

    The key is searched as protocol buffers encode it (field 1: tag, varint length, bytes), so that serving needs no ONNX parser.
    """
    key = text.encode()
    low, high = len(key) & 0x7F, len(key) >> 7
    return b"\x0a" + (bytes((low | 0x80, high)) if high else bytes((low,))) + key in graph


def _run(session: ort.InferenceSession, feed: Mapping[str, Any]) -> FloatArray:
    result: FloatArray = np.asarray(session.run(None, dict(feed))[0], dtype=np.float32)
    return result
