"""Copies of a sound are near duplicates in every format, and other sounds are not."""

import numpy as np
import pytest

from polymodal.model.modalities.audio.input import AudioInput
from polymodal.model.modalities.audio.near_duplicates import fingerprint, first_near_duplicates
from tests.sounds import noise, tone, wav

pytest.importorskip("av", reason="PyAV is of the extra audio")
from tests.sounds import encoded

RATE = 44_100


def melody(*tones):
    """Return a quarter of a second of each tone, with faint noise."""
    played = np.concatenate([tone(0.25, hertz, rate=RATE, amplitude=0.4) for hertz in tones])
    return played + noise(len(played) / RATE, rate=RATE, amplitude=0.01, seed=1)[: len(played)]


MELODY = melody(440, 880, 660, 550, 1100, 330, 220, 990)
OTHERS = [
    melody(990, 220, 330, 1100, 550, 660, 880, 440),
    melody(440, 880, 660, 550),
    melody(300, 2000, 700, 1500, 400, 2500, 900, 600),
]


def printed(content):
    entry = AudioInput()
    return fingerprint(entry.preprocess(entry.decode(content)))


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param(lambda: wav(MELODY, RATE), id="the-same"),
        pytest.param(lambda: wav(0.3 * MELODY, RATE), id="quieter"),
        pytest.param(lambda: wav(np.stack([MELODY, MELODY], axis=1), RATE, 24), id="stereo-of-24-bits"),
        pytest.param(lambda: encoded("flac", "flac", MELODY, RATE), id="flac"),
        pytest.param(lambda: encoded("libmp3lame", "mp3", MELODY, RATE), id="mp3"),
        pytest.param(lambda: encoded("aac", "mp4", MELODY, RATE), id="m4a"),
        pytest.param(lambda: encoded("pcm_mulaw", "wav", MELODY, RATE), id="mu-law"),
    ],
)
def test_a_copy_is_a_near_duplicate_of_the_original_alone(copy):
    known = [*(printed(wav(other, RATE)) for other in OTHERS), printed(wav(MELODY, RATE))]
    assert list(first_near_duplicates(known, [printed(copy())])) == [len(OTHERS)]


def test_other_sounds_are_no_near_duplicates():
    known, *others = (printed(wav(other, RATE)) for other in (MELODY, *OTHERS))
    assert list(first_near_duplicates([known], others)) == [None] * len(OTHERS)
    assert list(first_near_duplicates([], others)) == [None] * len(OTHERS)
