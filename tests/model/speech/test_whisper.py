"""Whisper itself. Its weights are not in the repository: these tests run where SPEECH_BUNDLE names a bundle."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from polymodal.model.speech import packages
from polymodal.model.speech.recogniser import Guidance
from polymodal.model.speech.whisper import repeats
from tests.speech_models import tone, wav

BUNDLE = os.environ.get("SPEECH_BUNDLE", "")
needs_weights = pytest.mark.skipif(not BUNDLE, reason="SPEECH_BUNDLE names no bundle of `polymodal fetch speech`")


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("faster_whisper", reason="the extra speech is not installed")
    from polymodal.model import load_bundle

    model = load_bundle(BUNDLE, threads=1)
    model.warm_up()
    return model


def clip(name):
    return (Path(packages.__file__).parent / "clips" / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "ratio", "expected"),
    [
        ("and so and so and so and so", 1.0, True),
        ("no no no no", 1.0, True),
        ("very, very good", 1.0, False),
        ("anything", 2.5, True),
        ("one two three four five six", 1.0, False),
    ],
)
def test_repetitions_are_found(text, ratio, expected):
    assert repeats(text, ratio) is expected


@needs_weights
def test_a_sentence_is_recognised_with_times_of_its_words(model):
    sample = model.prepare({"audio": clip("table.flac")})
    transcript = model.transcribe(sample, Guidance(words=True, language="en"))
    assert "table" in transcript.text
    words = transcript.segments[0].words
    assert all(word.start <= word.end <= transcript.seconds for word in words)
    assert all(first.end <= second.start for first, second in pairwise(words))


@needs_weights
@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("kind", ["silence", "white", "pink", "tone", "beeps", "hum", "chord", "clicks"])
def test_sound_without_speech_has_no_words(model, kind, amplitude):
    chance, count = np.random.default_rng(0), 3 * 16_000
    at = np.arange(count) / 16_000
    white = chance.normal(0, 0.3, count)
    sound = {
        "silence": np.zeros(count),
        "white": white,
        "pink": np.convolve(white, np.ones(32) / 8, "same"),
        "tone": np.sin(2 * np.pi * 440 * at),
        "beeps": np.sin(2 * np.pi * 1000 * at) * ((at * 4).astype(int) % 2),
        "hum": np.sin(2 * np.pi * 50 * at),
        "chord": sum(np.sin(2 * np.pi * hertz * at) for hertz in (262, 330, 392)) / 3,
        "clicks": (np.arange(count) % 4000 < 8).astype(float),
    }[kind]
    samples = np.clip(sound * amplitude, -1, 1).astype(np.float32)
    assert model.transcribe(model.prepare({"audio": wav(samples)})).text == ""


@needs_weights
def test_candidates_are_scored_by_their_sound(model):
    sample = model.prepare({"audio": clip("good-morning.flac")})
    candidates = ["good evening", "good morning", "good night", "good"]
    transcript = model.transcribe(sample, candidates=candidates)
    assert transcript.text == "good morning"
    assert transcript.probabilities[1] > 0.9


@needs_weights
def test_a_phrase_that_may_occur_is_spelt_as_given(model):
    sample = model.prepare({"audio": clip("table.flac")})
    assert model.transcribe(sample, Guidance(language="en", phrases=("table for seven",))).text


@needs_weights
def test_a_tone_among_words_changes_nothing_else(model):
    sample = model.prepare({"audio": wav(tone(0.5, amplitude=0.1))})
    assert model.transcribe(sample).segments == ()
