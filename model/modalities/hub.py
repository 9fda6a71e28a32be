"""Model folders of Hugging Face transformers and timm, on this machine or from the hub, that become branches of our networks.

Such a folder holds config.json, model.safetensors and further files that the modality's `presets` read. Only these are read: no
code and no pickle.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from torch import nn

from polymodal.model.errors import ModelError
from polymodal.model.modalities.libraries import import_transformers
from polymodal.model.types import Array

HUB: Final = "hf://"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model*.safetensors"
NOISE: Final = frozenset({"transformers_version", "_name_or_path", "architectures", "id2label", "label2id"})
"""Keys of a transformers config that don't affect the architecture."""


def is_address(name: str) -> bool:
    """Return whether an encoder's name is an address: `hf://owner/name`, or a path with a slash such as `./folder`."""
    return "/" in name or "\\" in name


def fetch_model(address: str, cache: Path, *further: str) -> Path:
    """Return the folder of an address; one on the hub is downloaded, unless `cache` has it. Raises ModelError.

    `further` are patterns of files that are downloaded in addition to JSON files and weights.
    """
    if not address.startswith(HUB):
        if not Path(address).is_dir():
            raise ModelError(f"{address}: no such folder; expected a model's folder with {CONFIG}, or {HUB}owner/name")
        return Path(address)
    try:
        patterns = ["*.json", WEIGHTS, *further]
        return Path(snapshot_download(address.removeprefix(HUB), cache_dir=cache / "hub", allow_patterns=patterns))
    except Exception as problem:
        raise ModelError(f"{address}: could not be downloaded: {problem}") from problem


def load_transformers(address: str, folder: Path, half: str, trained: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the architecture's config and, if `trained`, the weights by their names in our encoder. Raises ModelError.

    For a model with two encoders, such as CLIP, `half` is the key of the one to load in its config.
    """
    library = import_transformers()
    check_weights(address, folder, trained)
    try:
        whole = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = getattr(whole, half, None) or whole
        described = {key: value for key, value in config.to_diff_dict().items() if key not in NOISE}
        if not trained:
            return described, {}
        model, loading = library.AutoModel.from_pretrained(
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
    if missing := [name for name in loading["missing_keys"] if not name.startswith("pooler.")]:
        raise ModelError(f"{address}: no weights for {', '.join(sorted(missing))}")
    return described, weights_by_name(model)


def check_weights(address: str, folder: Path, trained: bool) -> None:
    """Raise ModelError if weights are needed and the folder has none that are read."""
    if trained and not any(folder.glob(WEIGHTS)):
        raise ModelError(f"{address}: {WEIGHTS} is missing; weights in other formats are not read")


def feature_width(
    address: str, encoder: Callable[..., nn.Module], options: Mapping[str, Any], batch: Mapping[str, torch.Tensor]
) -> int:
    """Return the width of the model's pooled features by computing them, because every library's config names it differently."""
    try:
        built: Any = encoder(1, **options, features=1).eval()
        with torch.no_grad():
            return int(built.pool(**batch).shape[1])
    except Exception as problem:
        raise ModelError(f"{address}: not a model that fits: {problem}") from problem


def weights_by_name(model: nn.Module) -> dict[str, Array]:
    """Return weights by their names in our encoder, which has no pooler with weights."""
    return {
        f"model.{name}": tensor.numpy() for name, tensor in model.state_dict().items() if not name.startswith("pooler.")
    }


def read_json(folder: Path, file: str) -> dict[str, Any]:
    """Return the object of a JSON file. Raises ModelError."""
    try:
        content = json.loads((folder / file).read_bytes())
    except FileNotFoundError as missing:
        raise ModelError(f"{folder}: {file} is missing") from missing
    except ValueError as problem:
        raise ModelError(f"{folder}: {file} is not JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise ModelError(f"{folder}: {file} is not an object")
    return content


def origin_of(address: str) -> str:
    """Return where a model comes from, for the card; a folder of this machine is named by its last component alone."""
    place = (
        f"{address} on the Hugging Face hub" if address.startswith(HUB) else f"the model folder {Path(address).name}"
    )
    return f"{place}; its own card says what it was trained on and its licence"
