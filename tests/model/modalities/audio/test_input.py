"""Sounds of every rate, layout and format become the same log-mel windows; anything else is rejected, within bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polymodal.model.errors import InputError, TooLarge, Undecodable, UnsupportedFormat
from polymodal.model.modalities import MODALITIES, prepare, workload
from polymodal.model.modalities.audio.input import AudioInput, accepted
from polymodal.model.modalities.audio.spectrum import FLOOR, MELS, RATE, log_mel, window_samples
from tests.sounds import noise, pcm, tone, wav

av = pytest.importorskip("av", reason="PyAV is of the extra audio")
from tests.hostile import sounds  # noqa: E402
from tests.sounds import encoded  # noqa: E402

PROJECT = Path(__file__).parents[4]
INPUT = AudioInput()


def windows(content, entry=INPUT):
    return entry.preprocess(entry.decode(content))


def damaged(content):
    """Return a file with zeros in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


# --- decoding ---


@pytest.mark.parametrize("rate", sounds.RATES)
def test_a_tone_has_the_same_windows_at_every_rate(rate):
    """Band-limited: what resampling adds or removes is far below the tone. The edges of the tone differ by its transient."""
    at_16_khz, at_rate = (windows(wav(tone(2.0, rate=hertz), hertz))[1:3] for hertz in (RATE, rate))
    loud = at_16_khz > FLOOR + 2.0
    assert loud.mean() > 0.05
    assert np.abs(at_rate - at_16_khz)[loud].max() < 0.1


def test_a_tone_above_half_of_the_new_rate_is_removed_not_folded():
    above = INPUT.decode(wav(tone(1.0, 11_000, rate=44_100), 44_100))
    assert np.abs(above[1000:-1000]).max() < 0.001


@pytest.mark.parametrize("bits", [8, 16, 24, 32, "f32", "f64"])
def test_samples_keep_their_amplitude(bits):
    samples = INPUT.decode(wav(tone(), bits=bits))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(), atol=0.01 if bits == 8 else 1e-4)


@pytest.mark.parametrize("name", sorted(sounds.written()))
def test_every_container_gives_the_sound(name):
    energies = windows(sounds.written()[name]).mean(axis=(0, 1))
    assert abs(int(energies.argmax()) - int(windows(wav(tone())).mean(axis=(0, 1)).argmax())) <= 1


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        pytest.param(lambda sound: [sound, sound], 1.0, id="equal"),
        pytest.param(lambda sound: [sound, 0 * sound], 0.5, id="one-silent"),
        pytest.param(lambda sound: [sound, -sound], 1.0, id="anti-phase"),
        pytest.param(lambda sound: [-0.5 * sound, 0.5 * sound], -0.5, id="anti-phase-and-quieter"),
        pytest.param(lambda sound: [0 * sound] * 7 + [sound], 0.125, id="one-of-eight"),
    ],
)
def test_channels_are_averaged_unless_they_cancel_each_other(channels, expected):
    samples = INPUT.decode(wav(np.stack(channels(tone()), axis=1)))
    np.testing.assert_allclose(samples, expected * tone(), atol=1e-3)


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        pytest.param(wav(np.stack([tone(), tone()], axis=1)), (), id="whole"),
        pytest.param(wav(np.stack([tone(), -tone()], axis=1)), ("antiphase",), id="cancelled"),
        pytest.param(damaged(sounds.written()["mp3"]), ("damaged",), id="damaged"),
    ],
)
def test_what_was_changed_or_left_out_is_a_warning(content, warnings):
    assert INPUT.listen(content).warnings == warnings


def test_the_first_default_track_is_decoded():
    assert len(INPUT.decode(sounds.film(2))) > 0.1 * RATE


def test_a_chained_file_is_decoded_to_its_end_with_the_rate_of_each_link():
    content = sounds.written()["opus in ogg"] + encoded("libopus", "ogg", tone(0.5, rate=24_000), 24_000)
    assert len(INPUT.decode(content)) == pytest.approx(1.1 * RATE, rel=0.05)


# --- limits and errors ---


@pytest.mark.parametrize("group", sounds.GROUPS)
def test_every_sound_of_the_catalogue_gets_its_answer(group):
    wrong = {}
    for sound in sounds.GROUPS[group]():
        try:
            array = windows(sound.content)
            assert array.shape[1:] == (96, MELS)
            assert np.isfinite(array).all()
            answer = sounds.OK
        except InputError as error:
            answer = f"{error.status} {error.code}"
        if answer != sound.answer and (sound.answer != sounds.ANY or answer[0] not in "24"):
            wrong[sound.name] = f"{answer} instead of {sound.answer}"
    assert wrong == {}


