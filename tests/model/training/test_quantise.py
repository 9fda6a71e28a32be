"""Graphs in 8 bits say nearly what the network says, whatever else is in the batch, and carry only what they don't share."""

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
    """Every way in which an encoder uses a matrix: looked up, multiplied with tokens, with examples, and as it is."""

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


@pytest.fixture(scope="module")
def words():
    """A network with its weights as a bundle would store them, and the graph in 8 bits."""
    torch.manual_seed(0)
    network = Words().eval()
    stored = compress_weights({name: each.numpy() for name, each in network.state_dict().items()})
    network.load_state_dict({name: torch.from_numpy(each) for name, each in decompress_weights(stored).items()})
    free = {"ids": {0: "batch", 1: "length"}}
    graph = export_graph(network, {"ids": torch.zeros(2, 3, dtype=torch.int64)}, ["ids"], free)
    return network, stored, graph


def ran(graph, stored, **feed):
    (result,) = open_session(graph, in_8_bits(stored), threads=1).run(None, feed)
    return result


def test_matrices_in_8_bits_say_nearly_the_same(words):
    network, stored, graph = words
    ids = np.random.default_rng(0).integers(0, 300, (7, 5))
    with torch.inference_mode():
        exact = network(torch.from_numpy(ids)).numpy()
    found = ran(matrices_in_8_bits(graph, stored), stored, ids=ids)
    assert np.abs(found - exact).mean() < 0.02 * exact.std()
    assert np.abs(found - exact).max() > 0  # it is not the float graph


def test_what_else_is_in_the_batch_changes_nothing(words):
    _, stored, graph = words
    ids = np.random.default_rng(1).integers(0, 300, (6, 4))
    session = open_session(matrices_in_8_bits(graph, stored), in_8_bits(stored), threads=1)
    together = session.run(None, {"ids": ids})[0]
    alone = np.concatenate([session.run(None, {"ids": ids[row : row + 1]})[0] for row in range(6)])
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_row_of_zeros_stays_zero(words):
    network, stored, graph = words
    silent = {**stored, "inner.weight": stored["inner.weight"] * np.int8(0), "inner.bias": stored["inner.bias"] * 0}
    network = Words().eval()
    network.load_state_dict({name: torch.from_numpy(each) for name, each in decompress_weights(silent).items()})
    ids = np.zeros((2, 3), dtype=np.int64)
    with torch.inference_mode():
        exact = network(torch.from_numpy(ids)).numpy()
    assert ran(matrices_in_8_bits(graph, silent), silent, ids=ids) == pytest.approx(exact, abs=1e-4)


def test_matrices_stay_in_the_weights_file(words):
    _, stored, graph = words
    model = onnx.load_model_from_string(matrices_in_8_bits(graph, stored))
    held = {tensor.name: tensor.ByteSize() for tensor in model.graph.initializer}
    outside = {t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert {"embed.weight", "inner.weight", "outer.weight", "whole", "embed.weight.scale"} <= outside
    assert sum(held.values()) < 4096
    assert not any(node.op_type == "MatMul" for node in model.graph.node)


def test_without_a_large_matrix_there_is_nothing_to_do(words):
    network, _, graph = words
    weights = {name: each.numpy() for name, each in network.state_dict().items()}
    assert matrices_in_8_bits(graph, weights) is None


class Pixels(nn.Module):
    """Two convolutions with batch normalisation, and a layer behind them."""

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
    """A network whose batch normalisation has seen pictures, these pictures, and its graph with weights."""
    torch.manual_seed(0)
    batches = [torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8) for _ in range(8)]
    network = Pixels()
    for batch in batches:
        network(batch)
    network.eval()
    model = trace(network, {"pixels": batches[0]}, ["pixels"], {"pixels": {0: "batch"}}, optimize=True)
    return network, [{"pixels": batch.numpy()} for batch in batches], model


@pytest.mark.parametrize("in_float", [0, 1, 2])
def test_convolutions_in_8_bits_say_nearly_the_same(pixels, in_float):
    network, batches, model = pixels
    stored = compress_weights(
        {name: each.numpy() for name, each in network.state_dict().items() if each.is_floating_point()}
    )
    graph = convolutions_in_8_bits(model, batches, in_float=in_float, unused=stored.keys())
    with torch.inference_mode():
        exact = network(torch.from_numpy(batches[0]["pixels"])).numpy()
    # The weights of the bundle are offered to it, as a runtime does: it must not take those that batch normalisation changed.
    found = ran(graph, stored, pixels=batches[0]["pixels"])
    assert np.abs(found - exact).mean() < 0.1 * exact.std()


def is_precise(session):
    """Whether the session takes the slower way, which is exact where sums of two products would overflow."""
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
def test_convolutions_take_the_slower_way_only_where_the_processor_lacks_vnni(pixels, monkeypatch, flags, precise):
    monkeypatch.setattr(onnx_runtime, "processor", lambda: Processor("CPU", frozenset(flags.split())))
    _, batches, model = pixels
    graph = convolutions_in_8_bits(model, batches, in_float=0, unused=set())
    assert is_precise(open_session(graph, {}, threads=1)) is precise


def test_products_of_matrices_never_overflow_16_bits_and_need_no_slower_way(words, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "processor", lambda: Processor("CPU", frozenset({"avx2"})))
    _, stored, graph = words
    made = matrices_in_8_bits(graph, stored)
    session = open_session(made, in_8_bits(stored), threads=1)
    assert not is_precise(session)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_model_from_string(made).graph.initializer
                 if each.name in ("int8.most", "int8.middle")}  # fmt: skip
    largest = int(constants["int8.most"] + constants["int8.middle"])
    assert 2 * largest * 127 < 2**15


def test_the_first_convolutions_stay_float(pixels):
    _, batches, model = pixels
    graphs = [convolutions_in_8_bits(model, batches, in_float=count, unused=set()) for count in (0, 1)]
    kinds = [
        [tensor.data_type for tensor in onnx.load_model_from_string(graph).graph.initializer if len(tensor.dims) == 4]
        for graph in graphs
    ]
    assert kinds[0] == [onnx.TensorProto.INT8] * 2
    assert sorted(kinds[1]) == sorted([onnx.TensorProto.FLOAT, onnx.TensorProto.INT8])
    assert convolutions(graphs[0]) == 2


def test_the_tools_advice_is_kept_from_users(pixels, caplog):
    _, batches, model = pixels
    convolutions_in_8_bits(model, batches, in_float=0, unused=set())
    assert not [record for record in caplog.records if record.name == "root"]


def test_quantised_graphs_are_the_same_each_time(pixels):
    _, batches, model = pixels
    assert len({convolutions_in_8_bits(model, batches, in_float=0, unused={"a"}) for _ in range(2)}) == 1
    assert onnxruntime.InferenceSession(convolutions_in_8_bits(model, batches, in_float=0, unused={"a"}))
