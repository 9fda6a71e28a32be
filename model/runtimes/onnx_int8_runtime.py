"""The quick CPU runtime: encoders that compute in 8 bits, where the bundle has them; executed by ONNX Runtime.

Half the time and less than half the memory of float32. How much it costs in accuracy was measured when the bundle was exported, and
no bundle has such a graph that costs more than training allows.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnxruntime as ort

from model.bundle import INT8, Bundle, behind, below, widen
from model.runtimes.onnx_runtime import HEAD, OnnxRuntime, open_graph
from model.types import Array

NAME: Final = "onnx-int8"


def start(bundle: Bundle, threads: int) -> OnnxRuntime:
    """Open a session for each graph, in 8 bits where there is one. Raises BundleError as the runtime in float32 does."""
    order, stored = bundle.config.network.order, bundle.read_stored()
    sessions = {name: _open(bundle, name, below(stored, name), threads) for name in order}
    return OnnxRuntime({**sessions, HEAD: open_graph(bundle, HEAD, widen(behind(stored)), threads)}, order, NAME)


def _open(bundle: Bundle, modality: str, stored: Mapping[str, Array], threads: int) -> ort.InferenceSession:
    if bundle.has_graph(modality + INT8):
        return open_graph(bundle, modality + INT8, in_8_bits(stored), threads)
    return open_graph(bundle, modality, widen(stored), threads)


def in_8_bits(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Weights as graphs in 8 bits take them: int8 matrices with their scales as they are stored, everything else as float32."""
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in stored.items()}
