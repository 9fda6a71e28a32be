"""The text tower of a dual encoder: its tokenizer, and a module from token ids to a vector."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from polymodal.model.errors import ModelError
from polymodal.model.modalities.text.input import TOKENIZER_FILE, TextInput
from polymodal.model.modalities.towers import PADDED, DualEncoder, Tower, loaded, pooled
from polymodal.model.types import FloatArray

EXAMPLES: Final = (
    "a photo of a cat",
    "Two RED boats, on a lake!",
    "ein Käfer im Grünen",
    "日本の山",
    "1,234 things & 50% more",
    "words " * 100,  # longer than any of these models reads
)
"""Capital letters, accents, punctuation, another script and a cut, so that another tokenizer is noticed."""


class _TextTower(nn.Module):
    """Token ids (B, L) to vectors (B, V). `masked`: whether padding is masked; a causal model needs no mask for what follows."""

    def __init__(self, model: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.model = model
        self.masked = masked

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        attention = {"attention_mask": mask.to(torch.int64)} if self.masked else {}
        return pooled(self.model.get_text_features(input_ids=ids, **attention))  # type: ignore[operator]


def read_tower(dual: DualEncoder) -> Tower:
    """Return the text tower. Raises ModelError, also for a tokenizer of Python code, which can't be packed into a bundle."""
    tokenizer = _tokenizer(dual)
    length = int(dual.model.config.text_config.max_position_embeddings)
    padded = PADDED[dual.family]
    if padded and tokenizer.padding_side != "right":
        raise ModelError(f"{dual.address}: texts are padded on the {tokenizer.padding_side}; allowed: right")
    text = _input(dual, tokenizer, length, padded=padded)
    masked = padded and "attention_mask" in tokenizer.model_input_names
    module = _TextTower(dual.model, masked=masked)

    @torch.inference_mode()
    def reference(texts: Sequence[bytes | str]) -> FloatArray:
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        encoded = tokenizer(list(texts), **options, return_attention_mask=True)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        for one, theirs in zip(
            texts, (row[present.bool()] for row, present in zip(ids, mask, strict=True)), strict=True
        ):
            if not np.array_equal(text.preprocess(str(one)), theirs.numpy()):
                raise ModelError(f"{dual.address}: {TOKENIZER_FILE} cuts {one!r} otherwise than transformers does")
        attention = {"attention_mask": mask} if masked or not padded else {}
        vectors: FloatArray = pooled(dual.model.get_text_features(input_ids=ids, **attention)).numpy()
        return vectors

    return Tower(text, module, EXAMPLES, reference)


def _tokenizer(dual: DualEncoder) -> Any:  # noqa: ANN401 — of a library
    """Return the tokenizer that transformers choose or, if that is Python code or lacks a package, the one of tokenizer.json."""
    if not (dual.folder / TOKENIZER_FILE).is_file():
        raise ModelError(
            f"{dual.address}: {TOKENIZER_FILE} is missing; a tokenizer of Python code can't be packed into a bundle"
        )
    try:
        tokenizer = loaded(dual.address, dual.library.AutoTokenizer.from_pretrained, dual.folder)
    except ModelError:
        tokenizer = None
    if isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        return tokenizer
    return loaded(dual.address, dual.library.PreTrainedTokenizerFast.from_pretrained, dual.folder)


def _input(dual: DualEncoder, tokenizer: Any, length: int, *, padded: bool) -> TextInput:  # noqa: ANN401 — of a library
    """Return our input with a copy of a tokenizer."""
    try:
        return TextInput(
            Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
            max_tokens=length,
            padding=tokenizer.pad_token or tokenizer.eos_token,
            unknown=tokenizer.unk_token or tokenizer.eos_token,
            padded=padded,
        )
    except Exception as problem:
        raise ModelError(f"{dual.address}: the tokenizer cannot be used: {problem}") from problem
