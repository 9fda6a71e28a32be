"""Transcripts, as workers send them: JSON of a fixed schema in an array of bytes, bounded, and validated where it is read."""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from pydantic import Field, TypeAdapter

from polymodal.model.speech.recogniser import Segment
from polymodal.model.types import Array, Arrays

TRANSCRIPT: Final = "transcript"
LARGEST: Final = 8 * 2**20
"""Bytes of the longest transcript."""

SILENCE, NO_SPEECH, NO_WORDS = "silence", "no_speech", "no_words"
"""Why a transcript is empty: nothing is audible, no voice was detected, or no words were recognised in it."""
REPETITION_WARNING: Final = "repetition"
CUT_WARNING: Final = "cut"

_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Transcript:
    """The recognised speech of a recording."""

    segments: tuple[Segment, ...]
    seconds: _Time
    speech_seconds: _Time
    language: Annotated[str, Field(max_length=16)] = ""
    """Empty if nothing was recognised."""
    language_probability: _Share = 0.0
    reason: Annotated[str, Field(max_length=16)] = ""
    """Why there are no segments; empty if there are."""
    warnings: tuple[Annotated[str, Field(max_length=16)], ...] = ()
    probabilities: tuple[_Share, ...] = ()
    """Of the candidates of the request, in their order; empty without any, and without speech."""

    @property
    def text(self) -> str:
        """The texts of the segments."""
        return " ".join(segment.text for segment in self.segments)

    def arrays(self) -> Arrays:
        """Return the transcript as arrays that cross the wire."""
        return {TRANSCRIPT: np.frombuffer(_SCHEMA.dump_json(self), dtype=np.uint8)}


_SCHEMA: Final = TypeAdapter(Transcript)


def transcript_of(arrays: Arrays) -> Transcript:
    """Return what `Transcript.arrays` wrote. Raises ValueError for anything else."""
    content: Array = arrays[TRANSCRIPT]
    if content.dtype != np.uint8 or content.size > LARGEST:
        raise ValueError(f"a transcript of {content.size} items of type {content.dtype}")
    return _SCHEMA.validate_json(content.tobytes())
