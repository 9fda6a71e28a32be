"""Sound files for tests: WAVs written byte by byte, other formats by PyAV. The same bytes in every run."""

import io
import struct

import numpy as np

RATE = 16_000
PIECE = 840 * 1000  # numbers that are encoded at a time: samples of all channels, for one to eight of them
FLOAT, PCM, EXTENSIBLE = 3, 1, 0xFFFE


def tone(seconds=0.5, hertz=1000.0, rate=RATE, amplitude=0.5):
    """Return a sine: float64 (S,) from −1 to 1."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def noise(seconds=0.5, rate=RATE, amplitude=0.5, seed=0):
    """Return white noise: float64 (S,)."""
    return np.random.default_rng(seed).uniform(-amplitude, amplitude, int(seconds * rate))


def chunk(name: bytes, content: bytes, *, size: int | None = None) -> bytes:
    """Return a chunk of a RIFF file; `size` replaces the right one."""
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def wav_header(channels=1, rate=RATE, bits=16, kind=PCM, align=None, more=b"") -> bytes:
    """Return the chunk `fmt ` of a WAV."""
    align = channels * bits // 8 if align is None else align
    return chunk(
        b"fmt ",
        struct.pack("<HHIIHH", kind, channels, rate & 0xFFFFFFFF, rate * align & 0xFFFFFFFF, align, bits) + more,
    )


def riff(*chunks: bytes, name=b"RIFF", size=None) -> bytes:
    """Return a WAV of these chunks."""
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


def pcm(samples, bits=16) -> bytes:
    """Return samples (S,) or (S, C) as little-endian integers, or as floats for "f32" and "f64"."""
    samples = np.clip(np.asarray(samples, dtype=np.float64), -1, 1) if bits in (8, 16, 24, 32) else np.asarray(samples)
    if bits == 8:
        return (samples * 127 + 128).astype(np.uint8).tobytes()
    if bits == 24:
        whole = (samples * (2**23 - 1)).astype("<i4")
        return whole.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
    kind = {16: "<i2", 32: "<i4", "f32": "<f4", "f64": "<f8"}[bits]
    scale = {16: 2**15 - 1, 32: 2**31 - 1}.get(bits, 1)
    return (samples * scale).astype(kind).tobytes()


def wav(samples, rate=RATE, bits=16, **header) -> bytes:
    """Return a WAV of samples (S,) or (S, C); bits: 8, 16, 24, 32, "f32" or "f64"."""
    samples = np.asarray(samples)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    number = int(str(bits).removeprefix("f"))
    kind = FLOAT if isinstance(bits, str) else PCM
    header = {"channels": channels, "rate": rate, "bits": number, "kind": kind, **header}
    return riff(wav_header(**header), chunk(b"data", pcm(samples, bits)))


def encoded(codec, container, samples, rate=RATE, layout="mono", bit_rate=None, metadata=(), **options) -> bytes:
    """Return what PyAV encodes: samples (S,) or (S, C) at `rate`."""
    import av

    file, samples = io.BytesIO(), np.asarray(samples, dtype=np.float32).reshape(1, -1)
    with av.open(
        file, "w", format=container, container_options={key: str(value) for key, value in options.items()}
    ) as out:
        out.metadata.update(metadata)
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        converter = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        queue, length = av.AudioFifo(), stream.codec_context.frame_size or 4096
        for start in range(0, samples.size, PIECE):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + PIECE], format="flt", layout=layout)
            frame.sample_rate = rate
            for converted in converter.resample(frame):
                queue.write(converted)
            while queue.samples >= length:
                out.mux(stream.encode(queue.read(length)))
        if queue.samples:
            out.mux(stream.encode(queue.read()))
        out.mux(stream.encode(None))
    return file.getvalue()
