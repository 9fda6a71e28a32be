"""Formats of sounds, recognised by the bytes of a file alone. No decoder is loaded.

A file of a kind that isn't decoded is named, with what to send instead.
"""

import struct
from collections.abc import Mapping
from typing import Final

Buffer = bytes | bytearray

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "audio/wav": (".wav", ".wave"),
    "audio/flac": (".flac",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "audio/mpeg": (".mp3",),
    "audio/mp4": (".m4a", ".m4b"),
    "audio/aac": (".aac",),
    "audio/webm": (".weba",),
}
"""The accepted formats with their usual suffixes. Files with .mp4 or .webm, which may hold a film, are recognised by their bytes
alone."""
MOST_CHANNELS: Final = 8

_BEGINNINGS: Final[tuple[tuple[str, bytes], ...]] = (
    ("audio/flac", b"fLaC"),
    ("audio/ogg", b"OggS"),
    ("audio/webm", b"\x1aE\xdf\xa3"),
)
_RIFF: Final = (b"RIFF", b"RF64", b"BW64")
_TOP_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_ID3_BYTES: Final = 10
_CONVERT: Final = "convert it to WAV, FLAC or MP3"
_SOUND: Final = "send the bytes of a sound"
# Kinds that are named in messages but not decoded, with their beginnings and what to do.
_OTHERS: Final[tuple[tuple[str, tuple[bytes, ...], str], ...]] = (
    ("audio/basic (AU)", (b".snd", b"dns."), _CONVERT),
    ("audio/amr", (b"#!AMR",), _CONVERT),
    ("audio/x-caf", (b"caff",), _CONVERT),
    ("audio/x-ms-wma (or another ASF file)", (b"0&\xb2u\x8ef\xcf\x11",), _CONVERT),
    ("audio/midi", (b"MThd",), "render it to WAV, FLAC or MP3"),
    ("audio/ac3", (b"\x0bw", b"w\x0b"), _CONVERT),
    ("audio/x-wavpack", (b"wvpk",), _CONVERT),
    ("audio/x-ape", (b"MAC ",), _CONVERT),
    ("audio/x-tta", (b"TTA1",), _CONVERT),
    ("audio/x-musepack", (b"MPCK", b"MP+"), _CONVERT),
    ("audio/vnd.rn-realaudio", (b".ra\xfd", b".RMF"), _CONVERT),
    ("audio/dsd", (b"DSD ", b"FRM8"), _CONVERT),
    ("an HLS or M3U playlist", (b"#EXTM3U",), "send the sound that it lists"),
    ("a WAV file of big-endian samples (RIFX)", (b"RIFX",), _CONVERT),
    ("audio/x-w64 (Sony Wave64)", (b"riff",), _CONVERT),
    ("video/x-flv", (b"FLV\x01",), "send its sound track as WAV, FLAC or MP3"),
    ("video/mpeg", (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"), "send its sound track as WAV, FLAC or MP3"),
    ("image/png", (b"\x89PNG",), _SOUND),
    ("image/jpeg", (b"\xff\xd8\xff",), _SOUND),
    ("image/gif", (b"GIF8",), _SOUND),
    ("application/pdf", (b"%PDF",), _SOUND),
    ("application/zip (or a document of that form)", (b"PK\x03\x04",), "unpack it, and send the sound"),
    ("application/gzip", (b"\x1f\x8b",), "unpack it, and send the sound"),
    ("a Git LFS pointer", (b"version https://git-lfs",), "send the file that it points to: git lfs pull"),
    ("a data URI", (b"data:",), "send the bytes that it holds, or the URI in a field of a JSON body"),
    ("a web address", (b"http://", b"https://"), "download the sound, and send its bytes"),
    ("base64 text", (b"UklGR", b"ZkxhQ", b"T2dnUw", b"SUQz"), "decode it, or send it in a JSON body"),
)
_IMAGES: Final = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ")
"""Major brands of the still images among ISO base media files."""
_TEXT_BYTES: Final = frozenset({9, 10, 12, 13, *range(32, 256)})


class Unread(ValueError):
    """A kind of file that isn't decoded, named by the message; `advice` is what to send instead."""

    def __init__(self, kind: str, advice: str = _CONVERT) -> None:
        super().__init__(kind)
        self.advice = advice


def sniff(content: Buffer) -> str | None:
    """Return the media type of a sound that may be decoded; None for other content."""
    if content.startswith(_RIFF):
        return "audio/wav" if content[8:12] == b"WAVE" else None
    if kind := next((kind for kind, start in _BEGINNINGS if content.startswith(start)), None):
        return kind
    if content[4:8] in _TOP_BOXES:
        return None if content[8:12] in _IMAGES else "audio/mp4"
    if content.startswith(b"ID3"):
        start = _after_id3(content)
        behind = content[start : start + 4]
        return "audio/flac" if behind == b"fLaC" else _of_sync(behind) or "audio/mpeg"
    return _of_sync(content[:4])


def unread(content: bytes) -> Unread:
    """Return the error that names the kind of content that can't be decoded."""
    if content.startswith(b"RIFF"):
        return Unread({b"AVI ": "video/x-msvideo", b"WEBP": "image/webp"}.get(bytes(content[8:12]), "a RIFF file"))
    if content.startswith(b"FORM") and content[8:12] in (b"AIFF", b"AIFC"):
        return Unread("audio/aiff")
    if content[4:8] == b"ftyp":
        return Unread(f"an image of brand {content[8:12].decode('ascii', 'replace')!r}", _SOUND)
    named = next((Unread(name, advice) for name, starts, advice in _OTHERS if content.startswith(starts)), None)
    if named:
        return named
    text = _TEXT_BYTES.issuperset(content[:512])
    return Unread("a text" if text else "bytes of no known format of sounds", _SOUND)


def seconds_of(content: Buffer) -> float:
    """Estimate the length of a sound in seconds: from its header where that is simple, otherwise from the bytes at 64 kbit/s."""
    kind, stated = sniff(content), 0.0
    if kind == "audio/wav":
        stated = _of_wav(content)
    elif kind == "audio/flac" and content.startswith(b"fLaC"):
        stated = _of_flac(content)
    return stated or len(content) / 8000


def _of_wav(content: Buffer) -> float:
    """Return the seconds of a WAV by its bytes a second; 0 if the header has none at its usual place."""
    if content[12:16] != b"fmt " or len(content) < 32:
        return 0.0
    (bytes_per_second,) = struct.unpack_from("<I", content, 28)
    return len(content) / bytes_per_second if bytes_per_second >= 1000 else 0.0


def _of_flac(content: Buffer) -> float:
    """Return the seconds of a FLAC by its STREAMINFO (RFC 9639); 0 if it states none."""
    if len(content) < 26:
        return 0.0
    packed = int.from_bytes(content[18:26], "big")
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return samples / rate if rate else 0.0


def _after_id3(content: Buffer) -> int:
    """Return the place after an ID3v2 tag, whose length has seven bits in each byte."""
    size = 0
    for byte in content[6:_ID3_BYTES]:
        size = size << 7 | byte & 0x7F
    return _ID3_BYTES + size


def _of_sync(head: Buffer) -> str | None:
    """Return MPEG audio or ADTS by the first header of a frame (ISO/IEC 11172-3, 13818-7)."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    valid = head[1] & 0xE0 == 0xE0 and version != 1 and layer and bitrate != 15 and rate != 3
    return "audio/mpeg" if valid else None
