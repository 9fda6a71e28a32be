"""Decode sounds and make them log-mel windows (steps 2 and 3 of a request).

C channels, S samples at 16 kHz, N windows of one sound, F frames of a window, M mel bands; B sounds in a batch.
"""

import io
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np

from polymodal.model.errors import InputError, ModelError, TooLarge, Undecodable, UnsupportedFormat
from polymodal.model.modalities.audio.formats import MOST_CHANNELS, Unread, seconds_of, sniff, unread
from polymodal.model.modalities.audio.spectrum import FLOOR, HOP, MELS, RATE, log_mel, window_samples
from polymodal.model.types import Array, FloatArray, InputSpec, Probe, Workload

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
LEAST_SECONDS: Final = 0.1
MOST_VALUES: Final = 600 * 48_000 * MOST_CHANNELS
"""Samples of all channels that are decoded: ten minutes of eight channels at 48 kHz. A silent FLAC of few bytes may hold more."""
SLACK_SECONDS: Final = 0.5
"""Encoders add up to some thousand samples at both ends."""
CANCELLED: Final = 0.01
"""Least energy of the mean of the channels, of that of the loudest channel: less when the channels cancel each other."""
CURE: Final = "pip install 'polymodal[audio]' brings PyAV, which decodes them"


ANTIPHASE: Final = "antiphase"
"""Warning: the channels cancelled each other, and the loudest one was taken."""
DAMAGED: Final = "damaged"
"""Warning: a piece of the file could not be decoded, and was left out."""


class Sound(NamedTuple):
    """A decoded sound."""

    samples: FloatArray
    """(S,), from −1 to 1."""
    warnings: tuple[str, ...]
    """ANTIPHASE, DAMAGED."""


