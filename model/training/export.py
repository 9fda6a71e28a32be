"""From a trained network to ONNX graphs without weights: one per encoder, and one for fusion and head."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import onnx
import torch
from onnx import numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from model.bundle import WEIGHTS
from model.modalities import Input
from model.network import MultimodalClassifier
from model.runtimes.onnx_runtime import UNUSED

OPSET: Final = 20


class _FusionAndHead(nn.Module):
    """What follows the encoders, with the parameters' names that the whole network gives them."""

    def __init__(self, network: MultimodalClassifier) -> None:
        super().__init__()
        self.fusion = network.fusion
        self.head = network.head

    def forward(self, embeddings: dict[str, Tensor], present: Tensor) -> Tensor:
        return self.head(self.fusion(embeddings, present))


def export_graphs(network: MultimodalClassifier, inputs: Mapping[str, Input], width: int) -> dict[str, bytes]:
    """Every graph by the name of its modality, and "head"; batch and text length stay free."""
    network = network.cpu().eval()
    graphs = {}
    for name, each in inputs.items():
        batch, free = encoder_feed(each)
        graphs[name] = export_graph(network.encoders[name], batch, list(batch), free)
    embeddings = {name: torch.zeros(2, width) for name in inputs}
    present = torch.ones(2, len(inputs), dtype=torch.bool)
    free_head = {"embeddings": {name: {0: "batch"} for name in inputs}, "present": {0: "batch"}}
    feed = {"embeddings": embeddings, "present": present}
    graphs["head"] = export_graph(_FusionAndHead(network), feed, [*inputs, "present"], free_head)
    return graphs


def _free_length(blank: Sequence[int], collated: Sequence[int]) -> dict[int, str]:
    """A one-dimensional array (tokens) has a free length; pictures don't."""
    return {1: "length"} if len(blank) == 1 and len(collated) == 2 else {}


def export_graph(module: nn.Module, feed: dict[str, Any], names: list[str], free: dict[str, Any]) -> bytes:
    """Trace `module(**feed)`, without its weights; `names` become the graph's inputs, and the axes named in `free` stay free."""
    weights = {name for name, each in module.state_dict().items() if each.is_floating_point()}
    # The exporter's own optimiser would change weights; here each must stay as the bundle stores it, under its own name.
    model = _folded(trace(module, feed, names, free, optimize=False), weights)
    return without_weights(model, weights)


def _folded(model: onnx.ModelProto, weights: AbstractSet[str]) -> onnx.ModelProto:
    """What follows from constants and shapes alone, computed now: ONNX Runtime fuses a convolution with what follows it only when
    its bias and the bounds of its activation are constants, and takes three times as long otherwise."""

    def follows(node: Any) -> bool | None:  # noqa: ANN401 — onnx_ir.Node
        """False: must stay. A weight's shape may be used, its numbers may not; the rest is for the folder to decide."""
        takes_numbers = (
            any(each is not None and each.name in weights for each in node.inputs) and node.op_type != "Shape"
        )
        return False if takes_numbers else None

    optimizer.fold_constants(model, should_fold=follows)
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in weights}
    for node in model.graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Conv" and node.input[2:] else None
        if bias is not None and not numpy_helper.to_array(bias).any():  # the exporter adds it where there is none
            del node.input[2]
    optimizer.remove_unused_nodes(model)
    return model


def encoder_feed(each: Input) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch of two blank inputs as an encoder takes it, and which of its axes stay free."""
    blank = each.blank()
    arrays = each.collate([blank, blank])
    free = {key: {0: "batch", **_free_length(blank.shape, array.shape)} for key, array in arrays.items()}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}, free


def trace(
    module: nn.Module, feed: dict[str, Any], names: list[str], free: dict[str, Any], *, optimize: bool
) -> onnx.ModelProto:
    """The graph of `module(**feed)` with its weights."""
    # While it exports, torch 2.13 has recurrent cells computed in a way that leaves the length free, but doesn't clear where each
    # operator keeps what it once looked up: from the second export of a process on, it could find the length fixed.
    for cell in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cell._dispatch_cache.clear()
    # The exporter chats on standard output and warns of its own internals.
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
    return program.model_proto


def without_weights(model: onnx.ModelProto, weights: AbstractSet[str], *marks: str) -> bytes:
    """Leave every weight's name and shape, but not its numbers, and no trace of where the graph was made.

    Weights of the network that the graph doesn't need are listed in its metadata, after `marks`.
    """
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=WEIGHTS)
    forget_origin(model)
    for mark in marks:
        model.metadata_props.add(key=mark)
    # As the mask token of a picture model that was trained to fill in what is masked.
    return sealed(model, unused=weights - {tensor.name for tensor in graph.initializer})


def sealed(model: onnx.ModelProto, unused: AbstractSet[str]) -> bytes:
    """A graph as a file, with the names of those of the bundle's weights that it doesn't take from there."""
    for name in sorted(unused):
        model.metadata_props.add(key=f"{UNUSED}{name}")
    return model.SerializeToString(deterministic=True)


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove what tells where and from which code a graph was made."""
    graph = model.graph
    for node in graph.node:
        node.ClearField("doc_string")
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
