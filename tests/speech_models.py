"""A speech bundle without weights, and a recogniser that follows a script: for tests where no recogniser is installed."""

import base64
import io
import wave

import numpy as np

from polymodal.model.bundle import read_kind, write_kind
from polymodal.model.config import SpeechConfig
from polymodal.model.kinds.speech import WHISPER, Speech
from polymodal.model.modalities.audio.spectrum import RATE
from polymodal.model.speech.recogniser import Recognised, Segment, Word


def tone(seconds: float, amplitude: float = 0.5, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    """Return samples (N,) of a tone."""
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pause(seconds: float) -> np.ndarray:
    """Return samples (N,) of silence."""
    return np.zeros(round(seconds * RATE), np.float32)


def wav(*pieces: np.ndarray, rate: int = RATE) -> bytes:
    """Return a WAV file of 16 bits with samples (N,) of one channel, or (C, N) of several."""
    channels = np.atleast_2d(np.concatenate(pieces, axis=-1))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.T * 32767).astype("<i2").tobytes())
    return content.getvalue()


class Script:
    """A recogniser for which 440 Hz is speech; each stretch of it is the next word of the script."""

    longest_s = 28.0
    languages = ("de", "en")

    def __init__(self, words=("one", "two", "three", "four")):
        self.words, self.calls, self.repetitive = words, [], False

    def speech(self, samples):
        loud = np.abs(samples).reshape(-1, 160).max(axis=1) > 0.4 if len(samples) % 160 == 0 else np.zeros(1, bool)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
        return [(int(start) * 160, int(end) * 160) for start, end in edges.reshape(-1, 2)]

    def recognise(self, samples, guidance):
        self.calls.append((len(samples) / RATE, guidance))
        stretches = self.speech(np.resize(samples, len(samples) // 160 * 160))
        segments = []
        for number, (start, end) in enumerate(stretches):
            text = self.words[(len(self.calls) - 1 + number) % len(self.words)]
            words = (Word(text, start / RATE, end / RATE, 0.9),) if guidance.words else ()
            segments.append(Segment(text, start / RATE, end / RATE, -0.1, 0.02, tokens=(number,), words=words))
        return Recognised(tuple(segments), guidance.language or "en", 0.75, self.repetitive)

    def log_probabilities(self, samples, texts, guidance):
        self.calls.append((len(samples) / RATE, guidance))
        return np.asarray([-1.0 if text == self.words[0] else -4.0 for text in texts], np.float32)


GOLDEN = {"parts": {"audio": base64.b64encode(wav(tone(0.5))).decode()}, "transcript": "one", "avg_logprob": -0.1}


def write_speech(folder, golden=(GOLDEN,), name="speech"):
    """Write a speech bundle whose weights are empty files."""

    def fill(fresh):
        (fresh / WHISPER).mkdir()
        for file in SpeechConfig.weights:
            (fresh / file).touch()

    write_kind(
        folder,
        fill,
        config=SpeechConfig(name=name),
        report={},
        golden=list(golden),
        card="# speech\n",
        verify=lambda _: None,
    )
    return folder


def scripted(folder, recogniser=None, **options):
    """Return the model of a bundle of `write_speech`, with a scripted recogniser."""
    return Speech(read_kind(folder, SpeechConfig), recogniser or Script(), **options)
