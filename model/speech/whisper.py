"""Whisper by faster-whisper on CTranslate2, in 8 bits, and Silero's voice activity detection.

N samples of sound, T frames of an encoder's output, D its width, K texts, V tokens of the vocabulary without special ones.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from polymodal.model.errors import BundleError
from polymodal.model.extras import import_optional
from polymodal.model.modalities.audio.spectrum import RATE
from polymodal.model.speech.recogniser import Guidance, Recognised, Segment, Word
from polymodal.model.types import FloatArray

REQUIREMENT: Final = "polymodal[speech]"
WINDOW_S: Final = 30.0
"""Seconds that Whisper's encoder was trained on; it pads shorter sounds with silence."""
LONGEST_S: Final = 28.0
AFTER_S: Final = 14.0
"""Seconds of silence that a short window gets instead: half the cost at nearly the same error; with less, decoding loops."""
TIMES_FROM_S: Final = 10.0
"""Windows from this length are decoded with time stamps, without which words after a pause get lost; shorter ones without, which
gets more single words right."""
FRAMES: Final = 100
"""Frames a second that the encoder takes; its output has half as many."""
LADDER: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures that are tried in turn while a result is repetitive or improbable, as in openai/whisper, transcribe.py."""
REPETITIVE: Final = 2.4
"""Compression ratio of a repetitive text, as in openai/whisper."""
SCORED: Final = 8
"""Texts that are scored together."""
MARGIN: Final = 6.0
"""Texts whose first token is less probable than the best text by this (natural logarithm) are not scored further."""
_LOOP: Final = re.compile(r"(?:^|\s)(\S+(?:\s+\S+){0,4}?)(?:\s+\1){3,}(?=\s|$)")
_LETTER: Final = re.compile(r"\w")
_VOICE: Final = {
    "threshold": 0.5,
    "min_silence_duration_ms": 500,
    "speech_pad_ms": 0,
    "max_speech_duration_s": LONGEST_S - 2,
}


def repeats(text: str, compression_ratio: float) -> bool:
    """Return whether a text repeats itself: up to five words at least four times in a row, or it compresses too well."""
    return compression_ratio > REPETITIVE or _LOOP.search(text.lower()) is not None


class WhisperRecogniser:
    """A Whisper model in a folder as CTranslate2 converts it."""

    longest_s = LONGEST_S

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the model. Raises BundleError when it cannot be loaded, ModelError when the extra is missing."""
        library = import_optional("faster_whisper", REQUIREMENT)
        logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # otherwise a line for every recording
        self._voice = import_optional("faster_whisper.vad", REQUIREMENT)
        self._storage: Any = import_optional("ctranslate2", REQUIREMENT).StorageView
        self._tokenizers: Any = import_optional("faster_whisper.tokenizer", REQUIREMENT).Tokenizer
        try:
            self._model: Any = _windowed(library.WhisperModel)(
                str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
            )
        except (OSError, RuntimeError, ValueError) as problem:
            raise BundleError(f"{folder}: the recogniser cannot be loaded: {problem}") from problem
        multilingual = self._model.model.is_multilingual
        self.languages: tuple[str, ...] = tuple(sorted(self._model.supported_languages)) if multilingual else ("en",)
        self._lock = Lock()

    def speech(self, samples: FloatArray) -> list[tuple[int, int]]:
        """Return start and end of each stretch of speech in samples (N,), in order, none longer than LONGEST_S."""
        stretches = self._voice.get_speech_timestamps(samples, self._voice.VadOptions(**_VOICE))
        return [(int(stretch["start"]), int(stretch["end"])) for stretch in stretches]

    def recognise(self, samples: FloatArray, guidance: Guidance) -> Recognised:
        """Recognise a window of samples (N,); a repetitive result is computed again with the encoder's full window."""
        seconds = len(samples) / RATE
        with self._lock:
            if seconds < TIMES_FROM_S:
                temperatures: tuple[float, ...] = (guidance.temperature or 0.0,)
                short = self._recognise(samples, guidance, seconds + AFTER_S, temperatures)
                if not short.repetitive:
                    return short
            temperatures = LADDER if guidance.temperature is None else (guidance.temperature,)
            return self._recognise(samples, guidance, WINDOW_S, temperatures)

    def _recognise(
        self, samples: FloatArray, guidance: Guidance, window_s: float, temperatures: tuple[float, ...]
    ) -> Recognised:
        self._model.frames = round(window_s * FRAMES)
        raw, info = self._model.transcribe(
            samples,
            language=guidance.language,
            task="translate" if guidance.translate else "transcribe",
            beam_size=1,
            temperature=list(temperatures),
            initial_prompt=guidance.prompt or None,
            hotwords=", ".join(guidance.phrases) or None,
            condition_on_previous_text=False,
            without_timestamps=len(samples) < TIMES_FROM_S * RATE,
            word_timestamps=guidance.words,
        )
        segments = tuple(_segment(segment, len(samples) / RATE) for segment in raw if _LETTER.search(segment.text))
        self._model.forget()
        repetitive = any(repeats(segment.text, segment.compression_ratio) for segment in segments)
        return Recognised(segments, info.language, float(info.language_probability), repetitive)

    def log_probabilities(self, samples: FloatArray, texts: Sequence[str], guidance: Guidance) -> FloatArray:
        """Return the log-probability (K,) of each text, with or without a capital, followed by a full stop.

        The full stop is the end of the text: without it, "sun" would be at least as probable as "sunflower". The most probable
        first tokens are scored first; texts that can no longer come near the best one get the probability of theirs.
        """
        with self._lock:
            self._model.frames = round(min(len(samples) / RATE + AFTER_S, WINDOW_S) * FRAMES)
            encoded = self._model.encode(self._model.padded(samples))
            tokenizer = self._tokenizer(encoded, guidance)
            self._model.forget()
            return self._scores(encoded, tokenizer, texts)

    def _tokenizer(self, encoded: Any, guidance: Guidance) -> Any:  # noqa: ANN401
        language = guidance.language
        if language is None and len(self.languages) > 1:
            ((token, _), *_), *_ = self._model.model.detect_language(encoded)
            language = token[2:-2]
        multilingual = len(self.languages) > 1
        return self._tokenizers(
            self._model.hf_tokenizer, multilingual, task="transcribe", language=language if multilingual else "en"
        )

    def _scores(self, encoded: Any, tokenizer: Any, texts: Sequence[str]) -> FloatArray:  # noqa: ANN401
        start = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        (result,) = self._model.model.generate(
            encoded,
            [start],
            beam_size=1,
            max_length=len(start) + 1,
            return_logits_vocab=True,
            suppress_blank=False,
            suppress_tokens=[],
        )
        first = _log_softmax(np.asarray(result.logits[0][0], dtype=np.float64).ravel()[: tokenizer.eot])
        spelt = [(row, tokens) for row, text in enumerate(texts) for tokens in _spellings(tokenizer, text)]
        spelt.sort(key=lambda entry: -first[entry[1][0]])
        scores, features = np.full(len(texts), -np.inf), np.asarray(encoded)
        for at in range(0, len(spelt), SCORED):
            rows = spelt[at : at + SCORED]
            if first[rows[0][1][0]] < scores.max() - MARGIN:
                for row, tokens in spelt[at:]:
                    scores[row] = np.logaddexp(scores[row], first[tokens[0]] - 1.0)
                break
            repeated = np.ascontiguousarray(np.repeat(features, len(rows), axis=0))
            aligned = self._model.model.align(
                self._storage.from_array(repeated),
                tokenizer.sot_sequence,
                [tokens for _, tokens in rows],
                [2 * features.shape[1]] * len(rows),
            )
            for (row, _), alignment in zip(rows, aligned, strict=True):
                probabilities = np.maximum(alignment.text_token_probs, 1e-12)
                scores[row] = np.logaddexp(scores[row], float(np.log(probabilities).sum()))
        return scores.astype(np.float32)


