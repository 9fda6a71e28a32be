"""One modality's part of a recipe, for every encoder that can be asked for: its input, and the weights it begins with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from model.config import EncoderConfig
from model.errors import ModelError
from model.modalities import Input
from model.modalities.image.input import ImageInput
from model.modalities.text.input import TextInput
from model.training import hub, pretrained
from model.training.progress import console
from model.training.vocabulary import train_tokenizer
from model.types import Array

HIDDEN: Final = 256
"""Hidden units of the projection of an encoder with trained weights."""
POOLED_LAYERS: Final = (0, 2, 4, 6)
"""Of MiniLM: the words themselves, and what becomes of them. Heads over frozen features of pictures and texts were right on 0.868
of the illustrations with them, on 0.860 with the first three (4-fold cross-validation by group on the training and validation
parts; texts alone 0.802 and 0.790)."""

# Tuned, the token embeddings would change only for the words of the training part, and drift away from all others. MiniLM as a
# whole knows more of words than some thousand captions: tuned, it understood captions of an unseen source less well.
EMBEDDINGS: Final = ("embed.",)
MINILM: Final = ("embed.", "positions.", "norm.", "dropout.", "layers.")
# The lower part, half of a step's time: edges and colours, which serve drawings as well as photographs.
LOWER_BLOCKS: Final = ("stem.", *(f"blocks.{number}." for number in range(5)))


@dataclass(frozen=True, slots=True)
class Part:
    """An input with its encoder."""

    input: Input
    encoder: EncoderConfig
    weights: Mapping[str, Array] = field(default_factory=dict)
    """Trained weights to begin with, by their name in the encoder."""
    origin: str | None = None
    """Where those weights come from and under which licence, for the card."""
    frozen: tuple[str, ...] = ()
    """Weights whose names begin so are better left as they were, unless somebody asks for another choice."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a part is made for."""

    texts: tuple[str, ...]
    """Those of the training part: what a vocabulary is made from."""
    cache: Path
    """Where downloaded weights are kept."""
    trained: bool
    """Whether to begin with trained weights, where there are any."""


def make_part(modality: str, encoder: str, wanted: Wanted) -> Part:
    """The part of that modality with the encoder of that name, or the model in that folder. Raises ModelError."""
    if hub.is_address(encoder):
        return _model_folder(modality, encoder, wanted)
    if encoder not in PARTS[modality]:
        known = f"{', '.join(PARTS[modality])}, a model's folder as ./folder, or hf://owner/name"
        raise ModelError(f"{modality} encoder {encoder!r} is not known; known are {known}")
    part = PARTS[modality][encoder](wanted)
    if wanted.trained and not part.weights:
        console.print(f"{encoder}: no trained weights are known, it starts from scratch")
    return part


def _cnn(wanted: Wanted) -> Part:
    return Part(ImageInput(side=64), EncoderConfig(name="cnn"))


def _efficientnet_lite(wanted: Wanted, name: str, side: int) -> Part:
    part = Part(ImageInput(side), EncoderConfig(name=name))
    if not wanted.trained or name not in pretrained.EFFICIENTNET_LITE:
        return part
    package, _ = pretrained.EFFICIENTNET_LITE[name]
    encoder = EncoderConfig(name=name, options={"projection": HIDDEN})
    return Part(
        part.input, encoder, pretrained.efficientnet_lite(name, wanted.cache), package.origin, frozen=LOWER_BLOCKS
    )


def _over_tokens(wanted: Wanted, name: str) -> Part:
    """An encoder over token embeddings: WordLlama's, or learned ones."""
    if not wanted.trained:
        text = TextInput(train_tokenizer(wanted.texts), max_tokens=48)
        return Part(text, EncoderConfig(name=name, options={"vocabulary": text.vocabulary, "tokens": 128}))
    tokenizer, embeddings = pretrained.wordllama(wanted.cache, wanted.texts)
    text = TextInput(tokenizer, max_tokens=48, padding="</s>", unknown="<unk>")
    options = {"vocabulary": text.vocabulary, "tokens": embeddings.shape[1]}
    weights = {"embed.weight": embeddings}
    origin = pretrained.WORDLLAMA.origin
    return Part(text, EncoderConfig(name=name, options=options), weights, origin, frozen=EMBEDDINGS)


def _transformer(wanted: Wanted) -> Part:
    """MiniLM, or a smaller one from scratch."""
    if not wanted.trained:
        text = TextInput(train_tokenizer(wanted.texts), max_tokens=48)
        small = {"hidden": 128, "layers": 2, "heads": 4, "inner": 512}
        return Part(text, EncoderConfig(name="transformer", options={"vocabulary": text.vocabulary, **small}))
    tokenizer, weights = pretrained.minilm(wanted.cache, wanted.texts)
    text = TextInput(tokenizer, max_tokens=32)
    options = {
        "vocabulary": text.vocabulary,
        "layers": pretrained.MINILM_LAYERS,
        "pool": POOLED_LAYERS,
        "projection": HIDDEN,
    }
    encoder = EncoderConfig(name="transformer", options=options)
    return Part(text, encoder, weights, pretrained.MINILM.origin, frozen=MINILM)


def _model_folder(modality: str, address: str, wanted: Wanted) -> Part:
    read = {"image": hub.read_image_model, "text": hub.read_text_model}[modality]
    found = read(address, wanted.cache, trained=wanted.trained)
    return Part(found.input, found.encoder, found.weights, found.origin if wanted.trained else None)


PARTS: Final[Mapping[str, Mapping[str, Callable[[Wanted], Part]]]] = {
    "image": {
        "cnn": _cnn,
        # lite0 at less than its 224 px, which is enough for drawings; the others at the side that they were trained at.
        "efficientnet-lite0": partial(_efficientnet_lite, name="efficientnet-lite0", side=160),
        "efficientnet-lite1": partial(_efficientnet_lite, name="efficientnet-lite1", side=240),
        "efficientnet-lite2": partial(_efficientnet_lite, name="efficientnet-lite2", side=260),
        "efficientnet-lite3": partial(_efficientnet_lite, name="efficientnet-lite3", side=280),
        "efficientnet-lite4": partial(_efficientnet_lite, name="efficientnet-lite4", side=300),
    },
    "text": {
        "static": partial(_over_tokens, name="static"),
        "lstm": partial(_over_tokens, name="lstm"),
        "gru": partial(_over_tokens, name="gru"),
        "transformer": _transformer,
    },
}
"""By modality, then by the encoder's name in its room's table ENCODERS; those of other libraries have addresses instead."""
