"""The model kind `speech`: decodes a recording, finds speech in it, and recognises its words window by window.

N samples of sound, K candidates.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from polymodal.cores import available_cpus
from polymodal.model.bundle import AnyBundle, read_kind
from polymodal.model.capabilities import Capability
from polymodal.model.config import SpeechConfig
from polymodal.model.errors import BundleError, InputError, NothingGiven, UnknownModality
from polymodal.model.modalities import RECORDING
from polymodal.model.modalities.audio.input import AudioInput
from polymodal.model.modalities.audio.spectrum import RATE
from polymodal.model.speech.recogniser import Guidance, Recognised, Recogniser, Segment
from polymodal.model.speech.transcript import CUT_WARNING, NO_SPEECH, NO_WORDS, REPETITION_WARNING, SILENCE, Transcript
from polymodal.model.speech.whisper import WhisperRecogniser
from polymodal.model.types import Description, FloatArray, Inputs, InputSpec, Probe, Sample

INPUT: Final = RECORDING.name
DECODER: Final = AudioInput()
WHISPER: Final = "whisper"
"""Folder of the model's files in a bundle."""
AUDIBLE: Final = 0.001
"""Amplitude (-60 dB) below which everything is silence."""
PAD_S: Final = 0.4
"""Seconds around detected speech that are recognised with it."""
PAUSE_S: Final = 1.5
"""Longest pause within a window."""
GOLDEN_TOLERANCE: Final = 0.5
"""Largest deviation of the mean log-probability of a golden clip: 8-bit arithmetic differs between processors."""


@dataclass(frozen=True, slots=True)
class SpeechSample(Sample):
    """A decoded recording."""

    warnings: tuple[str, ...] = ()


