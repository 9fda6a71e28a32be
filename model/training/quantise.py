"""Convert encoders' graphs to 8 bits in two ways.

Matrices (transformers, perceptrons): every matrix that the bundle stores in 8 bits is multiplied as stored, so that it needs no
second copy. The other factor is quantised row by row (one token, one example), to ±63 at the row's largest magnitude; with one
scale for the whole tensor, a row would depend on the others in its batch. The sum of two products of 127 · 63 fits into the 16 bits
in which some processors add them.

Convolutions: static quantisation by ONNX Runtime's tools, per channel for weights (int8) and per tensor for activations (uint8),
whose ranges come from training images. Such a graph holds its own weights.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from polymodal.model.bundle import SCALE
from polymodal.model.runtimes.onnx_runtime import NO_OVERFLOW
from polymodal.model.training.export import remove_origin, serialise, without_weights
from polymodal.model.types import Array

STEPS: Final = 63  # on each side of zero, of the quantised other factor
SMALLEST: Final = 1e-9  # largest magnitude assumed for a row of zeros, to avoid a division by zero
CONSTANTS: Final[Mapping[str, Array]] = {
    "int8.one": np.asarray(1, np.float32),
    "int8.most": np.asarray(STEPS, np.float32),
    "int8.smallest": np.asarray(SMALLEST, np.float32),
    "int8.middle": np.asarray(STEPS + 1, np.uint8),
    "int8.last": np.asarray([-1], np.int64),
}


def matrices_in_8_bits(graph: bytes, stored: Mapping[str, Array]) -> bytes | None:
    """Return a graph (without weights) that multiplies int8 matrices as they are stored; None if it multiplies none.

    `stored` are the encoder's weights as the bundle stores them, by their names in the graph.
    """
    model = onnx.load_model_from_string(graph)
    matrices = {name for name, array in stored.items() if array.dtype == np.int8}
    transposed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in matrices
    }
    nodes: list[NodeProto] = []
    multiplied = 0
    for node in model.graph.node:
        factor = _factor(node, transposed, matrices)
        if factor is not None:
            nodes += _multiplication(node, factor)
            multiplied += 1
        elif node.op_type == "Gather" and node.input[0] in matrices and not _attribute(node, "axis"):
            nodes += _lookup(node)
        else:
            nodes.append(node)
    if not multiplied:
        return None
    used = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if node.output[0] not in transposed or node.output[0] in used]
    restored: list[NodeProto] = []
    for name in sorted(matrices):
        others = [node for node in nodes if _uses_in_float(node, name)]
        for node in others:
            node.input[:] = [f"{name}.whole" if value == name else value for value in node.input]
        if others:
            restored += [
                helper.make_node("Cast", [name], [f"{name}.cast"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}.cast", name + SCALE], [f"{name}.whole"]),
            ]
    del model.graph.node[:]
    model.graph.node.extend([*restored, *nodes])
    for tensor in model.graph.initializer:
        if tensor.name in matrices:
            tensor.data_type = onnx.TensorProto.INT8
    present = {tensor.name for tensor in model.graph.initializer}
    scales = {name + SCALE: stored[name + SCALE] for name in sorted(matrices & present)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in {**scales, **CONSTANTS}.items()
    )
    return without_weights(model, stored.keys(), NO_OVERFLOW)


def _factor(node: NodeProto, transposed: Mapping[str, str], matrices: set[str]) -> str | None:
    """Return the int8 matrix (out, in) that a node multiplies rows with, if any."""
    if node.op_type == "MatMul":
        return transposed.get(node.input[1])
    if node.op_type == "Gemm" and node.input[1] in matrices:
        scaled = any(_attribute(node, name) not in (None, 1.0) for name in ("alpha", "beta"))
        return node.input[1] if _attribute(node, "transB") and not _attribute(node, "transA") and not scaled else None
    return None


def _attribute(node: NodeProto, name: str) -> Any:  # noqa: ANN401 — whatever an attribute holds
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), None)


def _multiplication(node: NodeProto, name: str) -> list[NodeProto]:
    """Return nodes that multiply rows (…, I) by a matrix (O, I) in 8 bits, in place of a MatMul or Gemm."""
    rows, result = node.input[0], node.output[0]
    bias = list(node.input[2:3])

    def name_of(value: str) -> str:
        return f"{result}.{value}"

    return [
        helper.make_node("Abs", [rows], [name_of("magnitudes")]),
        helper.make_node("ReduceMax", [name_of("magnitudes"), "int8.last"], [name_of("largest")], keepdims=1),
        helper.make_node("Max", [name_of("largest"), "int8.smallest"], [name_of("range")]),
        helper.make_node("Div", ["int8.most", name_of("range")], [name_of("steps")]),
        helper.make_node("Mul", [rows, name_of("steps")], [name_of("stretched")]),
        helper.make_node("QuantizeLinear", [name_of("stretched"), "int8.one", "int8.middle"], [name_of("quantised")]),
        helper.make_node("Transpose", [name], [name_of("matrix")], perm=[1, 0]),
        helper.make_node(
            "MatMulInteger", [name_of("quantised"), name_of("matrix"), "int8.middle"], [name_of("integers")]
        ),
        helper.make_node("Cast", [name_of("integers")], [name_of("sums")], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", [name_of("range"), "int8.most"], [name_of("row_scale")]),
        helper.make_node("Mul", [name_of("sums"), name_of("row_scale")], [name_of("scaled")]),
        helper.make_node("Transpose", [name + SCALE], [name_of("column_scale")], perm=[1, 0]),
        helper.make_node("Mul", [name_of("scaled"), name_of("column_scale")], [name_of("product") if bias else result]),
        *([helper.make_node("Add", [name_of("product"), *bias], [result])] if bias else []),
    ]


def _lookup(node: NodeProto) -> list[NodeProto]:
    """Return nodes that gather rows of an int8 matrix, such as word embeddings, in place of a Gather along the first axis."""
    name, index = node.input
    result = node.output[0]
    return [
        helper.make_node("Gather", [name, index], [f"{result}.integers"], axis=0),
        helper.make_node("Cast", [f"{result}.integers"], [f"{result}.sums"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [name + SCALE, index], [f"{result}.scale"], axis=0),
        helper.make_node("Mul", [f"{result}.sums", f"{result}.scale"], [result]),
    ]


def _uses_in_float(node: NodeProto, name: str) -> bool:
    """Return whether a node that is not made by this module uses a matrix."""
    ours = node.op_type in ("Gather", "Transpose") and node.output[0].endswith((".integers", ".matrix"))
    return name in node.input and not ours


def convolutions(graph: bytes) -> int:
    """Count the convolutions of a graph."""
    return sum(node.op_type == "Conv" for node in onnx.load_model_from_string(graph).graph.node)


class _Batches(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime's tools are not typed
    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._batches, None)


def convolutions_in_8_bits(
    model: onnx.ModelProto, batches: Sequence[Mapping[str, Array]], *, in_float: int, unused: AbstractSet[str]
) -> bytes:
    """Quantise a graph with weights and folded batch normalisation, except its first `in_float` convolutions.

    The first ones are the most sensitive, because all later layers add to their errors. `batches` give the ranges; `unused` has
    the names of the bundle's weights for this encoder, none of which the graph uses.
    """
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:in_float]
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(model, plain)
        with _without_advice():
            quantize_static(
                plain,
                quantised,
                _Batches(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=first,
            )
        result = onnx.load_model(quantised)
    remove_origin(result)
    # The graph has weights of its own: those of the bundle differ, because batch normalisation is not folded into them.
    return serialise(result, unused)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide ONNX Runtime's warnings, in the root logger, about preparations that the exporter has made."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logging.getLogger().addFilter(is_error)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(is_error)
