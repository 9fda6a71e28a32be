"""Sound files: what is decoded, and what is refused."""

import struct

import numpy as np
import pytest

from polymodal.model.errors import InputError, ModelError
from polymodal.model.extras import import_extra
from polymodal.model.sound import RATE, decode, seconds_of
from tests.speech_models import pause, tone, wav

av = pytest.importorskip("av", reason="the extra speech is not installed")


def encoded(samples, suffix, codec, rate=48_000, **options):
    """Return a file that FFmpeg writes of samples (N,) at RATE."""
    import io

    content = io.BytesIO()
    with av.open(content, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=rate, **options)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=stream.layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = RATE
        fifo = av.AudioFifo()
        for output in [*resampler.resample(frame), *resampler.resample(None)]:
            output.pts = None
            fifo.write(output)
        size = stream.codec_context.frame_size or 4096
        while (output := fifo.read(size, partial=fifo.samples < size)) is not None:
            container.mux(stream.encode(output))
        container.mux(stream.encode(None))
    return content.getvalue()


def share_at(samples, hertz, rate=RATE):
    """Return the share of the energy within 20 Hz of a frequency."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / rate) - hertz) <= 20
    return spectrum[near].sum() / spectrum.sum()


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000]
)
def test_a_tone_has_the_same_length_and_frequency_at_every_rate(rate):
    sound = decode(wav(tone(1, hertz=1000, rate=rate), rate=rate), "audio")
    assert len(sound.samples) == pytest.approx(RATE, abs=RATE * 0.01)
    assert share_at(sound.samples, 1000) > 0.99
    assert np.abs(sound.samples).max() == pytest.approx(0.5, abs=0.02)


def test_what_is_above_half_the_rate_is_filtered_out():
    sound = decode(wav(tone(1, hertz=20_000, rate=48_000), rate=48_000), "audio")
    assert np.abs(sound.samples[1600:-1600]).max() < 0.01


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("ogg", "flac"),
        ("mp3", "libmp3lame"),
        ("mp4", "aac"),
        ("webm", "libopus"),
        ("matroska", "pcm_s16le"),
        ("adts", "aac"),
    ],
)
def test_a_tone_is_decoded_from_every_format(suffix, codec):
    sound = decode(encoded(tone(1), suffix, codec), "audio")
    assert len(sound.samples) == pytest.approx(RATE, abs=RATE * 0.15)
    assert share_at(sound.samples, 440) > 0.95


def test_channels_are_averaged():
    channels = np.stack([tone(1, 0.4), tone(1, 0.2)])
    assert np.abs(decode(wav(channels), "audio").samples).max() == pytest.approx(0.3, abs=0.01)


def test_the_louder_of_two_channels_that_cancel_each_other_is_taken():
    sound = decode(wav(np.stack([tone(1, 0.3), -tone(1, 0.3)])), "audio")
    assert sound.warnings == ("antiphase",)
    assert np.abs(sound.samples).max() == pytest.approx(0.3, abs=0.01)


def test_a_truncated_file_is_decoded_as_far_as_it_goes():
    whole = encoded(tone(2), "ogg", "libopus")
    sound = decode(whole[: len(whole) * 7 // 10], "audio")
    assert 0.5 * RATE < len(sound.samples) < 2 * RATE


@pytest.mark.parametrize("share", range(0, 100, 10))
@pytest.mark.parametrize(
    ("suffix", "codec"), [("flac", "flac"), ("mp4", "aac"), ("webm", "libopus"), ("mp3", "libmp3lame")]
)
def test_a_file_truncated_anywhere_is_decoded_or_refused(suffix, codec, share):
    whole = encoded(tone(2), suffix, codec)
    try:
        sound = decode(whole[: len(whole) * share // 100], "audio")
    except InputError:
        return
    assert np.isfinite(sound.samples).all()


def test_numbers_that_are_not_finite_are_silence_or_the_loudest_sound():
    samples = np.full(RATE, 0.5, "<f4")
    samples[100], samples[200] = np.nan, np.inf
    data = samples.tobytes()
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    )
    sound = decode(head + b"data" + struct.pack("<I", len(data)) + data, "audio")
    assert np.isfinite(sound.samples).all()
    assert np.abs(sound.samples).max() <= 1


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 2**31], ids=["zero", "streamed", "far-beyond-the-file"])
def test_a_wav_whose_header_has_a_wrong_size_is_read_to_its_end(size):
    content = bytearray(wav(tone(1)))
    content[40:44] = struct.pack("<I", size)
    assert len(decode(bytes(content), "audio").samples) == pytest.approx(RATE, abs=160)


def patched(at, value):
    content = bytearray(wav(tone(1)))
    content[at : at + len(value)] = value
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "code", "problem"),
    [
        pytest.param(b"", "undecodable", "no bytes", id="empty"),
        pytest.param(b"hello, this is text", "unsupported_format", "bytes that begin with 68 65 6c 6c", id="text"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + bytes(99), "unsupported_format", "bytes that begin with 89 50", id="picture"
        ),
        pytest.param(b"#EXTM3U\nhttp://x/a.ts", "unsupported_format", "bytes that begin with 23 45", id="playlist"),
        pytest.param(wav(tone(1))[:44], "undecodable", "0.00 s of sound", id="header-only"),
        pytest.param(wav(tone(0.05)), "undecodable", "0.05 s of sound", id="too-short"),
        pytest.param(patched(24, struct.pack("<I", 1)), "undecodable", "1 samples a second", id="rate-1"),
        pytest.param(patched(24, struct.pack("<I", 2**31 - 1)), "undecodable", "", id="rate-2**31"),
        pytest.param(patched(22, struct.pack("<H", 9)), "too_large", "9 channels", id="nine-channels"),
        pytest.param(patched(22, struct.pack("<H", 0)), "undecodable", "", id="no-channels"),
        pytest.param(b"OggS" + bytes(200), "undecodable", "format ogg", id="broken-ogg"),
        pytest.param(b"\xff\xfb" + bytes(500), "undecodable", "format mp3", id="broken-mp3"),
        pytest.param(b"\x00\x00\x00\x20ftypM4A " + bytes(500), "undecodable", "format mov", id="broken-m4a"),
        pytest.param(b"fLaC" + bytes(100), "undecodable", "", id="broken-flac"),
    ],
)
def test_what_is_no_sound_is_explained(content, code, problem):
    with pytest.raises(InputError) as error:
        decode(content, "audio")
    assert (error.value.code, error.value.input) == (code, "audio")
    assert problem in error.value.found


def test_more_seconds_than_allowed_are_refused_before_all_are_decoded():
    long = encoded(np.zeros(60 * RATE, np.float32), "ogg", "libopus")
    assert len(long) < 100_000
    with pytest.raises(InputError, match="audio: more than 5 s of sound; allowed: up to 5 s"):
        decode(long, "audio", longest_s=5)


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus")])
def test_the_seconds_of_a_file_are_estimated_without_decoding(suffix, codec):
    assert seconds_of(encoded(tone(3), suffix, codec)) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"OggS", b"fLaC", bytes(100), b"OggS" * 3, "text"])
def test_the_estimate_of_anything_is_a_number(content):
    assert 0 <= seconds_of(content) <= 600


def test_silence_is_decoded_as_silence():
    assert not decode(wav(pause(1)), "audio").samples.any()


def test_a_missing_package_names_its_extra():
    with pytest.raises(
        ModelError, match=r"the package nothing_like_it is not installed; pip install 'polymodal\[speech\]'"
    ):
        import_extra("nothing_like_it", "speech")
