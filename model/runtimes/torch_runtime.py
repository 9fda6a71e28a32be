"""The reference runtime: the network in torch, on a CUDA device where there is one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from polymodal.model.bundle import AnyBundle, Bundle
from polymodal.model.config import BundleConfig
from polymodal.model.errors import BundleError, ModelError
from polymodal.model.network import MultimodalClassifier, build_network
from polymodal.model.types import Array, FloatArray


class TorchRuntime:
    """Executes a network whose weights are loaded."""

    name = "torch"

    def __init__(self, network: MultimodalClassifier, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def encode(self, modality: str, batch: Mapping[str, Array]) -> FloatArray:
        """Return embeddings (B, D) of one modality's collated batch of B."""
        tensors = {name: self._tensor(array) for name, array in batch.items()}
        return _array(self._network.encode(modality, tensors))

    @torch.inference_mode()
    def fuse(self, embeddings: Mapping[str, FloatArray], present: Array) -> FloatArray:
        """Return logits (B, K) of embeddings (B, D) by modality and their presence (B, M)."""
        tensors = {name: self._tensor(array) for name, array in embeddings.items()}
        return _array(self._network.fuse(tensors, self._tensor(present)))

    def _tensor(self, array: Array) -> torch.Tensor:
        # Pixels from Pillow are read-only, and torch warns about such arrays; only these are copied.
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)


def start(bundle: AnyBundle[Any], threads: int) -> TorchRuntime:
    """Start the bundle's network on a CUDA device where there is one.

    Raises BundleError as `load_network` does, and for a model of another kind, whose code is not in this package.
    """
    if not isinstance(bundle.config, BundleConfig):
        kind = bundle.config.kind
        raise BundleError(f"{bundle.directory}: runtime torch; allowed for a model of kind {kind}: auto or onnx")
    torch.set_num_threads(threads)
    return TorchRuntime(load_network(bundle), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def load_network(bundle: Bundle) -> MultimodalClassifier:
    """Build the bundle's network and load its weights. Raises BundleError when they don't fit."""
    try:
        network = build_network(bundle.config.network)
    except ModelError as problem:  # a library that it is built from is missing
        raise BundleError(f"{bundle.directory}: {problem}") from problem
    # An unknown encoder or fusion, or options that it doesn't take.
    except (LookupError, TypeError, ValueError, RuntimeError) as problem:
        raise BundleError(f"{bundle.directory}: the network cannot be built from config.json: {problem!r}") from problem
    weights = {name: torch.from_numpy(array) for name, array in bundle.read_weights().items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as problem:
        raise BundleError(f"{bundle.directory}: the weights don't fit the architecture: {problem}") from problem
    return network


def _array(tensor: torch.Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().numpy().astype(np.float32, copy=False)
    return array
