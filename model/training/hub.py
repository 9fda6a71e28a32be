"""Model folders of Hugging Face transformers and timm, on this machine or from the hub, as parts of our network.

Such a folder holds config.json, model.safetensors and, for texts, tokenizer.json, for pictures preprocessor_config.json (timm
keeps that in config.json). Only these are read: no code and no pickle.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer
from torch import nn

from model.config import EncoderConfig
from model.errors import ModelError
from model.modalities import Input
from model.modalities.image.encoders import ENCODERS as IMAGE_ENCODERS
from model.modalities.image.input import ImageInput
from model.modalities.libraries import import_timm, import_transformers
from model.modalities.text.encoders import ENCODERS as TEXT_ENCODERS
from model.modalities.text.input import TOKENIZER_FILE, TextInput
from model.types import Array

HUB: Final = "hf://"
CONFIG: Final = "config.json"
PREPROCESSING: Final = "preprocessor_config.json"
WEIGHTS: Final = "model*.safetensors"
MAX_TOKENS: Final = 64
"""Of a text, or as many as the model has positions."""
NOISE: Final = frozenset({"transformers_version", "_name_or_path", "architectures", "id2label", "label2id"})
"""Keys of a transformers config that shape nothing."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model as one modality's part of our network."""

    input: Input
    encoder: EncoderConfig
    weights: Mapping[str, Array]
    """By their names in our encoder; empty when they weren't asked for."""
    origin: str


def is_address(name: str) -> bool:
    """Whether an encoder's name says where a model lies: `hf://owner/name`, or a path with a slash such as `./folder`."""
    return "/" in name or "\\" in name


def read_image_model(address: str, cache: Path, *, trained: bool) -> HubModel:
    """A picture model of transformers (or the picture half of a model like CLIP) or of timm. Raises ModelError."""
    folder = _fetch(address, cache)
    described = _read_json(folder, CONFIG)
    return (_timm if "architecture" in described else _transformers_image)(address, folder, described, trained)


def read_text_model(address: str, cache: Path, *, trained: bool) -> HubModel:
    """A text model of transformers, or the text half of a model like CLIP, with its tokenizer. Raises ModelError."""
    folder = _fetch(address, cache)
    if not (folder / TOKENIZER_FILE).is_file():
        raise ModelError(
            f"{address}: {TOKENIZER_FILE} is missing; a tokenizer of Python code can't be packed into a bundle"
        )
    special = _read_json(folder, "tokenizer_config.json")
    padding, unknown = (_token(special, names) for names in (("pad_token", "eos_token"), ("unk_token", "eos_token")))
    if padding is None or unknown is None:
        raise ModelError(f"{address}: tokenizer_config.json names no pad_token, unk_token or eos_token")
    config, model = _load(address, folder, "text_config", trained)
    # Models like RoBERTa begin to count their positions after the padding token's number.
    spare = (config.get("pad_token_id") or 0) + 1
    positions = config.get("max_position_embeddings", MAX_TOKENS + spare) - spare
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    text = TextInput(tokenizer, max_tokens=min(MAX_TOKENS, positions), padding=padding, unknown=unknown)
    options: dict[str, Any] = {"vocabulary": text.vocabulary, "config": config}
    batch = {"ids": torch.full((1, 2), text.padding_id), "mask": torch.ones(1, 2, dtype=torch.bool)}
    options["features"] = _features(address, TEXT_ENCODERS["transformers"], options, batch)
    return HubModel(text, EncoderConfig(name="transformers", options=options), _named(model), _origin(address))


def _transformers_image(address: str, folder: Path, _: Mapping[str, Any], trained: bool) -> HubModel:
    preprocessing = _read_json(folder, PREPROCESSING)
    config, model = _load(address, folder, "vision_config", trained)
    try:
        side = config.get("image_size") or _side(preprocessing.get("crop_size") or preprocessing["size"])
        options: dict[str, Any] = {
            "config": config,
            "mean": list(preprocessing["image_mean"]),
            "std": list(preprocessing["image_std"]),
        }
    except (KeyError, TypeError, StopIteration) as problem:
        raise ModelError(f"{address}: {PREPROCESSING} lacks one of image_mean, image_std and size") from problem
    image = ImageInput(side)
    batch = {"pixels": torch.zeros(1, side, side, 3, dtype=torch.uint8)}
    options["features"] = _features(address, IMAGE_ENCODERS["transformers"], options, batch)
    return HubModel(image, EncoderConfig(name="transformers", options=options), _named(model), _origin(address))


