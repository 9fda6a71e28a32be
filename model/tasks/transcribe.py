"""The task transcribe: the words of a recording, with their times and how sure the recogniser is."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import ConfigDict, Field, PrivateAttr

from polymodal.model.capabilities import Capability, Transcribes
from polymodal.model.errors import InvalidParameter
from polymodal.model.modalities import RECORDING, Modality
from polymodal.model.speech.recogniser import Guidance, Segment
from polymodal.model.speech.transcript import TRANSCRIPT, Transcript, transcript_of
from polymodal.model.tasks.contract import EXAMPLE_DIGEST, Batch, Schema, Task, TaskAnswer, TaskOptions
from polymodal.model.types import Arrays, Description, TensorSpec

STAGE: Final = "transcribe"
DECIMALS: Final = 4
Phrase = Annotated[str, Field(min_length=1, max_length=100)]


class SpeechOptions(TaskOptions):
    """What is known about a recording."""

    allowed: ClassVar[Mapping[str, str]] = {
        "language": "the code of a language of the model, such as en",
        "prompt": "a text of up to 1,000 characters",
    }

    language: Annotated[str, Field(min_length=2, max_length=16)] | None = None
    """ISO 639-1 code of the spoken language; by default it is detected."""
    prompt: Annotated[str, Field(max_length=1000)] | None = None
    """What the recording is about, in its language."""


class TranscribeOptions(SpeechOptions):
    """The language, the text that is known about the recording, and whether words have times."""

    allowed: ClassVar[Mapping[str, str]] = {
        **SpeechOptions.allowed,
        "phrases": 'a list of 1 to 100 texts of up to 100 characters, also in a form: ["Ada Lovelace"]',
        "candidates": 'a list of 2 to 500 texts of up to 100 characters, all different, also in a form: ["yes", "no"]',
        "words": "true or false",
        "temperature": "a number from 0 to 1, as JSON writes numbers",
    }

    phrases: Annotated[list[Phrase], Field(min_length=1, max_length=100)] | None = None
    """Words and names that may occur, as they are to be spelt; in a form a JSON list."""
    candidates: (
        Annotated[list[Phrase], Field(min_length=2, max_length=500, json_schema_extra={"uniqueItems": True})] | None
    ) = None
    """All texts that the recording may be: the answer is one of them, each with its probability. In a form a JSON list."""
    words: bool | None = None
    """Whether each word has times; takes longer."""
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 for the most probable words, more for a sample; by default 0, and more where that text repeats itself or is improbable."""


class TranslateOptions(TranscribeOptions):
    """Options of routes that translate to English; not an option of clients."""

    translate: Literal[True] = True


class TranscribedWord(Schema):
    """A word of a transcript."""

    text: str
    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    confidence: float
    """Probability of the word, from 0 to 1, as the recogniser estimates it."""


class TranscribedSegment(Schema):
    """A piece of a transcript."""

    text: str
    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    confidence: float
    """Geometric mean of the probabilities of its tokens, from 0 to 1: compare it within one model. Not calibrated."""
    words: list[TranscribedWord] | None = None
    """Only if they were requested."""


class Candidate(Schema):
    """A text that the recording may be."""

    text: str
    probability: float
    """Probability that this candidate was spoken, if one of them was."""


