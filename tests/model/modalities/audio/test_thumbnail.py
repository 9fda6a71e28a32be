"""An excerpt is small, is the loudest passage, and is itself a sound."""

import numpy as np
import pytest

from polymodal.model.errors import UnsupportedFormat
from polymodal.model.modalities.audio.input import AudioInput
from polymodal.model.modalities.audio.spectrum import RATE
from polymodal.model.modalities.audio.thumbnail import thumbnail
from tests.sounds import tone, wav

pytest.importorskip("av", reason="PyAV is of the extra audio")


def test_an_excerpt_is_the_loudest_passage_as_a_small_wav():
    content = thumbnail(
        wav(np.concatenate([tone(3, 500, amplitude=0.1), tone(1, 900), tone(2, 500, amplitude=0.1)])), 96
    )
    assert len(content) < 20_000
    samples = AudioInput().decode(content)
    assert len(samples) == pytest.approx(1.2 * RATE, rel=0.01)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.fft.rfftfreq(len(samples), 1 / RATE)[spectrum.argmax()] == pytest.approx(900, abs=5)


def test_a_short_sound_is_kept_whole():
    assert len(AudioInput().decode(thumbnail(wav(tone(0.4)), 144))) == pytest.approx(0.4 * RATE, rel=0.01)


def test_what_is_no_sound_has_no_excerpt():
    with pytest.raises(UnsupportedFormat):
        thumbnail(b"\x89PNG\r\n\x1a\n", 96)
