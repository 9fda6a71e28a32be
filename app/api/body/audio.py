"""The forms of POST /v1/audio/transcriptions and /v1/audio/translations, as clients of OpenAI's API send them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import Field

from polymodal.model import RECORDING, Modality, SpeechOptions, TaskOptions

FILE: Final = "file"
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]


class AudioOptions(SpeechOptions):
    """The fields of the form next to the file and the model."""

    allowed: ClassVar[Mapping[str, str]] = {
        **SpeechOptions.allowed,
        "response_format": ", ".join(get_args(Format)),
        "temperature": "a number from 0 to 1",
        "timestamp_granularities": "word, segment, or both",
        "stream": "true or false",
        "keywords": "up to 100 texts of up to 100 characters",
        "languages": "codes of languages",
        "include": "logprobs",
        "chunking_strategy": "auto, or the fields of an object, each of up to 200 characters",
    }

    response_format: Format = "json"
    """json, text, srt, verbose_json or vtt."""
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of sampling; 0 is the default: the most probable words, and a sample where they repeat themselves or are improbable."""
    timestamp_granularities: list[Literal["word", "segment"]] | None = None
    """Whether words have times, in verbose_json; segments always have them. Also as timestamp_granularities[]."""
    stream: bool | None = None
    """Whether the text is returned as server-sent events; they begin when all of it is recognised."""
    keywords: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=100)] | None = None
    """Words and names that may occur; also as keywords[]."""
    languages: Annotated[list[Annotated[str, Field(max_length=16)]], Field(max_length=100)] | None = None
    """Without effect."""
    include: list[Literal["logprobs"]] | None = None
    """Without effect."""
    chunking_strategy: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=8)] | None = None
    """Without effect: recordings are always cut at pauses."""


@dataclass(frozen=True)
class AudioForm:
    """The form as an operation of the body parser."""

    name: str
    Options: ClassVar[type[TaskOptions]] = AudioOptions
    inputs: ClassVar[Mapping[str, Modality]] = {FILE: RECORDING}
    lists: ClassVar[frozenset[str]] = frozenset(
        {"timestamp_granularities", "keywords", "languages", "include", "chunking_strategy"}
    )
    """Fields that may occur several times, also with brackets: include[], chunking_strategy[type]."""


TRANSCRIPTIONS: Final = AudioForm("transcriptions")
TRANSLATIONS: Final = AudioForm("translations")
IGNORED: Final = ("languages", "include", "chunking_strategy")
"""Fields that are accepted without effect."""
