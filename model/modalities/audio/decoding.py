"""Decode sounds block by block, by PyAV or, where it isn't installed, by soundfile (WAV and FLAC). Runs in workers alone.

C channels, S samples of a block.
"""

import ctypes
import io
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import soxr

from polymodal.model.errors import TooLarge
from polymodal.model.modalities.audio.formats import MOST_CHANNELS, Unread
from polymodal.model.types import FloatArray

BY_AV: Final = find_spec("av") is not None
LARGEST_ALLOCATION: Final = 64 * 2**20
"""Bytes of one allocation of FFmpeg, which believes what headers state: 4 kB of WAV can make it fill 2 GB with zeros."""
if BY_AV:
    import av

    if hasattr(
        _ffmpeg := ctypes.CDLL(av._core.__file__), "av_max_alloc"
    ):  # on Windows, its libraries aren't found this way
        _ffmpeg.av_max_alloc(ctypes.c_size_t(LARGEST_ALLOCATION))
else:
    import soundfile

Blocks = Iterator[tuple[int, FloatArray]]
"""Rates in Hz with samples from −1 to 1: float32 (C, S)."""

DEMUXERS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/mp4": "mov",
    "audio/aac": "aac",
    "audio/webm": "matroska",
}
"""FFmpeg's reader of each format: no other one is ever opened, such as those of playlists."""
CODECS: Final = frozenset({"mp1", "mp2", "mp3", "aac", "alac", "flac", "vorbis", "opus"}) | {
    "adpcm_ms", "adpcm_ima_wav", "adpcm_g722", "gsm_ms", "pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s16le", "pcm_s16be",
    "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be",
}  # fmt: skip
"""FFmpeg has some hundred more decoders, of formats that people don't send; each would be open to attacks."""
OPTIONS: Final = {
    "protocol_whitelist": "none",
    "probesize": "1000000",
    "analyzeduration": "2000000",
    "max_size": "65536",
}
"""No address is opened from within a file, and at most 1 MB is read ahead to recognise its streams. `max_size` is that of a
WAV's packets, which are short by default."""
MOST_STREAMS: Final = 16
MOST_PACKETS: Final = 400_000
"""Of one file; ten minutes of the shortest packets of Opus are 240,000."""
BLOCK: Final = 65_536  # samples of a channel
SUBTYPES: Final = frozenset({"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}) | {
    "IMA_ADPCM",
    "MS_ADPCM",
    "GSM610",
}


def resampler(rate: int, new_rate: int) -> Callable[[FloatArray, bool], FloatArray]:
    """Return a function that resamples consecutive pieces (S,), band-limited; its second argument marks the last one."""
    if rate == new_rate:
        return lambda piece, _last: piece
    stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32")
    return lambda piece, last: stream.resample_chunk(piece, last=last)


def _blocks_of_av(content: bytes, media_type: str, damaged: list[bool]) -> Blocks:
    """Yield FFmpeg's frames in blocks, because a frame may have as little as 16 samples, and each costs some time in Python.

    Raises ValueError for an error of FFmpeg, also where it has no memory for a size that the file states.
    """
    queue = _Queue()
    try:
        for frame in _frames(content, media_type, damaged):
            if not queue.takes(frame):
                yield from queue.blocks(0)
                queue = _Queue()
            queue.write(frame)
            yield from queue.blocks(BLOCK)
        yield from queue.blocks(0)
    except av.error.FFmpegError as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem


class _Queue:
    """Decoded frames of one layout, rate and format of samples."""

    def __init__(self) -> None:
        self._kind: tuple[str, str, int] | None = None
        self._frames = av.AudioFifo()
        self._converter: Any = None

    def takes(self, frame: "av.AudioFrame") -> bool:
        """Return whether a frame is like those before it."""
        return self._kind in (None, _kind_of(frame))

    def write(self, frame: "av.AudioFrame") -> None:
        """Append a frame."""
        if self._kind is None:
            self._kind, self._converter = _kind_of(frame), av.AudioResampler(format="flt", layout=frame.layout)
        frame.pts = None
        self._frames.write(frame)

    def blocks(self, least: int) -> Blocks:
        """Yield everything as a block if it has more than `least` samples.

        Converted by FFmpeg, not by `to_ndarray` of a decoded frame: PyAV 18 reads beyond the end of eight planes.
        """
        if self._kind is None or self._frames.samples <= least:
            return
        for packed in self._converter.resample(self._frames.read()):
            yield self._kind[2], packed.to_ndarray().reshape(-1, packed.layout.nb_channels).T


def _kind_of(frame: "av.AudioFrame") -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _frames(content: bytes, media_type: str, damaged: list[bool]) -> "Iterator[av.AudioFrame]":
    """Yield the frames of the first default sound track, without packets that are broken, which are noted in `damaged`.

    Raises ValueError if most are broken.
    """
    file, packets, broken = io.BytesIO(content), 0, 0
    with av.open(file, format=DEMUXERS[media_type], options=OPTIONS, metadata_errors="ignore") as container:
        if len(container.streams) > MOST_STREAMS:
            raise TooLarge("audio", f"{len(container.streams):,} streams", f"at most {MOST_STREAMS}")
        tracks = container.streams.audio
        if not tracks:
            raise Unread(f"{media_type} without a sound track", "send a file with sound")
        track = next((one for one in tracks if one.disposition & av.stream.Disposition.default), tracks[0])
        codec = track.codec_context.codec.canonical_name if track.codec_context else "that FFmpeg does not know"
        if codec not in CODECS:
            raise Unread(f"{media_type} with a codec {codec}")
        track.codec_context.thread_count = 1
        for packet in _until_broken(container.demux(track), damaged):
            packets += 1
            if packets > MOST_PACKETS:
                raise TooLarge("audio", f"more than {MOST_PACKETS:,} packets", "at most that many")
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                broken += 1
                damaged.append(True)
                continue
            for frame in frames:
                if frame.layout.nb_channels > MOST_CHANNELS:
                    raise TooLarge("audio", f"{frame.layout.nb_channels:,} channels", f"at most {MOST_CHANNELS}")
                yield frame
    if 2 * broken > packets:
        raise ValueError(f"{broken} of {packets} packets are broken")


def _until_broken(packets: "Iterator[av.Packet]", damaged: list[bool]) -> "Iterator[av.Packet]":
    """Yield packets until the container breaks off, which is noted; what came before is kept.

    Raises the error if nothing came before.
    """
    read = False
    try:
        for packet in packets:
            yield packet
            read = True
    except av.error.FFmpegError:
        if not read:
            raise
        damaged.append(True)


def _blocks_of_soundfile(content: bytes, media_type: str, damaged: list[bool]) -> Blocks:
    """Yield the blocks of a WAV or FLAC."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        if file.format not in ("WAV", "WAVEX", "RF64", "FLAC") or file.subtype not in SUBTYPES:
            raise Unread(f"{media_type} with a codec {file.subtype.lower()}")
        if file.channels > MOST_CHANNELS:
            raise TooLarge("audio", f"{file.channels:,} channels", f"at most {MOST_CHANNELS}")
        for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
            yield file.samplerate, block.T


MEDIA_TYPES: Final = tuple(DEMUXERS) if BY_AV else ("audio/wav", "audio/flac")
"""That this installation decodes."""
blocks: Final[Callable[[bytes, str, list[bool]], Blocks]] = _blocks_of_av if BY_AV else _blocks_of_soundfile
"""`blocks(content, media_type, damaged)` yields the blocks of a file, and appends to `damaged` for each piece that is
left out. Raises Unread, TooLarge, or any error of the library."""
