"""Sound files, decoded to mono samples by PyAV (extra `speech`), in a worker: never in the process that serves.

N samples, C channels.
"""

import io
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from polymodal.model.errors import TooLarge, Undecodable, UnsupportedFormat
from polymodal.model.extras import import_extra
from polymodal.model.types import FloatArray

RATE: Final = 16_000
"""Samples a second of decoded sound."""
LONGEST_S: Final = 600.0
SHORTEST_S: Final = 0.1
RATES: Final = (1_000, 768_000)
"""Lowest and highest rate of a file, in samples a second."""
CHANNELS: Final = 8
STREAMS: Final = 16
ANTIPHASE: Final = 0.01
"""If the mean of two channels has less than this share of the louder one's energy, that one is taken alone."""
MEDIA_TYPES: Final = ("audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "audio/mp4", "audio/webm", "audio/aac")
FORMATS: Final = "WAV, FLAC, Ogg, MP3, MP4 or M4A, WebM or Matroska, AAC"

ANTIPHASE_WARNING: Final = "antiphase"
DAMAGED_WARNING: Final = "damaged"

_BYTE_RATE: Final = 4_000
"""Bytes a second of a compressed file for which nothing better is known: 32 kbit/s."""
_MAGIC: Final = {
    b"RIFF": "wav", b"RF64": "wav", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3", b"\x1a\x45\xdf\xa3": "matroska",
}  # fmt: skip
_ATOMS: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})


class Sound(NamedTuple):
    """A decoded sound."""

    samples: FloatArray
    """(N,), at RATE, from -1 to 1."""
    warnings: tuple[str, ...]
    """ANTIPHASE_WARNING; DAMAGED_WARNING if a piece of the file could not be decoded."""


def decode(content: bytes, name: str, longest_s: float = LONGEST_S) -> Sound:
    """Decode a file to mono samples; its format is determined from its bytes. Memory is bounded by `longest_s`.

    `name`: the input, for errors. Raises UnsupportedFormat; Undecodable for a file that is broken or has less than SHORTEST_S of
    sound; TooLarge for more than `longest_s`, as soon as that much is decoded. Raises ModelError without PyAV.
    """
    demuxer = _demuxer_of(content, name)
    av = import_extra("av", "speech")
    pieces: list[FloatArray] = []
    length, damaged = 0, False
    try:
        # No protocol is allowed, so that a file that refers to others cannot make FFmpeg open them.
        with av.open(io.BytesIO(content), format=demuxer, options={"protocol_whitelist": "none"}) as container:
            for piece in _pieces(av, container, _audio_stream(container, name), name):
                if piece is None:
                    damaged = True
                    continue
                pieces.append(piece)
                length += piece.shape[1]
                if length > longest_s * RATE:
                    raise TooLarge(name, f"more than {longest_s:g} s of sound", f"up to {longest_s:g} s")
    except (av.FFmpegError, ValueError, EOFError) as problem:
        if not pieces:
            broken = f"a file of the format {demuxer} that cannot be decoded"
            raise Undecodable(name, broken, f"a whole file: {FORMATS}") from problem
        damaged = True
    if length < SHORTEST_S * RATE:
        raise Undecodable(name, f"{length / RATE:.2f} s of sound", f"at least {SHORTEST_S} s")
    samples, antiphase = _mono(pieces)
    return Sound(samples, (ANTIPHASE_WARNING,) * antiphase + (DAMAGED_WARNING,) * damaged)


def seconds_of(content: bytes | bytearray | str) -> float:
    """Estimate the seconds of sound in a file without decoding it, between 0 and LONGEST_S; takes microseconds."""
    if isinstance(content, str):
        return 0.0
    seconds = len(content) / _BYTE_RATE
    if content[:4] == b"RIFF" and (rate := int.from_bytes(content[28:32], "little")):
        seconds = len(content) / rate
    elif content[:4] == b"fLaC" and (rate := int.from_bytes(content[18:21], "big") >> 4):
        seconds = (int.from_bytes(content[21:26], "big") & (2**36 - 1)) / rate or seconds
    elif content[:4] == b"OggS" and (last := content.rfind(b"OggS")) > 0:
        rate = 48_000 if content[28:36] == b"OpusHead" else int.from_bytes(content[40:44], "little")
        seconds = int.from_bytes(content[last + 6 : last + 14], "little") / max(rate, 1)
    return min(max(seconds, SHORTEST_S), LONGEST_S)