def _timm(address: str, folder: Path, described: Mapping[str, Any], trained: bool) -> HubModel:
    timm = import_timm()
    _check_weights(address, folder, trained)
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=trained, num_classes=0)
        trained_with = described["pretrained_cfg"]
        side = int(trained_with["input_size"][-1])
        options = {
            "architecture": described["architecture"],
            "arguments": {
                key: each for key, each in (described.get("model_args") or {}).items() if key != "num_classes"
            },
            "mean": list(trained_with["mean"]),
            "std": list(trained_with["std"]),
        }
    except Exception as problem:
        raise ModelError(f"{address}: not a model that timm can load: {problem}") from problem
    batch = {"pixels": torch.zeros(1, side, side, 3, dtype=torch.uint8)}
    options["features"] = _features(address, IMAGE_ENCODERS["timm"], options, batch)
    weights = _named(model) if trained else {}
    return HubModel(ImageInput(side), EncoderConfig(name="timm", options=options), weights, _origin(address))


def _fetch(address: str, cache: Path) -> Path:
    """The folder of an address; one on the hub is downloaded, unless `cache` has it."""
    if not address.startswith(HUB):
        if not Path(address).is_dir():
            raise ModelError(f"{address}: no such folder; expected a model's folder with {CONFIG}, or {HUB}owner/name")
        return Path(address)
    try:
        patterns = ["*.json", WEIGHTS]
        return Path(snapshot_download(address.removeprefix(HUB), cache_dir=cache / "hub", allow_patterns=patterns))
    except Exception as problem:
        raise ModelError(f"{address}: could not be downloaded: {problem}") from problem


def _load(address: str, folder: Path, half: str, trained: bool) -> tuple[dict[str, Any], nn.Module | None]:
    """The architecture's config, and the model with its weights when they are wanted."""
    library = import_transformers()
    _check_weights(address, folder, trained)
    try:
        whole = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = getattr(whole, half, None) or whole
        described = {key: value for key, value in config.to_diff_dict().items() if key not in NOISE}
        if not trained:
            return described, None
        model, told = library.AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as problem:
        raise ModelError(f"{address}: not a model that transformers can load: {problem}") from problem
    if lost := [name for name in told["missing_keys"] if not name.startswith("pooler.")]:
        raise ModelError(f"{address}: no weights for {', '.join(sorted(lost))}")
    return described, model


def _check_weights(address: str, folder: Path, trained: bool) -> None:
    if trained and not any(folder.glob(WEIGHTS)):
        raise ModelError(f"{address}: {WEIGHTS} is missing; weights in other formats are not read")


def _features(address: str, encoder: Any, options: Mapping[str, Any], batch: Mapping[str, torch.Tensor]) -> int:  # noqa: ANN401
    """How wide the model's pooled features are: what comes out is looked at, as every library's config names it otherwise."""
    try:
        built = encoder(1, **options, features=1).eval()
        with torch.no_grad():
            return int(built.pool(**batch).shape[1])
    except Exception as problem:
        raise ModelError(f"{address}: not a model that fits: {problem}") from problem


def _named(model: nn.Module | None) -> dict[str, Array]:
    """Weights by their names in our encoder, which has no pooler with weights."""
    if model is None:
        return {}
    return {
        f"model.{name}": tensor.numpy() for name, tensor in model.state_dict().items() if not name.startswith("pooler.")
    }


def _side(size: int | Mapping[str, int]) -> int:
    """Of a preprocessor's size: a number, or {"height": …}, or {"shortest_edge": …}."""
    return size if isinstance(size, int) else next(size[key] for key in ("height", "shortest_edge") if key in size)


def _token(special: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these special tokens that there is; written as text, or as {"content": text}."""
    found = next((special[name] for name in names if special.get(name)), None)
    return found["content"] if isinstance(found, dict) else found


def _read_json(folder: Path, file: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / file).read_bytes())
    except FileNotFoundError as missing:
        raise ModelError(f"{folder}: {file} is missing") from missing
    except ValueError as problem:
        raise ModelError(f"{folder}: {file} is not JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise ModelError(f"{folder}: {file} is not an object")
    return content


def _origin(address: str) -> str:
    """A folder of this machine is named by its last part alone."""
    place = (
        f"{address} on the Hugging Face hub" if address.startswith(HUB) else f"the model folder {Path(address).name}"
    )
    return f"{place}; its own card says what it was trained on and its licence"
