"""Decode and tokenise texts (steps 2 and 3 of a request).

L the number of tokens of one text; B texts in a batch.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from polymodal.model.blank import is_blank
from polymodal.model.errors import TooLarge, Undecodable
from polymodal.model.types import Array, InputSpec, Probe, Workload

TOKENIZER_FILE: Final = "tokenizer.json"
BYTES_PER_TOKEN: Final = 4  # about, in English; texts in other languages have more tokens
MOST_MARKS: Final = 256
"""Most combining characters in a row, because normalising n of them takes time in n²."""
TokenIds = npt.NDArray[np.int64]


class TextInput:
    """Validates a text and cuts it into tokens of the bundle's vocabulary, at most `max_tokens`.

    `padded`: whether every text is padded to `max_tokens`, for models that read the last position of a fixed length.
    """

    name: ClassVar[str] = "text"
    files: ClassVar[tuple[str, ...]] = (TOKENIZER_FILE,)
    free_axes: ClassVar[Mapping[str, Mapping[int, str]]] = {"ids": {1: "length"}, "mask": {1: "length"}}

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int = 48,
        max_characters: int = 20_000,
        padding: str = "[PAD]",
        unknown: str = "[UNK]",
        padded: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self.max_tokens = max_tokens
        self.max_characters = max_characters
        self.padded = padded
        self.vocabulary: int = tokenizer.get_vocab_size()
        self._padding, self._unknown = padding, unknown
        self.padding_id = _token_id(tokenizer, padding)
        self._unknown_id = _token_id(tokenizer, unknown)

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from this input's entry in a bundle's config.json and from its tokenizer.json."""
        return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), **settings)

    def settings(self) -> dict[str, Any]:
        """Return the limits, the vocabulary's tokens for padding and unknown words, and `padded` where it is set."""
        settings = {
            "max_tokens": self.max_tokens,
            "max_characters": self.max_characters,
            "padding": self._padding,
            "unknown": self._unknown,
        }
        return {**settings, "padded": True} if self.padded else settings

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        self._tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)

    def describe(self) -> InputSpec:
        """Return text/plain and the limits in characters (longer texts are rejected) and tokens (longer texts are cut)."""
        limits = {"max_characters": self.max_characters, "max_tokens": self.max_tokens}
        return InputSpec(self.name, ("text/plain",), limits)

    def decode(self, content: bytes | str) -> str | None:
        """Return a valid text with single spaces, in normal form C; None if it is blank. Raises Undecodable or TooLarge."""
        text = self._as_characters(content)
        if len(text) > self.max_characters:
            raise TooLarge(self.name, f"{len(text):,} characters", f"at most {self.max_characters:,} characters")
        if (position := text.find("\x00")) >= 0:
            raise Undecodable(self.name, f"a NUL character at position {position}", "text without NUL characters")
        if (marks := _longest_run_of_marks(text)) > MOST_MARKS:
            raise TooLarge(self.name, f"{marks:,} combining characters in a row", f"at most {MOST_MARKS}")
        return None if is_blank(text) else " ".join(unicodedata.normalize("NFC", text).split())

    def preprocess(self, decoded: str) -> TokenIds:
        """Return token ids: int64 (L,), 1 ≤ L ≤ max_tokens."""
        ids = self._tokenizer.encode(decoded).ids
        return np.asarray(ids or [self._unknown_id], dtype=np.int64)

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Pad to the longest text of this batch, or to `max_tokens`: ids int64 (B, L) and mask bool (B, L), true for a token."""
        lengths = np.asarray([len(ids) for ids in arrays])
        mask = np.arange(self.max_tokens if self.padded else lengths.max())[None, :] < lengths[:, None]
        ids = np.full(mask.shape, self.padding_id, dtype=np.int64)
        ids[mask] = np.concatenate(arrays)
        return {"ids": ids, "mask": mask}

    @staticmethod
    def workload(content: bytes | bytearray | str) -> Workload:
        """Estimate the number of tokens from the length."""
        return Workload("text", len(content) / BYTES_PER_TOKEN)

    def probes(self) -> tuple[Probe, ...]:
        """Return a text of one word, and one of `max_tokens` words."""
        return (Probe("word", "word " * self.max_tokens, most=float(self.max_tokens)),)

    def blank(self) -> TokenIds:
        """Return two unknown tokens, because a graph that is traced with one is specialised for one."""
        return np.full(2, self._unknown_id, dtype=np.int64)

    def _as_characters(self, content: bytes | str) -> str:
        if isinstance(content, str):
            try:
                content.encode()
            except UnicodeEncodeError as problem:
                raise Undecodable(
                    self.name, f"half a surrogate pair at position {problem.start}", "Unicode text"
                ) from problem
            return content.removeprefix("\ufeff")  # a byte order mark, as in bytes
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise Undecodable(
                self.name, f"a byte that is not UTF-8 at position {problem.start}", "UTF-8 text"
            ) from problem


INPUT: Final = TextInput
"""Imported by `Modality.input`."""


def _longest_run_of_marks(text: str) -> int:
    if text.isascii():
        return 0
    runs = groupby(map(unicodedata.combining, text), bool)
    return max((sum(1 for _ in run) for marks, run in runs if marks), default=0)


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"{TOKENIZER_FILE} has no token {token}")
    return number
