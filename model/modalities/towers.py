"""Trained dual encoders of Hugging Face transformers, such as CLIP and SigLIP: one tower for each modality, into one space.

Each modality that such models have has a module `towers` with `read_tower(dual) -> Tower`. Nothing of this is needed for serving.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from polymodal.model.errors import ModelError
from polymodal.model.modalities import Input, hub, libraries
from polymodal.model.types import FloatArray

PADDED: Final[Mapping[str, bool]] = {"clip": False, "siglip": True}
"""Whether texts have a fixed length, by family (`model_type` of a transformers config). CLIP reads a text's end token and never
looks beyond it; SigLIP reads the last position of a text that is padded to its full length, as in its training."""


@dataclass(frozen=True)
class DualEncoder:
    """A loaded model with its folder."""

    address: str
    folder: Path
    model: Any
    library: Any
    """The package transformers."""

    @property
    def family(self) -> str:
        """A name in PADDED."""
        return str(self.model.config.model_type)


@dataclass(frozen=True)
class Tower:
    """The encoder of one modality."""

    input: Input
    module: nn.Module
    """Takes the arrays that the input collates; returns vectors (B, V)."""
    examples: Sequence[bytes | str]
    """Golden inputs."""
    reference: Callable[[Sequence[bytes | str]], FloatArray]
    """Vectors (B, V) as the library computes them with its own preprocessing."""


def read_dual_encoder(address: str, folder: Path) -> DualEncoder:
    """Load a model of a family in PADDED, with its weights in float32. Raises ModelError."""
    family = hub.read_json(folder, hub.CONFIG).get("model_type")
    if family not in PADDED:
        raise ModelError(f"{address}: a model of type {family!r}; allowed: {', '.join(PADDED)}")
    library = libraries.import_transformers()
    hub.check_weights(address, folder, trained=True)
    model, loading = loaded(
        address,
        library.AutoModel.from_pretrained,
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{address}: no weights for {', '.join(missing)}")
    if broken := sorted(name for name, weight in model.named_parameters() if not weight.isfinite().all()):
        raise ModelError(f"{address}: weights that are not finite: {', '.join(broken)}")
    return DualEncoder(address, folder, model.eval(), library)


def loaded(address: str, load: Callable[..., Any], folder: Path, **options: Any) -> Any:  # noqa: ANN401 — of a library
    """Return what transformers loads from a folder, without network connection or code of the folder. Raises ModelError."""
    try:
        return load(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as problem:
        raise ModelError(f"{address}: not a model that transformers can load: {problem}") from problem


def pooled(features: Any) -> Tensor:  # noqa: ANN401 — a tensor until transformers 4, an object with it since
    """Return the vectors (B, V) of what a model's `get_…_features` returns."""
    vectors: Tensor = getattr(features, "pooler_output", features)
    return vectors
