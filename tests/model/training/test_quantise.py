"""Graphs in 8 bits compute nearly the same as the network, and have no copies of weights that are stored in 8 bits."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from polymodal.model.bundle import compress_weights, decompress_weights
from polymodal.model.runtimes import onnx_runtime
from polymodal.model.runtimes.onnx_int8_runtime import in_8_bits
from polymodal.model.runtimes.onnx_runtime import PRECISE, open_session
from polymodal.model.runtimes.processor import Processor
from polymodal.model.training.export import export_graph, trace
from polymodal.model.training.quantise import convolutions, convolutions_in_8_bits, matrices_in_8_bits

WIDTH = 256  # 256 × 256 numbers are the smallest matrix that a bundle stores in 8 bits


class Words(nn.Module):
    """Uses matrices in all ways of encoders: for lookups, multiplied by tokens and by examples, and directly."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(300, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.outer = nn.Linear(WIDTH, WIDTH, bias=False)
        self.whole = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH)

    def forward(self, ids):
        """Ids (B, L) to (B, D)."""
        states = torch.relu(self.inner(self.embed(ids)))
        return self.outer(states.mean(dim=1)) + (self.whole * self.whole).sum()


def arrays_of(network):
    return {name: weight.numpy() for name, weight in network.state_dict().items() if weight.is_floating_point()}


def load(network, stored):
    network.load_state_dict({name: torch.from_numpy(array) for name, array in decompress_weights(stored).items()})


@pytest.fixture(scope="module")
def words():
    """A network, its weights as a bundle stores them, and its graph in float32."""
    torch.manual_seed(0)
    network = Words().eval()
    stored = compress_weights(arrays_of(network))
    load(network, stored)
    free = {"ids": {0: "batch", 1: "length"}}
    graph = export_graph(network, {"ids": torch.zeros(2, 3, dtype=torch.int64)}, ["ids"], free)
    return network, stored, graph


def run(graph, stored, **feed):
    (result,) = open_session(graph, in_8_bits(stored), threads=1).run(None, feed)
    return result


def exact_result(network, inputs):
    with torch.inference_mode():
        return network(torch.from_numpy(inputs)).numpy()


def test_matrices_in_8_bits_compute_nearly_the_same(words):
    network, stored, graph = words
    ids = np.random.default_rng(0).integers(0, 300, (7, 5))
    exact = exact_result(network, ids)
    result = run(matrices_in_8_bits(graph, stored), stored, ids=ids)
    assert np.abs(result - exact).mean() < 0.02 * exact.std()
    assert np.abs(result - exact).max() > 0  # it is not the float graph


def test_a_row_does_not_depend_on_the_rest_of_its_batch(words):
    _, stored, graph = words
    ids = np.random.default_rng(1).integers(0, 300, (6, 4))
    session = open_session(matrices_in_8_bits(graph, stored), in_8_bits(stored), threads=1)
    together = session.run(None, {"ids": ids})[0]
    alone = np.concatenate([session.run(None, {"ids": ids[row : row + 1]})[0] for row in range(6)])
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_row_of_zeros_stays_zero(words):
    _, stored, graph = words
    zeros = {**stored, "inner.weight": stored["inner.weight"] * np.int8(0), "inner.bias": stored["inner.bias"] * 0}
    network = Words().eval()
    load(network, zeros)
    ids = np.zeros((2, 3), dtype=np.int64)
    result = run(matrices_in_8_bits(graph, zeros), zeros, ids=ids)
    assert result == pytest.approx(exact_result(network, ids), abs=1e-4)


