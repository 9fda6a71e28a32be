"""Networks of other libraries, built from a config alone: without weights, network connection or remote code.

The libraries are extras; serving a bundle with ONNX Runtime needs none of them.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn

from polymodal.model.extras import import_optional

NOT_ARCHITECTURE: Final = frozenset({"attn_implementation", "auto_map", "dtype", "torch_dtype", "quantization_config"})
"""Keys of a transformers config about execution or code, which a bundle must not decide."""


def transformers_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the model of Hugging Face transformers that `config` (its config.json) describes, with fresh weights.

    A pooler with weights, as BERT has one for another target, is left out. Raises ModelError when the package is missing.
    """
    library = import_transformers()
    settings = {key: value for key, value in config.items() if key.removeprefix("_") not in NOT_ARCHITECTURE}
    described = library.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: nn.Module = library.AutoModel.from_config(described, dtype=torch.float32, trust_remote_code=False)
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        model.pooler = None  # type: ignore[assignment]
    return model


def timm_model(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build timm's `architecture` without its classifier, with fresh weights; `arguments` go to its constructor.

    Raises ModelError when the package is missing, and ValueError for an architecture that it doesn't have.
    """
    library = import_timm()
    if not library.is_model(architecture):  # which "hf-hub:…" and "local-dir:…" are not
        raise ValueError(f"architecture {architecture!r} is not known to timm {library.__version__}")
    return library.create_model(architecture, pretrained=False, checkpoint_path="", num_classes=0, **arguments)


def import_transformers() -> ModuleType:
    """Import the package transformers. Raises ModelError when it is missing."""
    return import_optional("transformers", "polymodal[transformers]")


def import_timm() -> ModuleType:
    """Import the package timm. Raises ModelError when it, or the torchvision that it needs, is missing."""
    return import_optional("timm", "timm")