Resample = Callable[[FloatArray, bool], FloatArray]
"""Resamples consecutive pieces (S,); its second argument marks the last one."""


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Decodes a sound and cuts it into overlapping windows of `frames` × 64 log-mel energies.

    A sound of more than `max_windows` windows is represented by that many, at equal distances over its whole length.
    """

    frames: int = 96
    """F, of 10 ms."""
    hop: int = 48
    """Frames from one window to the next."""
    max_windows: int = 20
    max_seconds: int = 600

    name: ClassVar[str] = "audio"
    files: ClassVar[tuple[str, ...]] = ()
    free_axes: ClassVar[Mapping[str, Mapping[int, str]]] = {"windows": {1: "windows"}, "mask": {1: "windows"}}

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from this input's entry in a bundle's config.json. Raises ModelError where no sound can be decoded."""
        check_installed()
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that `load` needs."""
        return asdict(self)

    def save(self, folder: Path) -> None:
        """Write nothing, because this input has no files."""

    def describe(self) -> InputSpec:
        """Return accepted formats, and limits in seconds (longer sounds are rejected) and windows (more are left out)."""
        limits = {"max_seconds": self.max_seconds, "max_channels": MOST_CHANNELS, "max_windows": self.max_windows}
        return InputSpec(self.name, _decoder().MEDIA_TYPES, limits)

    def decode(self, content: bytes | str) -> FloatArray:
        """Return the samples of a sound, as `listen` does: float32 (S,)."""
        return self.listen(content).samples

    def listen(self, content: bytes | str) -> Sound:
        """Return the mean of the channels at 16 kHz, or the loudest channel where they cancel each other, and warnings.

        The limits hold while it is decoded, block by block. Raises UnsupportedFormat, TooLarge or Undecodable; and ModelError
        where no sound can be decoded.
        """
        if isinstance(content, str):
            raise UnsupportedFormat(self.name, "text instead of the bytes of a sound", accepted())
        check_installed()
        try:
            sound = self._mono(_decoder(), content, self._sniff(content))
        except (InputError, MemoryError):
            raise
        except Unread as problem:
            raise UnsupportedFormat(self.name, str(problem), f"{accepted()}; {problem.advice}") from problem
        except Exception as problem:
            file = f"{sniff(content)} of {len(content):,} bytes that is truncated or corrupt"
            error = Undecodable(self.name, file, f"a whole sound ({accepted()})")
            error.add_note(f"{type(problem).__name__}: {problem}")  # for the log, not for clients
            raise error from problem
        if len(sound.samples) < LEAST_SECONDS * RATE:
            seconds = f"{len(sound.samples) / RATE:.3f} s of sound"
            raise Undecodable(self.name, seconds, f"at least {LEAST_SECONDS} s of sound")
        return sound

    def preprocess(self, decoded: FloatArray) -> FloatArray:
        """Return log-mel windows: float32 (N, F, M), 1 ≤ N ≤ max_windows. The last one is padded with silence."""
        length, step = window_samples(self.frames), self.hop * HOP
        count = 1 + max(0, -(-(len(decoded) - length) // step))
        kept = range(count)
        if count > self.max_windows:
            kept = np.linspace(0, count - 1, self.max_windows).round().astype(int).tolist()
        windows = np.empty((len(kept), self.frames, MELS), dtype=np.float32)
        for place, number in enumerate(kept):
            samples = decoded[number * step : number * step + length]
            windows[place] = log_mel(np.pad(samples, (0, length - len(samples))), self.frames)
        return windows

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Pad to the most windows of this batch: windows float32 (B, N, F, M) and mask bool (B, N), true for a window."""
        counts = np.asarray([len(array) for array in arrays])
        mask = np.arange(counts.max())[None, :] < counts[:, None]
        windows = np.full((*mask.shape, self.frames, MELS), FLOOR, dtype=np.float32)
        windows[mask] = np.concatenate(arrays)
        return {"windows": windows, "mask": mask}

    @staticmethod
    def workload(content: bytes | bytearray | str) -> Workload:
        """Estimate the seconds of sound, from the header or from the number of bytes."""
        return Workload("audio", max(LEAST_SECONDS, 0.0 if isinstance(content, str) else seconds_of(content)))

    def probes(self) -> tuple[Probe, ...]:
        """Return noise of one and of ten seconds, in stereo at 44.1 kHz, as most recordings are."""
        return (Probe(_noise(1), _noise(10), most=float(self.max_seconds)),)

    def blank(self) -> FloatArray:
        """Return two windows of silence, because a graph that is traced with one is specialised for one."""
        return np.full((2, self.frames, MELS), FLOOR, dtype=np.float32)

    def _sniff(self, content: bytes) -> str:
        if not content:
            raise Undecodable(self.name, "0 bytes", f"a whole sound ({accepted()})")
        media_type = sniff(content)
        if media_type is None:
            raise unread(content)
        if media_type not in _decoder().MEDIA_TYPES:
            raise Unread(f"{media_type}, for which this installation has no decoder", CURE)
        return media_type

    def _mono(self, decoder: ModuleType, content: bytes, media_type: str) -> Sound:
        """Decode, check and mix to one channel; a second time if the channels cancel each other."""
        energies = np.zeros(1 + MOST_CHANNELS)  # of the mean, and of each channel
        damaged: list[bool] = []
        pieces = list(self._pieces(decoder.blocks(content, media_type, damaged), decoder, energies, None))
        warnings = [DAMAGED] if damaged else []
        loudest = int(energies[1:].argmax())
        if energies[0] < CANCELLED * energies[1 + loudest]:
            warnings.append(ANTIPHASE)
            pieces = list(self._pieces(decoder.blocks(content, media_type, damaged), decoder, energies, loudest))
        return Sound(np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32), tuple(warnings))

    def _pieces(
        self, blocks: Iterable[tuple[int, FloatArray]], decoder: ModuleType, energies: Array, channel: int | None
    ) -> Iterator[FloatArray]:
        """Yield pieces (S,) at 16 kHz of one channel, or of the mean of all; `energies` (1 + C) are added up."""
        seconds, values, current = 0.0, 0, 0
        resample: Resample | None = None
        for rate, block in blocks:
            seconds, values = seconds + block.shape[1] / max(1, rate), values + block.size
            self._check(rate, block, seconds, values)
            if resample is None or rate != current:  # in a chained file, each link may have its own
                if resample:
                    yield resample(np.zeros(0, dtype=np.float32), True)
                current, resample = rate, decoder.resampler(rate, RATE)
            clipped = np.clip(block, -1.0, 1.0)
            mean = clipped.mean(axis=0)
            energies[0] += np.square(mean).sum(dtype=np.float64)
            energies[1 : 1 + len(block)] += np.square(clipped).sum(axis=1, dtype=np.float64)
            chosen = mean if channel is None else clipped[min(channel, len(block) - 1)]
            yield resample(np.ascontiguousarray(chosen), False)
        if resample:
            yield resample(np.zeros(0, dtype=np.float32), True)

    def _check(self, rate: int, block: FloatArray, seconds: float, values: int) -> None:
        """Check a block and all before it against the limits, and that it has numbers."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            allowed = f"from {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz"
            raise Undecodable(self.name, f"a sampling rate of {rate:,} Hz", allowed)
        if seconds > self.max_seconds + SLACK_SECONDS:
            raise TooLarge(self.name, f"more than {self.max_seconds:,} s of sound", f"at most {self.max_seconds:,} s")
        if values > MOST_VALUES:
            raise TooLarge(self.name, f"more than {MOST_VALUES:,} samples in all channels", "at most that many")
        if not np.isfinite(block).all():
            raise Undecodable(self.name, "samples that are not finite numbers", "a sound of finite numbers")


INPUT: Final = AudioInput
"""Imported by `Modality.input`."""


def _decoder() -> ModuleType:
    """Import the decoders of an extra. They are imported on use: the service estimates workloads, but decodes nothing."""
    from polymodal.model.modalities.audio import decoding  # noqa: PLC0415

    return decoding


def check_installed() -> None:
    """Raise ModelError where no sound can be decoded, with the cure."""
    try:
        _decoder()
    except ImportError as absent:
        raise ModelError(f"sounds can't be decoded, because {absent.name} is not installed; {CURE}") from absent


def accepted() -> str:
    """Return the media types that this installation decodes, for messages."""
    return ", ".join(_decoder().MEDIA_TYPES)


def wav(samples: Array, rate: int = RATE) -> bytes:
    """Return a WAV of 16 bits: floats from −1 to 1, (S,) or (S, C)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2").tobytes())
    return file.getvalue()


def _noise(seconds: int) -> bytes:
    return wav(np.random.default_rng(0).uniform(-0.5, 0.5, (seconds * 44_100, 2)), 44_100)