def test_the_catalogue_has_hundreds_of_sounds_with_unique_names():
    names = [sound.name for sound in sounds.sounds()]
    assert len(names) >= 150
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        pytest.param(b"", Undecodable, f"audio: 0 bytes; allowed: a whole sound ({accepted()})", id="no-bytes"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n",
            UnsupportedFormat,
            f"audio: image/png; allowed: {accepted()}; send the bytes of a sound",
            id="picture",
        ),
        pytest.param("words", UnsupportedFormat, "audio: text instead of the bytes of a sound", id="text"),
        pytest.param(
            wav(tone(0.05)), Undecodable, "audio: 0.050 s of sound; allowed: at least 0.1 s of sound", id="short"
        ),
        pytest.param(
            wav(tone(), 100), Undecodable, "audio: a sampling rate of 100 Hz; allowed: from 1,000 to 768,000 Hz", id="rate"
        ),
        pytest.param(
            wav(np.zeros((800, 9))), TooLarge, "audio: 9 channels; allowed: at most 8", id="channels"
        ),
        pytest.param(
            wav(np.full(8000, np.nan), bits="f32"),
            Undecodable,
            "audio: samples that are not finite numbers; allowed: a sound of finite numbers",
            id="nan",
        ),
        pytest.param(
            sounds.film(0), UnsupportedFormat, "audio: audio/webm without a sound track; allowed: ", id="silent-film"
        ),
        pytest.param(
            encoded("ac3", "mp4", tone(rate=48_000), 48_000),
            UnsupportedFormat,
            "audio: audio/mp4 with a codec ac3; allowed: ",
            id="codec",
        ),
        pytest.param(
            encoded("pcm_s16be", "aiff", tone()), UnsupportedFormat, "audio: audio/aiff; allowed: ", id="aiff"
        ),
    ],
)  # fmt: skip
def test_a_rejected_sound_is_explained(content, kind, message):
    with pytest.raises(kind) as caught:
        INPUT.decode(content)
    assert str(caught.value).startswith(message)


def test_the_limit_in_seconds_ends_decoding():
    entry = AudioInput(max_seconds=2)
    assert len(entry.decode(wav(tone(2.0)))) == 2 * RATE
    with pytest.raises(TooLarge, match="audio: more than 2 s of sound; allowed: at most 2 s"):
        entry.decode(wav(tone(3.0)))


BOMBS = """
import json, resource, sys, time
from polymodal.model.errors import InputError
from polymodal.model.modalities.audio.input import AudioInput, wav
import numpy as np
entry = AudioInput()
entry.preprocess(entry.decode(wav(np.zeros(16000))))
content = open(sys.argv[1], "rb").read() * int(sys.argv[2])
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    entry.preprocess(entry.decode(content))
    answer = "200 ok"
except InputError as error:
    answer = f"{error.status} {error.code}"
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"answer": answer, "mib": (after - before) / 1024, "seconds": time.process_time() - started}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "times", "answer"),
    [
        pytest.param(sounds.opus_hum, 1000, sounds.TOO_LARGE, id="opus-of-five-hours-in-20-MB"),
        pytest.param(lambda: wav(np.zeros(600 * 8000), 8000, 8), 1, sounds.OK, id="ten-minutes"),
        pytest.param(
            lambda: sounds.riff(sounds.wav_header(), sounds.chunk(b"data", pcm(noise(5)), size=2**32 - 1), size=2**32 - 1),
            1,
            sounds.OK,
            id="wav-that-promises-4-GB",
        ),
        pytest.param(
            lambda: encoded("flac", "flac", np.zeros(600 * 8000), 8000), 1, sounds.OK, id="flac-of-ten-minutes"
        ),
        pytest.param(lambda: sounds.VAST_LIST, 1, sounds.UNDECODABLE, id="wav-whose-list-states-2-GB"),
    ],
)  # fmt: skip
def test_memory_is_bounded_for_any_sound(tmp_path, content, times, answer):
    """The decoded samples of ten minutes take 37 MiB, and twice that while they are joined."""
    file = tmp_path / "sound"
    file.write_bytes(content())
    command = [sys.executable, "-c", BOMBS, str(file), str(times)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=PROJECT)
    measured = json.loads(done.stdout)
    assert measured["answer"] == answer
    assert measured["mib"] < 128, measured


def test_a_file_is_never_opened_by_an_address_within_another(tmp_path):
    """The only demuxers are those of the table, and protocols are switched off."""
    from polymodal.model.modalities.audio import decoding

    assert set(decoding.DEMUXERS.values()) == {"wav", "flac", "ogg", "mp3", "mov", "aac", "matroska"}
    assert decoding.OPTIONS["protocol_whitelist"] == "none"


# --- windows ---


def test_windows_overlap_by_half_and_the_last_is_padded_with_silence():
    assert window_samples(96) == 15_600
    for samples, count in ((1_600, 1), (15_600, 1), (15_601, 2), (15_600 + 7_680, 2), (15_600 + 7_681, 3)):
        array = INPUT.preprocess(np.full(samples, 0.1, dtype=np.float32))
        assert array.shape == (count, 96, MELS)
        assert array.dtype == np.float32
    short = INPUT.preprocess(noise(0.1).astype(np.float32))[0]
    assert (short[20:] == np.float32(FLOOR)).all()
    assert short[:8].min() > FLOOR


def test_a_long_sound_is_represented_over_its_whole_length():
    samples = np.concatenate([np.zeros(40 * RATE), noise(40)]).astype(np.float32)
    array = AudioInput(max_windows=8).preprocess(samples)
    assert len(array) == 8
    assert [bool(window.mean() > FLOOR + 1) for window in array] == [False] * 4 + [True] * 4


def test_the_spectrum_is_that_of_its_definition():
    """A tone's energy is in the band whose triangle is highest there; silence is the floor."""
    silence = log_mel(np.zeros(window_samples(96), dtype=np.float32), 96)
    np.testing.assert_allclose(silence, FLOOR, atol=1e-6)
    edges = 700 * np.expm1(np.linspace(*(1127 * np.log1p(hertz / 700) for hertz in (125, 7500)), MELS + 2) / 1127)
    for band in (5, 30, 60):
        energies = log_mel(tone(1.0, edges[band + 1]).astype(np.float32)[: window_samples(96)], 96)
        assert (energies.argmax(axis=1) == band).all()