class Transcription(TaskAnswer):
    """The words of a recording."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "speech",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": [RECORDING.name],
                    "text": "Please book a table for seven people.",
                    "language": "en",
                    "language_probability": 0.98,
                    "segments": [
                        {
                            "text": "Please book a table for seven people.",
                            "start": 0.29,
                            "end": 2.41,
                            "confidence": 0.88,
                        }
                    ],
                    "seconds": 3.375,
                    "speech_seconds": 2.12,
                    "silence_seconds": 1.255,
                    "warnings": [],
                },
                {
                    "model": "speech",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": [RECORDING.name],
                    "text": "",
                    "segments": [],
                    "reason": "silence",
                    "seconds": 3.0,
                    "speech_seconds": 0.0,
                    "silence_seconds": 3.0,
                    "warnings": [],
                },
                {
                    "model": "speech",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": [RECORDING.name],
                    "text": "yes",
                    "segments": [{"text": "yes", "start": 0.2, "end": 0.6, "confidence": 0.97}],
                    "candidates": [{"text": "yes", "probability": 0.97}, {"text": "no", "probability": 0.03}],
                    "seconds": 0.8,
                    "speech_seconds": 0.4,
                    "silence_seconds": 0.4,
                    "warnings": [],
                },
            ]
        }
    )

    text: str
    """All words; empty if nothing was spoken."""
    language: str | None = None
    """Code of the language; missing if nothing was recognised."""
    language_probability: float | None = None
    """Probability of the language, 1 if it was requested."""
    segments: list[TranscribedSegment]
    """In their order."""
    reason: str | None = None
    """Why there are no words: silence, no_speech (no voice was detected), or no_words (none were recognised in it)."""
    seconds: float
    """Of the recording."""
    speech_seconds: float
    """Of detected speech."""
    silence_seconds: float
    """The rest."""
    candidates: list[Candidate] | None = None
    """The candidates of the request, most probable first; missing without speech."""
    warnings: list[str]
    """antiphase: channels cancelled each other, and the louder one was taken. damaged: a piece of the file could not be decoded.
    repetition: the text repeats itself, as a recogniser does when it has lost its place. cut: only the first stretch of speech was
    compared with the candidates."""
    _transcript: Transcript | None = PrivateAttr(None)

    @property
    def transcript(self) -> Transcript:
        """The transcript with all values of the recogniser, which dialects have; not in the JSON."""
        if self._transcript is None:
            raise ValueError("a transcription that was not computed has no transcript")
        return self._transcript


class Transcribe(Task):
    """The words of a recording."""

    name = "transcribe"
    about = "The words of recordings."
    summary = "Transcribe a recording"
    details = (
        "Words with times, and how sure the recogniser is. Silence, tones and noise have an empty text and a reason.\n\n"
        "What is known in advance makes the words more accurate: `prompt`, `phrases`, and `candidates`, a closed list of which "
        "the answer is one."
    )
    batch_summary = "Transcribe many recordings; a bad one fails alone"
    answers = "The words of the recording."
    answer_names = ("sentence", "silence", "candidates")
    result = "transcription"
    batch_name = "TranscribeBatch"
    example: ClassVar[Mapping[str, Any]] = {"language": "en"}
    needs = Capability.TRANSCRIBES
    stages = (STAGE,)
    inputs: ClassVar[Mapping[str, Modality]] = {RECORDING.name: RECORDING}
    Options = TranscribeOptions
    Answer = Transcription

    def check(self, options: TranscribeOptions, description: Description) -> None:
        """Raise InvalidParameter for a language that the model does not have, and for repeated candidates."""
        if options.language is not None and options.language not in description.languages:
            code, allowed = options.language[:64], ", ".join(description.languages)
            raise InvalidParameter("language", f'"{code}"', f"{allowed}, the languages of this model")
        if options.candidates and len(set(options.candidates)) < len(options.candidates):
            ((repeated, _),) = Counter(options.candidates).most_common(1)
            raise InvalidParameter("candidates", f'"{repeated[:64]}" twice', "each candidate once")

    def worker_options(self, options: TranscribeOptions) -> Mapping[str, Any]:
        """Return the options as they are."""
        return options.model_dump(exclude_none=True)

    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """Return the bytes of a transcript."""
        return (TensorSpec(TRANSCRIPT, "UINT8", (-1,)),)

    def run(self, batch: Batch) -> list[Arrays]:
        """Transcribe one recording after the other."""
        model, results = cast(Transcribes, batch.model), []
        with batch.stages.measure(STAGE):
            for sample, options in zip(batch.samples, batch.options, strict=True):
                guidance = Guidance(
                    language=options.get("language"),
                    prompt=options.get("prompt", ""),
                    phrases=tuple(options.get("phrases", ())),
                    words=options.get("words", False),
                    temperature=options.get("temperature"),
                    translate=options.get("translate", False),
                )
                results.append(
                    model.transcribe(sample, guidance, options.get("candidates", ()), batch.stopped).arrays()
                )
        return results

    def answer(
        self, arrays: Arrays, used: frozenset[str], options: TranscribeOptions, description: Description
    ) -> Transcription:
        """Return the transcript with probabilities in place of logarithms; texts have no control characters."""
        transcript = transcript_of(arrays)
        ranked = None
        if options.candidates and transcript.probabilities:
            pairs = zip(options.candidates, transcript.probabilities, strict=True)
            ranked = [
                Candidate(text=text, probability=share) for text, share in sorted(pairs, key=lambda pair: -pair[1])
            ]
        answer = Transcription(
            model=description.name,
            digest=description.digest,
            modalities=sorted(used),
            text=printable(transcript.text),
            language=transcript.language or None,
            language_probability=transcript.language_probability if transcript.language else None,
            segments=[_segment(segment, words=bool(options.words)) for segment in transcript.segments],
            reason=transcript.reason or None,
            seconds=transcript.seconds,
            speech_seconds=transcript.speech_seconds,
            silence_seconds=round(max(0.0, transcript.seconds - transcript.speech_seconds), 3),
            candidates=ranked,
            warnings=list(transcript.warnings),
        )
        answer._transcript = transcript
        return answer


def printable(text: str) -> str:
    """Return a text without characters that show nothing, such as control characters."""
    return "".join(character for character in text if character.isprintable())


def _segment(segment: Segment, *, words: bool) -> TranscribedSegment:
    return TranscribedSegment(
        text=printable(segment.text),
        start=segment.start,
        end=segment.end,
        confidence=round(math.exp(min(segment.avg_logprob, 0.0)), DECIMALS),
        words=[
            TranscribedWord(
                text=printable(word.text),
                start=word.start,
                end=word.end,
                confidence=round(min(max(word.probability, 0.0), 1.0), DECIMALS),
            )
            for word in segment.words
        ]
        if words and segment.words
        else None,
    )