def _windowed(base: Any) -> Any:  # noqa: ANN401
    """Return a subclass of faster-whisper's model whose encoder sees `frames` frames instead of 30 s."""

    class Windowed(base):  # type: ignore[misc]
        frames = round(WINDOW_S * FRAMES)
        _encoded: tuple[FloatArray, Any] | None = None

        def encode(self, features: FloatArray) -> Any:  # noqa: ANN401
            """Encode features (80, 3000) of a window, once: detecting the language and decoding take the same ones."""
            features = np.ascontiguousarray(features[..., : self.frames])
            if self._encoded is None or not np.array_equal(self._encoded[0], features):
                self._encoded = (features, super().encode(features))
            return self._encoded[1]

        def forget(self) -> None:
            """Drop the window that was encoded last."""
            self._encoded = None

        def padded(self, samples: FloatArray) -> FloatArray:
            """Return the features (80, 3000) of samples (N,), with zeros after them."""
            features = self.feature_extractor(samples)[:, : round(WINDOW_S * FRAMES)]
            return np.pad(features, ((0, 0), (0, round(WINDOW_S * FRAMES) - features.shape[1])))

    return Windowed


def _segment(segment: Any, seconds: float) -> Segment:  # noqa: ANN401
    return Segment(
        text=segment.text.strip(),
        start=min(max(0.0, float(segment.start)), seconds),
        end=min(float(segment.end), seconds),
        avg_logprob=float(segment.avg_logprob),
        no_speech_prob=float(segment.no_speech_prob),
        compression_ratio=float(segment.compression_ratio),
        temperature=float(segment.temperature),
        tokens=tuple(map(int, segment.tokens)),
        words=tuple(_words(segment.words or (), seconds)),
    )


def _words(words: Sequence[Any], seconds: float) -> Iterator[Word]:
    """Yield words whose times are inside the window and never go back."""
    latest = 0.0
    for word in words:
        start = min(max(latest, float(word.start)), seconds)
        latest = min(max(start, float(word.end)), seconds)
        yield Word(word.word.strip(), start, latest, float(word.probability))


def _spellings(tokenizer: Any, text: str) -> list[list[int]]:  # noqa: ANN401
    """Return the tokens of a text as it is, and with a capital, followed by a full stop."""
    capital = text[:1].upper() + text[1:]
    stop = tokenizer.encode(".")
    return [[*tokenizer.encode(f" {spelling}"), *stop] for spelling in dict.fromkeys((text, capital))]


def _log_softmax(logits: Any) -> Any:  # noqa: ANN401 — arrays (V,)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
