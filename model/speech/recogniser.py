"""Interface of speech recognisers, and their results. `model.kinds.speech` turns these into transcripts.

N samples of sound, K texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polymodal.model.types import FloatArray


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a recogniser gets in addition to the sound."""

    language: str | None = None
    """ISO 639-1 code; None: it is detected."""
    prompt: str = ""
    """What the recording is about."""
    phrases: tuple[str, ...] = ()
    """Words and names that may occur."""
    words: bool = False
    """Whether the times of words are computed."""
    temperature: float | None = None
    """Of sampling; None: 0, and higher ones where the result of 0 is repetitive or improbable."""
    translate: bool = False
    """Whether the text is translated to English."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its times, in seconds."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a transcript; `start` and `end` are in seconds."""

    text: str
    start: float
    end: float
    avg_logprob: float
    """Mean of the tokens' natural log-probabilities."""
    no_speech_prob: float
    compression_ratio: float = 1.0
    temperature: float = 0.0
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognised:
    """The segments of a window of sound, and its language."""

    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    repetitive: bool = False
    """Whether a segment repeats itself, as a recogniser does when it has lost its place."""


class Recogniser(Protocol):
    """Recognises speech in samples at `RATE` of audio. All methods are thread-safe."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Return the codes of the languages that it recognises."""

    @property
    def longest_s(self) -> float:
        """Return the seconds of the longest window that `recognise` and `log_probabilities` take."""

    def speech(self, samples: FloatArray) -> list[tuple[int, int]]:
        """Return start and end of each stretch of speech in samples (N,), in order, none longer than `longest_s`."""

    def recognise(self, samples: FloatArray, guidance: Guidance) -> Recognised:
        """Recognise a window of samples (N,). Times count from its start."""

    def log_probabilities(self, samples: FloatArray, texts: Sequence[str], guidance: Guidance) -> FloatArray:
        """Return the log-probability (K,) that the recogniser gives to each text as the whole content of a window."""