def test_matrices_stay_in_the_weights_file(words):
    _, stored, graph = words
    model = onnx.load_model_from_string(matrices_in_8_bits(graph, stored))
    tensors = model.graph.initializer
    external = {tensor.name for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert {"embed.weight", "inner.weight", "outer.weight", "whole", "embed.weight.scale"} <= external
    assert sum(tensor.ByteSize() for tensor in tensors) < 4096
    assert not any(node.op_type == "MatMul" for node in model.graph.node)


def test_a_graph_without_matrices_in_8_bits_is_not_changed(words):
    network, _, graph = words
    assert matrices_in_8_bits(graph, arrays_of(network)) is None


class Pixels(nn.Module):
    """Two convolutions with batch normalisation, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU6()
        )  # fmt: skip
        self.last = nn.Linear(32, 8)

    def forward(self, pixels):
        """Pixels (B, S, S, 3) to (B, D)."""
        return self.last(self.body(pixels.permute(0, 3, 1, 2).float() / 255).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def pixels():
    """A network whose batch normalisation has statistics of images, these images, and its graph with weights."""
    torch.manual_seed(0)
    batches = [torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8) for _ in range(8)]
    network = Pixels()
    for batch in batches:
        network(batch)
    network.eval()
    model = trace(network, {"pixels": batches[0]}, ["pixels"], {"pixels": {0: "batch"}}, optimize=True)
    return network, [{"pixels": batch.numpy()} for batch in batches], model


@pytest.mark.parametrize("in_float", [0, 1, 2])
def test_convolutions_in_8_bits_compute_nearly_the_same(pixels, in_float):
    network, batches, model = pixels
    stored = compress_weights(arrays_of(network))
    graph = convolutions_in_8_bits(model, batches, in_float=in_float, unused=stored.keys())
    exact = exact_result(network, batches[0]["pixels"])
    # As in a runtime, the bundle's weights are available; the graph must not use them, as its own ones are folded.
    result = run(graph, stored, pixels=batches[0]["pixels"])
    assert np.abs(result - exact).mean() < 0.1 * exact.std()


def is_precise(session):
    """Whether the session uses the slower computation, which is exact if sums of two products would overflow."""
    try:
        return session.get_session_options().get_session_config_entry(PRECISE) == "1"
    except RuntimeError:  # the session has no such entry
        return False


@pytest.mark.parametrize(
    ("flags", "precise"),
    [
        pytest.param("avx2", True, id="without-vnni"),
        pytest.param("avx512f avx512_vnni", False, id="avx-512-vnni"),
        pytest.param("avx2 avx_vnni", False, id="avx-vnni"),
        pytest.param("", True, id="unknown"),
    ],
)
def test_convolutions_are_precise_only_on_processors_without_vnni(pixels, monkeypatch, flags, precise):
    monkeypatch.setattr(onnx_runtime, "processor", lambda: Processor("CPU", frozenset(flags.split())))
    _, batches, model = pixels
    graph = convolutions_in_8_bits(model, batches, in_float=0, unused=set())
    assert is_precise(open_session(graph, {}, threads=1)) is precise


def test_products_of_matrices_fit_into_16_bits(words, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "processor", lambda: Processor("CPU", frozenset({"avx2"})))
    _, stored, graph = words
    quantised = matrices_in_8_bits(graph, stored)
    assert not is_precise(open_session(quantised, in_8_bits(stored), threads=1))
    tensors = {tensor.name: tensor for tensor in onnx.load_model_from_string(quantised).graph.initializer}
    largest = sum(int(onnx.numpy_helper.to_array(tensors[name])) for name in ("int8.most", "int8.middle"))
    assert 2 * largest * 127 < 2**15


def test_the_first_convolutions_stay_float32(pixels):
    _, batches, model = pixels
    graphs = [convolutions_in_8_bits(model, batches, in_float=count, unused=set()) for count in (0, 1)]
    kinds = [
        [tensor.data_type for tensor in onnx.load_model_from_string(graph).graph.initializer if len(tensor.dims) == 4]
        for graph in graphs
    ]
    assert kinds[0] == [onnx.TensorProto.INT8] * 2
    assert sorted(kinds[1]) == sorted([onnx.TensorProto.FLOAT, onnx.TensorProto.INT8])
    assert convolutions(graphs[0]) == 2


def test_warnings_of_onnx_runtime_are_not_logged(pixels, caplog):
    _, batches, model = pixels
    convolutions_in_8_bits(model, batches, in_float=0, unused=set())
    assert not [record for record in caplog.records if record.name == "root"]


def test_quantised_graphs_are_reproducible(pixels):
    _, batches, model = pixels
    assert len({convolutions_in_8_bits(model, batches, in_float=0, unused={"a"}) for _ in range(2)}) == 1
    assert onnxruntime.InferenceSession(convolutions_in_8_bits(model, batches, in_float=0, unused={"a"}))