def test_a_batch_is_padded_and_masked():
    short, long = (INPUT.preprocess(noise(seconds).astype(np.float32)) for seconds in (0.5, 2.5))
    batch = INPUT.collate([short, long])
    assert batch["windows"].shape == (2, len(long), 96, MELS)
    assert batch["mask"].sum(axis=1).tolist() == [1, len(long)]
    assert (batch["windows"][0, 1:] == np.float32(FLOOR)).all()
    np.testing.assert_array_equal(batch["windows"][1], long)


# --- the table ---


def test_the_example_of_the_table_is_the_shortest_sound():
    import base64

    example = base64.b64decode(MODALITIES["audio"].example.partition(",")[2])
    assert len(INPUT.decode(example)) == 0.1 * RATE


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        pytest.param(wav(tone(2.0)), 2.0, id="wav"),
        pytest.param(encoded("flac", "flac", tone(2.0)), 2.0, id="flac"),
        pytest.param(bytes(16_000), 2.0, id="unknown"),
        pytest.param(b"", 0.1, id="no-bytes"),
    ],
)
def test_the_workload_is_estimated_in_seconds_without_decoding(content, seconds):
    assert workload({"audio": content}) == {"audio": pytest.approx(seconds, rel=0.01)}


def test_probes_are_sounds():
    (probe,) = INPUT.probes()
    small, large = (workload({"audio": content})["audio"] for content in (probe.small, probe.large))
    assert (round(small), round(large), probe.most) == (1, 10, 600.0)
    assert prepare({"audio": INPUT}, {"audio": probe.small})["audio"].shape == (2, 96, MELS)


def test_settings_are_those_that_load_needs(tmp_path):
    entry = AudioInput(max_windows=8, max_seconds=30)
    assert AudioInput.load(entry.settings(), tmp_path) == entry
    assert entry.describe().limits == {"max_seconds": 30, "max_channels": 8, "max_windows": 8}


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # as if it were not installed
"""


def run_without(packages: str, code: str) -> str:
    command = [sys.executable, "-c", WITHOUT + code, packages]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=PROJECT).stdout


def test_wav_and_flac_are_decoded_by_soundfile_where_pyav_is_missing():
    pytest.importorskip("soundfile", reason="soundfile is of the extra soundfile")
    code = """
from polymodal.model.errors import InputError
from polymodal.model.modalities.audio.input import AudioInput
from tests.sounds import tone, wav
import io, numpy as np, soundfile
file = io.BytesIO()
soundfile.write(file, tone(rate=44100), 44100, format="FLAC")
for content in (wav(tone(rate=8000), 8000), file.getvalue(), wav(np.zeros((800, 9))), b"OggS"):
    try:
        print(len(AudioInput().decode(content)))
    except InputError as error:
        print(error)
print(AudioInput().describe().media_types)
"""
    assert run_without("av", code).splitlines() == [
        "8000",
        "8000",
        "audio: 9 channels; allowed: at most 8",
        "audio: audio/ogg, for which this installation has no decoder; allowed: audio/wav, audio/flac; "
        "pip install 'polymodal[audio]' brings PyAV, which decodes them",
        "('audio/wav', 'audio/flac')",
    ]


def test_a_missing_decoder_is_named_with_the_cure():
    code = """
from pathlib import Path
from polymodal.model.errors import InputError, ModelError
from polymodal.model.modalities.audio.input import AudioInput
for act in (lambda: AudioInput().decode(b"RIFF"), lambda: AudioInput.load({}, Path())):
    try:
        act()
    except ModelError as error:
        print(type(error).__name__, error)
"""
    cure = "pip install 'polymodal[audio]' brings PyAV, which decodes them"
    assert (
        run_without("av,soundfile", code).splitlines()
        == [f"ModelError sounds can't be decoded, because soundfile is not installed; {cure}"] * 2
    )


def test_estimating_the_work_loads_no_decoder():
    code = """
from polymodal.model.modalities import workload
workload({"audio": b"RIFF"})
print(sorted({"av", "soxr", "soundfile"} & set(sys.modules)))
"""
    assert run_without("none", code) == "[]\n"
