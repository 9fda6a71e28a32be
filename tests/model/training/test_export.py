"""Graphs have no weights, which are in weights.safetensors, and no traces of the machine that exported them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from polymodal.model.bundle import read_bundle
from polymodal.model.modalities.text.encoders import RecurrentEncoder
from polymodal.model.runtimes.onnx_runtime import is_unused
from polymodal.model.training.export import export_graph


@pytest.fixture(params=["image", "text", "head"])
def name(request):
    return request.param


@pytest.fixture
def graph(tiny_bundle, name):
    return onnx.load_model_from_string((tiny_bundle / f"onnx/{name}.onnx").read_bytes())


def test_a_graph_has_no_weights(graph, tiny_bundle):
    for tensor in graph.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            assert {entry.key: entry.value for entry in tensor.external_data} == {"location": "weights.safetensors"}
            assert not tensor.raw_data
        else:
            assert tensor.ByteSize() <= 1024, f"{tensor.name} has {tensor.ByteSize()} bytes"
    for node in graph.graph.node:
        for attribute in node.attribute:
            assert attribute.ByteSize() <= 1024, f"{node.name} has a large constant"


def test_every_weight_of_a_graph_is_in_the_weights_file(graph, name, tiny_bundle):
    weights = read_bundle(tiny_bundle).read_weights()
    prefix = "" if name == "head" else f"encoders.{name}."
    external = {
        f"{prefix}{tensor.name}": tuple(tensor.dims)
        for tensor in graph.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    stored = {
        name: array.shape
        for name, array in weights.items()
        if (name.startswith(prefix) if prefix else not name.startswith("encoders."))
    }
    assert external == stored


@pytest.mark.parametrize("file", ["image", "text", "head", "image.int8"])
def test_a_graph_has_no_traces_of_the_machine(tiny_bundle, file):
    content = (tiny_bundle / f"onnx/{file}.onnx").read_bytes()
    for trace in (b".py", b"site-packages", str(Path.home()).encode(), str(Path(__file__).parents[3]).encode()):
        assert trace not in content, trace
    graph = onnx.load_model_from_string(content)
    assert graph.opset_import[0].version == 20
    assert [output.name for output in graph.graph.output] == ["result"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_batch_size_is_free(predictors, size):
    predictor = predictors["onnx"]
    samples = [predictor.prepare({"text": "red " * (row + 1)}) for row in range(size)]
    assert predictor.encode("text", samples).shape == (size, 128)


@pytest.mark.parametrize("words", [1, 2, 3, 48])
def test_the_length_of_a_text_is_free(predictors, words):
    sample = predictors["onnx"].prepare({"text": "red " * words})
    assert sample.arrays["text"].shape == (words,)
    onnx_embedding, torch_embedding = (predictor.encode("text", [sample]) for predictor in predictors.values())
    assert np.abs(onnx_embedding - torch_embedding).max() < 1e-4


@pytest.mark.parametrize("name", ["short", "long" * 40], ids=["short", "long"])
def test_an_unused_weight_is_not_needed_to_serve(exported, name):
    """For example the mask token of an image model that was trained to fill in masked patches."""

    class Wasteful(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)
            self.register_parameter(name, torch.nn.Parameter(torch.ones(1, 3)))

        def forward(self, values):
            return self.layer(values)

    module, values = Wasteful().eval(), torch.rand(2, 3)
    graph = export_graph(module, {"values": values}, ["values"], {"values": {0: "batch"}})
    assert [weight for weight in module.state_dict() if is_unused(graph, weight)] == [name]
    result = exported(module, {"values": values}, ["values"], {})({"values": values})
    torch.testing.assert_close(result, module(values).detach())


def test_constant_expressions_are_computed_during_the_export(tiny_bundle):
    image = onnx.load_model_from_string((tiny_bundle / "onnx/image.onnx").read_bytes()).graph
    kinds = {node.op_type for node in image.node}
    assert "Conv" in kinds
    assert not kinds & {"CastLike", "Expand", "Shape"}  # with them, ONNX Runtime fuses no convolution


class Blurred(torch.nn.Module):
    """Two convolutions, of which one has a bias."""

    def __init__(self):
        super().__init__()
        self.plain = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.biased = torch.nn.Conv2d(4, 2, 1)

    def forward(self, pixels):
        """Pixels (B, 3, S, S) to (B, 2, S, S)."""
        return self.biased(functional.relu6(self.plain(pixels)))


def test_a_convolution_keeps_its_bias_and_gets_no_other():
    network = Blurred().eval()
    torch.nn.init.zeros_(network.biased.bias)  # it is a weight nevertheless
    graph = export_graph(network, {"pixels": torch.rand(2, 3, 8, 8)}, ["pixels"], {"pixels": {0: "batch"}})
    plain, biased = (node for node in onnx.load_model_from_string(graph).graph.node if node.op_type == "Conv")
    assert list(plain.input)[1:] == ["plain.weight"]
    assert list(biased.input)[1:] == ["biased.weight", "biased.bias"]


@pytest.mark.parametrize("cell", RecurrentEncoder.CELLS)
def test_a_recurrent_encoder_can_be_exported_again_in_the_same_process(cell):
    encoder = RecurrentEncoder(4, vocabulary=9, cell=cell, hidden=4, tokens=4).eval()
    batch = {"ids": torch.ones(2, 2, dtype=torch.int64), "mask": torch.ones(2, 2, dtype=torch.bool)}
    free = {key: {0: "batch", 1: "length"} for key in batch}
    first, second = (export_graph(encoder, batch, list(batch), free) for _ in range(2))
    assert first == second