def _demuxer_of(content: bytes, name: str) -> str:
    """Return FFmpeg's name of the format that the bytes show. Raises UnsupportedFormat or Undecodable."""
    if not content:
        raise Undecodable(name, "no bytes", f"a file: {FORMATS}")
    head = content[:16]
    for start, demuxer in _MAGIC.items():
        if head.startswith(start):
            return demuxer
    if head[4:8] in _ATOMS:
        return "mov"
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0:  # MPEG audio; layer 0 is ADTS
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    raise UnsupportedFormat(name, f"bytes that begin with {head[:8].hex(' ')}", FORMATS)


def _audio_stream(container: Any, name: str) -> Any:  # noqa: ANN401 — objects of PyAV
    """Return the first stream of sound, whose header is within the limits. Raises InputError."""
    if (count := len(container.streams)) > STREAMS:
        raise TooLarge(name, f"{count} streams", f"up to {STREAMS} streams")
    if not container.streams.audio:
        raise Undecodable(name, "a file without a stream of sound", "a file with sound")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise Undecodable(name, "a codec that is not known", FORMATS)
    _check(stream.codec_context.sample_rate, stream.codec_context.channels, name)
    return stream


def _check(rate: int, channels: int, name: str) -> None:
    """Raise InputError for a rate or a number of channels beyond the limits; 0 is not known yet."""
    lowest, highest = RATES
    if rate and not lowest <= rate <= highest:
        raise Undecodable(name, f"{rate} samples a second", f"{lowest} to {highest} samples a second")
    if channels > CHANNELS:
        raise TooLarge(name, f"{channels} channels", f"up to {CHANNELS} channels")


def _pieces(av: Any, container: Any, stream: Any, name: str) -> Iterator[FloatArray | None]:  # noqa: ANN401
    """Yield decoded pieces (C, n) at RATE, of one or two channels; None for a packet that cannot be decoded."""
    resampler, form = None, None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            yield None
            continue
        for frame in frames:
            frame.pts = None  # gaps and jumps of time stamps don't matter
            if form != (form_of_frame := (frame.format.name, frame.layout.name, frame.sample_rate)):
                yield from _resampled(resampler, None)
                _check(frame.sample_rate, frame.layout.nb_channels, name)
                resampler, form = av.AudioResampler(format="fltp", rate=RATE), form_of_frame
            yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


def _resampled(resampler: Any, frame: Any) -> Iterator[FloatArray]:  # noqa: ANN401
    if resampler is None:
        return
    for output in resampler.resample(frame):
        array: FloatArray = np.nan_to_num(output.to_ndarray(), nan=0.0, posinf=1.0, neginf=-1.0)
        yield array if len(array) <= 2 else array.mean(axis=0, keepdims=True)


def _mono(pieces: list[FloatArray]) -> tuple[FloatArray, bool]:
    """Return the mean of the channels (N,), at most 1 loud; the louder channel alone, and True, if they cancel each other."""
    rows = max(len(piece) for piece in pieces)
    channels = np.concatenate([np.broadcast_to(piece, (rows, piece.shape[1])) for piece in pieces], axis=1)
    pieces.clear()
    samples, energies = channels.mean(axis=0), np.square(channels).sum(axis=1)
    antiphase = rows > 1 and float(np.square(samples).sum()) < ANTIPHASE * float(energies.max())
    if antiphase:
        samples = channels[int(energies.argmax())].copy()
    loudest = float(np.abs(samples).max())
    return (samples / loudest if loudest > 1 else samples).astype(np.float32), antiphase
