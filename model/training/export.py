"""Export a trained network as ONNX graphs without weights: one per encoder, and one for fusion and head."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from polymodal.model.bundle import WEIGHTS
from polymodal.model.kinds.network import Network, load_network
from polymodal.model.modalities import Input
from polymodal.model.network import MultimodalClassifier
from polymodal.model.runtimes.onnx_runtime import UNUSED

OPSET: Final = 20


class _FusionAndHead(nn.Module):
    """Fusion and head, with the parameters' names in the whole network."""

    def __init__(self, network: MultimodalClassifier) -> None:
        super().__init__()
        self.fusion = network.fusion
        self.head = network.head

    def forward(self, embeddings: dict[str, Tensor], present: Tensor) -> Tensor:
        return self.head(self.fusion(embeddings, present))


def export_graphs(network: MultimodalClassifier, inputs: Mapping[str, Input], width: int) -> dict[str, bytes]:
    """Return the encoders' graphs by modality, and "head"; the batch size and the length of texts stay free."""
    network = network.cpu().eval()
    graphs = {}
    for name, entry in inputs.items():
        batch, free = encoder_feed(entry)
        graphs[name] = export_graph(network.encoders[name], batch, list(batch), free)
    embeddings = {name: torch.zeros(2, width) for name in inputs}
    present = torch.ones(2, len(inputs), dtype=torch.bool)
    free_head = {"embeddings": {name: {0: "batch"} for name in inputs}, "present": {0: "batch"}}
    feed = {"embeddings": embeddings, "present": present}
    graphs["head"] = export_graph(_FusionAndHead(network), feed, [*inputs, "present"], free_head)
    return graphs


def export_graph(module: nn.Module, feed: dict[str, Any], names: list[str], free: dict[str, Any]) -> bytes:
    """Trace `module(**feed)`, without its weights; `names` become the graph's inputs, and the axes named in `free` stay free."""
    weights = {name for name, weight in module.state_dict().items() if weight.is_floating_point()}
    # The exporter's own optimiser would change weights; they must stay as the bundle stores them, under their own names.
    model = _folded(_program(module, feed, names, free, optimize=False).model, weights)
    return without_weights(model, weights)


def _folded(model: ir.Model, weights: AbstractSet[str]) -> onnx.ModelProto:
    """Fold nodes that depend only on constants and shapes. The result has the weights' shapes alone, not a copy of their numbers.

    ONNX Runtime fuses a convolution with its activation only if the bias and the bounds of the activation are constants; without
    fusion it takes three times as long.
    """

    def should_fold(node: Any) -> bool | None:  # noqa: ANN401 — onnx_ir.Node
        """Return False for nodes that use a weight's numbers, which must stay; None for the optimiser's default."""
        takes_numbers = (
            any(value is not None and value.name in weights for value in node.inputs) and node.op_type != "Shape"
        )
        return False if takes_numbers else None

    optimizer.fold_constants(model, should_fold=should_fold)
    for name, value in model.graph.initializers.items():
        if name in weights and value.const_value is not None:
            dtype, shape = value.const_value.dtype, ir.Shape(value.const_value.shape.numpy())
            value.const_value = ir.ExternalTensor(WEIGHTS, None, None, dtype, shape=shape, name=name)
    proto = ir.serde.serialize_model(model)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name not in weights}
    for node in proto.graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Conv" and node.input[2:] else None
        if bias is not None and not numpy_helper.to_array(bias).any():  # the exporter adds one if there is none
            del node.input[2]
    optimizer.remove_unused_nodes(proto)
    return proto


def encoder_feed(entry: Input) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a batch of two blank samples as an encoder takes it, and its free axes."""
    blank = entry.blank()
    arrays = entry.collate([blank, blank])
    free = {key: {0: "batch", **entry.free_axes.get(key, {})} for key in arrays}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}, free


def trace(
    module: nn.Module, feed: dict[str, Any], names: list[str], free: dict[str, Any], *, optimize: bool
) -> onnx.ModelProto:
    """Return the graph of `module(**feed)` with its weights."""
    return _program(module, feed, names, free, optimize=optimize).model_proto


def _program(
    module: nn.Module, feed: dict[str, Any], names: list[str], free: dict[str, Any], *, optimize: bool
) -> torch.onnx.ONNXProgram:
    # During an export, torch 2.13 replaces recurrent cells by a computation with a free length, but doesn't clear the caches of
    # operators. Without this, the length could be fixed from the second export of a process on.
    for cell in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cell._dispatch_cache.clear()
    # The exporter prints to standard output and warns of its own internals.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            kwargs=feed,
            dynamo=True,
            optimize=optimize,
            opset_version=OPSET,
            input_names=names,
            output_names=["result"],
            dynamic_shapes=free,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program


def without_weights(model: onnx.ModelProto, weights: AbstractSet[str], *marks: str) -> bytes:
    """Serialise a graph without the weights' numbers (names and shapes stay) and without metadata about its origin.

    The metadata gets `marks` and the names of the weights that the graph doesn't use.
    """
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=WEIGHTS)
    remove_origin(model)
    for mark in marks:
        model.metadata_props.add(key=mark)
    # Unused is, for example, the mask token of an image model that was trained to fill in masked patches.
    return serialise(model, unused=weights - {tensor.name for tensor in graph.initializer})


def serialise(model: onnx.ModelProto, unused: AbstractSet[str]) -> bytes:
    """Serialise a graph, with the names of the bundle's weights that it doesn't use."""
    for name in sorted(unused):
        model.metadata_props.add(key=f"{UNUSED}{name}")
    return model.SerializeToString(deterministic=True)


def remove_origin(model: onnx.ModelProto) -> None:
    """Remove metadata about where and from which code a graph was made."""
    graph = model.graph
    for node in graph.node:
        node.ClearField("doc_string")
    for message in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        message.ClearField("metadata_props")
    graph.ClearField("value_info")


def load_verified(folder: Path) -> Network:
    """Return a bundle loaded as serving does. Raises BundleError unless its golden inputs are reproduced."""
    predictor = load_network(folder, threads=torch.get_num_threads())
    predictor.warm_up()
    return predictor
