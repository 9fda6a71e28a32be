"""Catalogue of unusual and hostile sounds with their expected answers; the same in every run.

An answer is a status and a problem's code, `ok` for 200, as in uploads.py. PyAV writes what the standard library can't.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import chain

import numpy as np

from tests.hostile.images import png
from tests.hostile.uploads import OK, TOO_LARGE, UNDECODABLE, UNSUPPORTED, edited
from tests.sounds import EXTENSIBLE, RATE, chunk, encoded, noise, pcm, riff, tone, wav, wav_header

ANY = "200 or 4xx"
"""Of broken files, from which some sound may be left."""
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 768_000)
TONE = tone()
STEREO = np.stack([TONE, tone(hertz=700)], axis=1)
DATA = chunk(b"data", pcm(TONE))
VAST_LIST = riff(
    wav_header(), chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 2**31 - 16) + b"Lavf60", size=2**31), size=2**32 - 1
)
"""62 bytes, for which FFmpeg would fill 2 GB with zeros."""
GUID = struct.pack("<HIH", 16, 0, 1) + b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"


@dataclass(frozen=True, slots=True)
class Sound:
    """A file for the field `audio`, and the status and code of the expected answer."""

    name: str
    content: bytes = field(repr=False)
    answer: str


def contents() -> Iterator[Sound]:
    """Unusual samples: all but a few of these are sounds."""
    hum = tone(hertz=50)
    with_nan, with_inf = TONE.copy(), TONE.copy()
    with_nan[100], with_inf[100] = np.nan, np.inf
    for name, samples in {
        "silence": np.zeros(8000),
        "white noise": noise(),
        "pink noise": np.cumsum(noise()) / 50,
        "a constant": np.full(8000, 0.5),
        "a hum of 50 Hz": hum,
        "clipping": np.sign(TONE),
        "one click": np.eye(1, 8000, 4000)[0],
        "the lowest level": TONE / 2**14,
        "exactly 0.1 s": TONE[:1600],
    }.items():
        yield Sound(name, wav(samples), OK)
    yield Sound("floats far above 1", wav(TONE * 1e30, bits="f32"), OK)
    yield Sound("the smallest floats", wav(np.full(8000, 1e-44), bits="f32"), OK)
    for bits in ("f32", "f64"):
        yield Sound(f"NaN in {bits}", wav(with_nan, bits=bits), UNDECODABLE)
        yield Sound(f"infinity in {bits}", wav(with_inf, bits=bits), UNDECODABLE)
    yield Sound("doubles that no float holds", wav(TONE * 1e300, bits="f64"), UNDECODABLE)


def lengths() -> Iterator[Sound]:
    """Next to nothing, and too much."""
    for count in (0, 1, 2, 159, 160, 1599):
        yield Sound(f"a WAV of {count} samples", wav(TONE[:count]), UNDECODABLE)
        if count:
            yield Sound(f"a FLAC of {count} samples", encoded("flac", "flac", TONE[:count]), UNDECODABLE)
    yield Sound("0.05 s at 48 kHz", wav(tone(0.05, rate=48_000), 48_000), UNDECODABLE)
    yield Sound("no bytes", b"", UNDECODABLE)
    yield Sound("600 s of 8 bits at 8 kHz", wav(np.zeros(600 * 8000), 8000, 8), OK)
    yield Sound("601 s of 8 bits at 8 kHz", wav(np.zeros(601 * 8000), 8000, 8), TOO_LARGE)
    yield Sound("an hour at 1 kHz", wav(np.zeros(3_600_000), 1000, 8), TOO_LARGE)


def rates() -> Iterator[Sound]:
    """Usual sampling rates, those at the limits, and absurd ones."""
    for rate in RATES:
        yield Sound(f"a WAV of {rate} Hz", wav(tone(0.3, rate=rate), rate), OK)
    for rate in (1_000, 1_001, 7_919, 655_350, 767_999):
        yield Sound(f"a WAV of {rate} Hz", wav(tone(0.3, 100, rate=rate), rate), OK)
    for rate in (0, 1, 100, 999, 768_001, 2_000_000, 2**31 - 1, 2**31, 2**32 - 1):
        yield Sound(f"a WAV of {rate} Hz", wav(TONE, rate), UNDECODABLE)


def samples() -> Iterator[Sound]:
    """Formats of samples in a WAV."""
    for bits in (8, 16, 24, 32, "f32", "f64"):
        yield Sound(f"samples of {bits}", wav(TONE, bits=bits), OK)
        yield Sound(f"stereo samples of {bits}", wav(STEREO, bits=bits), OK)
    for codec in ("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "g722"):
        yield Sound(f"a WAV of {codec}", encoded(codec, "wav", TONE), OK)
    gsm = riff(
        wav_header(bits=0, kind=0x31, align=65, rate=8000, more=struct.pack("<HH", 2, 320)),
        chunk(b"data", bytes(65 * 40)),
    )
    yield Sound("a WAV of GSM", gsm, OK)
    for bits, kind in ((16, 0), (16, 0x2000), (16, 0x55AA), (16, 0x0200), (0, 1), (1, 1), (65, 1), (128, 3)):
        answer = OK if bits == 1 else UNSUPPORTED  # FFmpeg reads one bit as eight
        yield Sound(
            f"a WAV of format {kind:#x} of {bits} bits", riff(wav_header(bits=bits, kind=kind, align=2), DATA), answer
        )
    big = encoded("pcm_s16be", "aiff", TONE)
    yield Sound("AIFF", big, UNSUPPORTED)
    yield Sound("AU", encoded("pcm_s16be", "au", TONE), UNSUPPORTED)


def channels() -> Iterator[Sound]:
    """One to eight channels, more, and none."""
    for count in range(1, 9):
        yield Sound(f"{count} channels", wav(np.stack([TONE] * count, axis=1)), OK)
    eight = np.stack([tone(rate=48_000)] * 8, axis=1)  # in planes, which crashed PyAV
    for codec, container in (("libopus", "ogg"), ("aac", "mp4"), ("flac", "flac")):
        yield Sound(f"8 channels of {codec}", encoded(codec, container, eight, 48_000, "7.1"), OK)
    yield Sound("anti-phase stereo", wav(np.stack([TONE, -TONE], axis=1)), OK)
    yield Sound("one silent channel", wav(np.stack([TONE, 0 * TONE], axis=1)), OK)
    for count in (9, 16, 64):
        yield Sound(f"{count} channels", wav(np.stack([TONE] * count, axis=1)), TOO_LARGE)
    yield Sound("no channels", riff(wav_header(channels=0, align=2), DATA), UNDECODABLE)
    yield Sound("65,535 channels", riff(wav_header(channels=65_535, align=0xFFFE), DATA), UNDECODABLE)


def headers() -> Iterator[Sound]:
    """Headers of a WAV that lie, or have more than usual."""
    head, content = wav_header(), pcm(TONE)
    extensible = wav_header(
        kind=EXTENSIBLE,
        more=GUID[:2].replace(b"\x10", b"\x16") + struct.pack("<HI", 16, 4) + struct.pack("<H", 1) + GUID[8:],
    )
    beginnings = {
        "data of 0 bytes stated, as of a stream": (riff(head, chunk(b"data", content, size=0)), OK),
        "data of 4 GB stated": (riff(head, chunk(b"data", content, size=0xFFFFFFFF), size=0xFFFFFFFF), OK),
        "data of 4 GB stated, but none": (
            riff(head, chunk(b"data", b"", size=0xFFFFFFFF), size=0xFFFFFFFF),
            UNDECODABLE,
        ),
        "data of an odd size": (riff(head, chunk(b"data", content[:-1])), OK),
        "data beyond the end": (riff(head, chunk(b"data", content, size=2 * len(content))), OK),
        "LIST before data": (riff(head, chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 6) + b"Lavf60"), DATA), OK),
        "100 chunks before data": (riff(head, *[chunk(b"junk", bytes(8))] * 100, DATA), OK),
        "WAVE_FORMAT_EXTENSIBLE": (riff(extensible, DATA), OK),
        "RF64": (encoded("pcm_s16le", "wav", TONE, rf64="always"), OK),
        "Broadcast WAV": (encoded("pcm_s16le", "wav", TONE, write_bext=1), OK),
        "no chunk fmt": (riff(DATA), UNDECODABLE),
        "fmt after data": (riff(DATA, head), OK),
        "header only": (riff(head), UNDECODABLE),
        "a fmt of 4 bytes": (riff(chunk(b"fmt ", b"\x01\x00\x01\x00"), DATA), UNDECODABLE),
        "a fmt of 4 GB": (riff(chunk(b"fmt ", bytes(16), size=0xFFFFFFF0), DATA), UNDECODABLE),
        "a block of 65,535 bytes": (riff(wav_header(align=65_535), DATA), OK),
        "a block of no bytes": (riff(wav_header(align=0), DATA), OK),
        "only RIFF and WAVE": (b"RIFF\x04\x00\x00\x00WAVE", UNDECODABLE),
        "big-endian RIFX": (b"RIFX" + riff(head, DATA)[4:], UNSUPPORTED),
        "Wave64": (encoded("pcm_s16le", "w64", TONE), UNSUPPORTED),
        "a second WAV behind": (wav(TONE) + wav(TONE), OK),
        "zeros behind": (wav(TONE) + bytes(5000), OK),
    }
    for name, (content, answer) in beginnings.items():
        yield Sound(f"WAV: {name}", content, answer)


@cache
def written() -> dict[str, bytes]:
    """Return a sound in every accepted pair of container and codec, by name."""
    at_48, at_44 = tone(0.6, rate=48_000), tone(0.6, rate=44_100)
    return {
        "flac": encoded("flac", "flac", TONE),
        "opus in ogg": encoded("libopus", "ogg", at_48, 48_000),
        "flac in ogg": encoded("flac", "ogg", TONE),
        "mp3": encoded("libmp3lame", "mp3", at_44, 44_100),
        "mp3 without Xing": encoded("libmp3lame", "mp3", at_44, 44_100, write_xing=0),
        "mp2": encoded("mp2", "mp2", at_44, 44_100),
        "aac in mp4": encoded("aac", "mp4", at_44, 44_100),
        "fragmented mp4": encoded("aac", "mp4", at_44, 44_100, movflags="frag_keyframe+empty_moov"),
        "alac in mp4": encoded("alac", "ipod", at_44, 44_100),
        "mp3 in mp4": encoded("libmp3lame", "mp4", at_44, 44_100),
        "flac in mp4": encoded("flac", "mp4", TONE),
        "opus in mp4": encoded("libopus", "mp4", at_48, 48_000),
        "aac in 3gp": encoded("aac", "3gp", at_44, 44_100),
        "aac in mov": encoded("aac", "mov", at_44, 44_100),
        "adts": encoded("aac", "adts", at_44, 44_100),
        "opus in webm": encoded("libopus", "webm", at_48, 48_000),
        "live webm": encoded("libopus", "webm", at_48, 48_000, live=1),
        "flac in matroska": encoded("flac", "matroska", TONE),
        "aac in matroska": encoded("aac", "matroska", at_44, 44_100),
    }


def containers() -> Iterator[Sound]:
    """Every accepted container and codec, and others."""
    for name, content in written().items():
        yield Sound(name, content, OK)
    for codec, container in (
        ("ac3", "ac3"),
        ("wavpack", "wv"),
        ("tta", "tta"),
        ("pcm_s16le", "caf"),
        ("aac", "mpegts"),
        ("ac3", "mp4"),
        ("ac3", "matroska"),
        ("pcm_s16le", "avi"),
        ("aac", "flv"),
    ):
        yield Sound(f"{codec} in {container}", encoded(codec, container, tone(0.6, rate=44_100), 44_100), UNSUPPORTED)
    frame = b"APIC" + struct.pack(">IH", 2000, 0) + b"\x00image/png\x00\x03\x00" + png() + bytes(2000)
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, 20, 0]) + frame[: 20 * 128].ljust(20 * 128, b"\x00")
    yield Sound("mp3 behind an ID3 tag with a picture", tag + written()["mp3"], OK)
    yield Sound("flac behind an ID3 tag", tag + written()["flac"], OK)
    yield Sound("adts behind an ID3 tag", tag + written()["adts"], OK)
    yield Sound("an ID3 tag alone", tag, UNDECODABLE)
    yield Sound("an ID3 tag of 256 MB", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + written()["mp3"], UNDECODABLE)
    yield Sound("chained ogg", written()["opus in ogg"] * 2, OK)
    yield Sound("chained ogg of two codecs", written()["opus in ogg"] + written()["flac in ogg"], OK)
    yield Sound("two mp3 one after the other", written()["mp3"] * 2, OK)
    yield Sound(
        "mp3 behind garbage", noise(0.05).tobytes()[:3000].replace(b"\xff", b"\xfe") + written()["mp3"], UNSUPPORTED
    )
    yield Sound("flac without its MD5", edited(written()["flac"], 26, bytes(16)), OK)
    yield Sound("a film without sound", film(sounds=0), UNSUPPORTED)
    yield Sound("a film with two sound tracks", film(sounds=2), OK)
    yield Sound("17 sound tracks", film(sounds=17), TOO_LARGE)


@cache
def film(sounds: int) -> bytes:
    """Return a Matroska film of one grey frame with this number of tracks of silence."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        video = None if sounds == 17 else out.add_stream("mpeg4", rate=1)
        if video:
            video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        tracks = [out.add_stream("flac", rate=RATE, layout="mono") for _ in range(sounds)]
        for frame in [av.VideoFrame(16, 16, "yuv420p")] if video else []:
            out.mux(video.encode(frame))
            out.mux(video.encode(None))
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(
                (noise() * 9000).astype(np.int16)[None, :4096], format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return file.getvalue()


def cut_off() -> Iterator[Sound]:
    """Formats cut off at every tenth: what remains is decoded, unless it is shorter than 0.1 s or has lost its index."""
    whole = {
        "WAV": wav(tone(1.5)),
        "flac": encoded("flac", "flac", noise(4.0)),
        "mp3": encoded("libmp3lame", "mp3", tone(1.5, rate=44_100), 44_100),
        "ogg": encoded("libopus", "ogg", noise(3.0, rate=48_000), 48_000, page_duration=100_000),
        "webm": encoded("libopus", "webm", noise(3.0, rate=48_000), 48_000),
        "mp4": encoded("aac", "mp4", noise(1.5, rate=44_100), 44_100),
    }
    for name, content in whole.items():
        for tenth in range(1, 10):
            answer = UNDECODABLE if name == "mp4" else OK  # an mp4 has its index at the end
            yield Sound(f"{name} cut off at {tenth}/10", content[: len(content) * tenth // 10], answer)
        for length in (4, 12, 30):
            answer = UNSUPPORTED if (name, length) in (("WAV", 4), ("mp4", 4)) else UNDECODABLE
            yield Sound(f"{name} cut off after {length} bytes", content[:length], answer)


def broken() -> Iterator[Sound]:
    """Formats with noise over most of them."""
    chance = np.random.default_rng(5)
    for name, content in written().items():
        for share in (2, 10):
            damaged = np.frombuffer(content, dtype=np.uint8).copy()
            places = chance.integers(len(content) // 8, len(content), len(content) // share)
            damaged[places] = chance.integers(0, 256, len(places))
            yield Sound(f"{name} with 1/{share} of its bytes changed", damaged.tobytes(), ANY)


def bombs() -> Iterator[Sound]:
    """Small files that would become large."""
    flac, rate_and_channels = encoded("flac", "flac", np.zeros(RATE)), 18
    for hertz in (655_350, 0):  # frames have their own rate
        forged = (hertz << 12 | int.from_bytes(flac[18:22]) & 0xFFF).to_bytes(4)
        yield Sound(f"flac of {hertz} Hz by its header", edited(flac, rate_and_channels, forged), OK)
    eight = np.stack([noise(0.2, rate=655_350)] * 8, axis=1)
    yield Sound("flac of 655,350 Hz and 8 channels", encoded("flac", "flac", eight, 655_350, "7.1"), ANY)
    yield Sound("flac of 2³⁶ samples by its header", edited(flac, 22, b"\xff" * 4), OK)
    yield Sound("opus of an hour at 6 kbit/s", opus_hum() * 180, TOO_LARGE)
    yield Sound("flac of an hour of silence", encoded("flac", "flac", np.zeros(3600 * 8000), 8000), TOO_LARGE)
    yield Sound(
        "an mp4 whose box is 2⁶³ bytes long",
        b"\x00\x00\x00\x01moov" + struct.pack(">Q", 2**63 - 1) + bytes(99),
        UNSUPPORTED,
    )
    yield Sound(
        "an mp4 of 20,000 boxes in one another",
        b"".join(struct.pack(">I", 0x7FFFFFF0 - 8 * n) + b"moov" for n in range(20_000)),
        UNDECODABLE,
    )
    yield Sound("a WAV whose LIST states 2 GB", VAST_LIST, UNDECODABLE)
    yield Sound("1 MB of MP3's sync", b"\xff\xfb\x90\x00" * 250_000, ANY)
    yield Sound("1 MB of OggS", b"OggS" * 250_000, UNDECODABLE)
    yield Sound(
        "a webm of elements of unknown size", b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" * 10_000, UNDECODABLE
    )


@cache
def opus_hum() -> bytes:
    """Return 20 s of a low hum as Opus at 6 kbit/s: 20 kB. Copies in a row are one chained file."""
    return encoded("libopus", "ogg", tone(20, 60, 8000), 8000, bit_rate=6000)


def strangers() -> Iterator[Sound]:
    """Other kinds of files, with names of sounds."""
    for name, content in {
        "a PNG": png(),
        "a JPEG": b"\xff\xd8\xff\xe0" + bytes(200),
        "a GIF": b"GIF89a" + bytes(50),
        "a WebP": b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(9),
        "an AVI": b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(9),
        "a HEIC": b"\x00\x00\x00\x18ftypheic" + bytes(40),
        "a PDF": b"%PDF-1.7\n" + bytes(99),
        "a ZIP": b"PK\x03\x04" + bytes(99),
        "a gzip": b"\x1f\x8b\x08" + bytes(99),
        "a text": b"hello, this is no sound",
        "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "a DASH manifest": b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1/a</BaseURL></MPD>',
        "an address": b"http://127.0.0.1:9/a.wav",
        "a data URI": b"data:audio/wav;base64,UklGRg==",
        "base64": b"UklGRogAAABXQVZF",
        "MIDI": b"MThd\x00\x00\x00\x06" + bytes(40),
        "AMR": b"#!AMR\n" + bytes(99),
        "WMA": b"0&\xb2u\x8ef\xcf\x11" + bytes(99),
        "FLV": b"FLV\x01\x05" + bytes(99),
        "RealAudio": b".ra\xfd" + bytes(99),
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "zeros": bytes(1000),
        "noise": b"\x01" + noise(0.02).tobytes(),
    }.items():
        yield Sound(name, content, UNSUPPORTED)


GROUPS = {
    group.__name__: group
    for group in (contents, lengths, rates, samples, channels, headers, containers, cut_off, broken, bombs, strangers)
}


def sounds() -> list[Sound]:
    """Return the whole catalogue; names are unique."""
    return list(chain.from_iterable(group() for group in GROUPS.values()))