class Speech:
    """A bundle with its recogniser."""

    def __init__(
        self,
        bundle: AnyBundle[SpeechConfig],
        recogniser: Recogniser,
        name: str | None = None,
    ) -> None:
        self._bundle = bundle
        self._recogniser = recogniser
        self.description = Description(
            name=name or bundle.config.name,
            digest=bundle.digest,
            target="",
            labels=(),
            inputs=(_spoken(),),
            runtime="ctranslate2",
            card=bundle.card,
            report=bundle.report,
            kind=bundle.config.kind,
            capabilities=frozenset({Capability.TRANSCRIBES}),
            languages=recogniser.languages,
        )

    def prepare(self, inputs: Inputs, kept: Mapping[str, bytes] | None = None) -> Sample:
        """Decode the recording of one item. Raises InputError."""
        if unknown := sorted(set(inputs) - {INPUT}):
            raise UnknownModality(unknown[0], "not an input of this model", INPUT)
        if (content := inputs.get(INPUT)) is None:
            raise NothingGiven("request", f"no {INPUT}", INPUT)
        sound = DECODER.listen(content if isinstance(content, str) else bytes(content))
        return SpeechSample({INPUT: sound.samples}, warnings=sound.warnings)

    def transcribe(
        self,
        sample: Sample,
        guidance: Guidance | None = None,
        candidates: Sequence[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Transcript:
        """Return the transcript of a recording; with candidates, the most probable one of them as its whole text.

        Once `stopped`, which is called before each window, returns true, the transcript ends there.

        Only detected speech is given to the recogniser, so that silence, tones and noise have an empty text and no words are
        invented.
        """
        samples: FloatArray = sample.arrays[INPUT]
        guidance = guidance or Guidance()
        warnings = list(sample.warnings) if isinstance(sample, SpeechSample) else []
        seconds = round(len(samples) / RATE, 3)
        audible = float(np.abs(samples).max(initial=0.0)) >= AUDIBLE
        speech = self._recogniser.speech(samples) if audible and not stopped() else []
        if not speech:
            reason = NO_SPEECH if audible else SILENCE
            return Transcript((), seconds, 0.0, reason=reason, warnings=tuple(warnings))
        spoken = Transcript((), seconds, round(sum(end - start for start, end in speech) / RATE, 3))
        windows = list(windows_of(speech, len(samples), self._recogniser.longest_s))
        if candidates:
            chosen = self._chosen(samples, windows, guidance, candidates)
            warnings += [CUT_WARNING] * (len(windows) > 1)
            return replace(spoken, **chosen, warnings=tuple(warnings))
        recognised: list[Recognised] = []
        for window in windows:
            if recognised and stopped():
                break
            recognised.append(self._recognised(samples, window, guidance))
            guidance = replace(guidance, language=recognised[0].language)
        segments = tuple(segment for result in recognised for segment in result.segments)
        warnings += [REPETITION_WARNING] * any(result.repetitive for result in recognised)
        return replace(
            spoken,
            segments=segments,
            language=recognised[0].language,
            language_probability=round(recognised[0].language_probability, 4),
            reason="" if segments else NO_WORDS,
            warnings=tuple(warnings),
        )

    def _recognised(self, samples: FloatArray, window: "Window", guidance: Guidance) -> Recognised:
        """Recognise a window; times count from the start of the recording."""
        result = self._recogniser.recognise(samples[window.start : window.end], guidance)
        segments = [_moved(segment, window.start / RATE) for segment in result.segments]
        if len(segments) == 1:  # without pauses, its ends are those of the detected speech
            first, last = window.speech
            start, end = round(first / RATE, 2), round(last / RATE, 2)
            words = tuple(
                replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end))
                for word in segments[0].words
            )
            segments = [replace(segments[0], start=start, end=end, words=words)]
        return replace(result, segments=tuple(segments))

    def _chosen(
        self, samples: FloatArray, windows: Sequence["Window"], guidance: Guidance, candidates: Sequence[str]
    ) -> dict[str, Any]:
        """Return the fields of a transcript that is one of the candidates, by the first window."""
        window = windows[0]
        scores = self._recogniser.log_probabilities(samples[window.start : window.end], candidates, guidance)
        probabilities = np.exp(scores - np.logaddexp.reduce(scores.astype(np.float64)))
        best = int(probabilities.argmax())
        first, last = window.speech
        times = round(first / RATE, 2), round(last / RATE, 2)
        segment = Segment(candidates[best], *times, avg_logprob=float(np.log(probabilities[best])), no_speech_prob=0.0)
        rounded = tuple(round(min(max(float(value), 0.0), 1.0), 6) for value in probabilities)
        return {"segments": (segment,), "probabilities": rounded}

    def probes(self, task: str = "") -> Mapping[str, Sequence[Probe]]:
        """Return the shortest and the longest golden clip, for measuring how long a recording takes."""
        clips = sorted((golden_clip(golden) for golden in self._bundle.golden), key=len)
        return {INPUT: (Probe(clips[0], clips[-1], most=DECODER.max_seconds, alone=True),)} if clips else {}

    def warm_up(self) -> None:
        """Recognise the golden clips. Raises BundleError when a text is another one than the bundle recorded."""
        for number, golden in enumerate(self._bundle.golden, start=1):
            where = f"{self._bundle.directory}: golden clip {number}"
            try:
                transcript = self.transcribe(self.prepare({INPUT: golden_clip(golden)}))
                text, recorded = transcript.text, float(golden["avg_logprob"])
                deviation = abs(mean_logprob(transcript) - recorded)
                expected = golden["transcript"]
            except (InputError, LookupError, TypeError, ValueError) as problem:
                raise BundleError(f"{where} cannot be replayed: {problem}") from problem
            if _comparable(text) != _comparable(expected):
                raise BundleError(f"{where} is recognised as {text!r}; the bundle recorded {expected!r}")
            if not deviation <= GOLDEN_TOLERANCE:
                raise BundleError(
                    f"{where} has a mean log-probability {deviation:.2f} away from what the bundle recorded; "
                    f"allowed: {GOLDEN_TOLERANCE}"
                )


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of samples that is recognised at once; `speech`: start of its first and end of its last speech."""

    start: int
    end: int
    speech: tuple[int, int]


def windows_of(speech: Sequence[tuple[int, int]], length: int, longest_s: float) -> Iterator[Window]:
    """Yield windows that hold neighbouring stretches of speech, with some sound around them, and never overlap.

    `length`: samples of the recording; a window has at most `longest_s`, and no pause longer than PAUSE_S.
    """
    pad, pause, longest = int(PAD_S * RATE), int(PAUSE_S * RATE), int(longest_s * RATE)
    groups: list[tuple[int, int]] = []
    for start, end in speech:
        if groups and start - groups[-1][1] <= pause and end - groups[-1][0] + 2 * pad <= longest:
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    for number, (start, end) in enumerate(groups):
        before = (groups[number - 1][1] + start + 1) // 2 if number else 0
        after = (end + groups[number + 1][0]) // 2 if number + 1 < len(groups) else length
        yield Window(max(before, start - pad), min(after, end + pad), (start, end))


def golden_clip(golden: Mapping[str, Any]) -> bytes:
    """Return the sound file of an entry of golden.json. Raises LookupError or ValueError."""
    return base64.b64decode(golden["parts"][INPUT])


def mean_logprob(transcript: Transcript) -> float:
    """Return the mean of the segments' log-probabilities; 0 without segments."""
    return float(np.mean([segment.avg_logprob for segment in transcript.segments])) if transcript.segments else 0.0


def _comparable(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _moved(segment: Segment, seconds: float) -> Segment:
    words = tuple(
        replace(word, start=round(word.start + seconds, 2), end=round(word.end + seconds, 2)) for word in segment.words
    )
    start, end = (round(time + seconds, 2) for time in (segment.start, segment.end))
    return replace(segment, start=start, end=end, words=words)


def _spoken() -> InputSpec:
    """Return the description of a recording, all of which is recognised: it has no limit of windows."""
    spec = DECODER.describe()
    return InputSpec(spec.name, spec.media_types, {key: spec.limits[key] for key in ("max_seconds", "max_channels")})


def load_speech(directory: Path, name: str | None = None, runtime: str = "auto", threads: int | None = None) -> Speech:
    """Open a bundle of this kind; see `model.kinds.load_bundle`. The runtime is always CTranslate2."""
    bundle = read_kind(directory, SpeechConfig)
    return Speech(bundle, WhisperRecogniser(directory / WHISPER, threads or available_cpus()), name)
