"""Named recipes: which inputs, encoders, fusion and hyper-parameters a training begins with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from model.config import EncoderConfig, ModalityConfig, NetworkConfig
from model.modalities import Input
from model.modalities.image.input import ImageInput
from model.modalities.text.input import TextInput
from model.training import pretrained
from model.training.manifest import Manifest
from model.types import Array

# Tuned, the token embeddings would change only for the words of the training part, and drift away from all others.
FROZEN: Final = ("encoders.text.embed.", "encoders.text.positions.")
PADDING, UNKNOWN = "[PAD]", "[UNK]"


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Hyper-parameters of the loop; they are saved in the bundle's report."""

    epochs: int = 30
    """At most; early stopping usually ends sooner."""
    patience: int = 6
    """Epochs without a better validation score after which training stops."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Peak, for what starts from scratch; AdamW with linear warm-up and cosine decay."""
    encoder_learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Peak for the encoders that start from trained weights, by modality; the others take `learning_rate`."""
    warm_up: float = 0.1
    """Part of all steps during which the rates rise."""
    weight_decay: float = 0.01
    modality_dropout: float = 0.5
    """Probability that an example loses some of its modalities. Its expectation is computed, not sampled."""
    smoothing: float = 0.05
    """Label smoothing: the probability mass taken from the right label."""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    """What each label counts in the loss; empty: all the same."""
    frozen: tuple[str, ...] = ()
    """Weights whose names begin so stay as they were."""
    augment: bool = True
    precision: str = "fp32"
    """fp32, or bf16 or fp16 where the device can: what matrices are multiplied in. Weights and measurements stay float32."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a training needs beside the data."""

    network: NetworkConfig
    inputs: Mapping[str, Input]
    training: TrainingConfig
    weights: Mapping[str, Array] = field(default_factory=dict)
    """Trained weights to begin with, by their name in the network."""
    origins: tuple[str, ...] = ()
    """Where those weights come from and under which licence, for the card."""


def cnn_rnn(manifest: Manifest, cache: Path) -> Recipe:
    """A small CNN for the image, a bidirectional LSTM for the text, concatenation, a linear head; all from scratch."""
    inputs: dict[str, Input] = {}
    encoders: dict[str, EncoderConfig] = {}
    if _has(manifest, "image"):
        inputs["image"] = ImageInput(side=64)
        encoders["image"] = EncoderConfig(name="cnn")
    if _has(manifest, "text"):
        text = TextInput(train_tokenizer(manifest), max_tokens=48)
        inputs["text"] = text
        encoders["text"] = EncoderConfig(name="lstm", options={"vocabulary": text.vocabulary})
    network = _network(manifest, inputs, encoders, width=128, fusion="concat", dropout=0.2)
    return Recipe(network, inputs, TrainingConfig(learning_rate=2e-3))


def pretrained_encoders(manifest: Manifest, cache: Path) -> Recipe:
    """EfficientNet-lite0 for the image and the lower half of MiniLM for the text, both fine-tuned; their sum; a linear head."""
    inputs: dict[str, Input] = {}
    encoders: dict[str, EncoderConfig] = {}
    weights: dict[str, Array] = {}
    origins: list[str] = []
    if _has(manifest, "image"):
        inputs["image"] = ImageInput(side=128)
        encoders["image"] = EncoderConfig(name="efficientnet-lite0")
        weights |= pretrained.efficientnet_lite0(cache)
        origins.append(pretrained.EFFICIENTNET_LITE0.origin)
    if _has(manifest, "text"):
        tokenizer, text_weights = pretrained.minilm(cache, texts=_training_texts(manifest))
        text = TextInput(tokenizer, max_tokens=32)
        inputs["text"] = text
        encoders["text"] = EncoderConfig(
            name="transformer", options={"vocabulary": text.vocabulary, "layers": pretrained.MINILM_LAYERS}
        )
        weights |= text_weights
        origins.append(pretrained.MINILM.origin)
    network = _network(manifest, inputs, encoders, width=256, fusion="sum", dropout=0.2)
    training = TrainingConfig(
        epochs=10,
        patience=4,
        batch_size=32,
        learning_rate=1e-3,
        encoder_learning_rates={"image": 4e-4, "text": 1e-4},
        weight_decay=0.05,
        smoothing=0.1,
        frozen=FROZEN,
    )
    return Recipe(network, inputs, training, weights, tuple(origins))


PRESETS: Final[Mapping[str, Callable[[Manifest, Path], Recipe]]] = {
    "cnn-rnn": cnn_rnn,
    "pretrained": pretrained_encoders,
}


def train_tokenizer(manifest: Manifest, vocabulary: int = 8000) -> Tokenizer:
    """A WordPiece vocabulary (lower case, without accents) of the training part's texts; the same texts give the same one."""
    texts = _training_texts(manifest)
    tokenizer = _word_pieces(models.WordPiece(unk_token=UNKNOWN))
    # The trainer numbers the pieces that continue a word in the order of a hash table, another one in each run, and breaks
    # ties by these numbers. Given as special tokens they have numbers already; the tokenizer is then built without them.
    pieces = sorted({f"##{character}" for text in texts for word in _words(tokenizer, text) for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[PADDING, UNKNOWN, *pieces], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = _word_pieces(models.WordPiece(tokenizer.get_vocab(), unk_token=UNKNOWN))
    trained.add_special_tokens([PADDING, UNKNOWN])
    return trained


def _word_pieces(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def _has(manifest: Manifest, modality: str) -> bool:
    """Whether any training row has this modality; what none has can't be learned."""
    return any(getattr(row, modality) for row in manifest.by_split("train"))


def _training_texts(manifest: Manifest) -> list[str]:
    return [row.text for row in manifest.by_split("train") if row.text]


def _network(
    manifest: Manifest,
    inputs: Mapping[str, Input],
    encoders: Mapping[str, EncoderConfig],
    *,
    width: int,
    fusion: str,
    dropout: float,
) -> NetworkConfig:
    return NetworkConfig(
        modalities={name: ModalityConfig(input=inputs[name].settings(), encoder=encoders[name]) for name in inputs},
        width=width,
        fusion=fusion,
        task=manifest.task,
        labels=manifest.labels,
        scale=manifest.scale,
        dropout=dropout,
    )
