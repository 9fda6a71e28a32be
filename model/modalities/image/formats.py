"""Kinds of files by their first bytes, not by their declared type, with advice for kinds that are not decoded."""

import re
from collections.abc import Mapping
from typing import Final

from polymodal.model.modalities.image.containers import Buffer

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    "image/png": (".png", ".apng"),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    "image/bmp": (".bmp", ".dib"),
    "image/tiff": (".tif", ".tiff"),
    "image/avif": (".avif", ".avifs"),
    "image/heic": (".heic", ".heif", ".hif"),
}
"""Suffixes of files in each format, also of formats that this installation may lack a decoder for."""

# How each format begins; a RIFF file names its kind at byte 8, an ISO base media file its brands from byte 8 on.
BEGINNINGS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/webp": (b"RIFF",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/bmp": (b"BM",),
    "image/tiff": (b"II*\x00", b"MM\x00*"),
}
_BRANDS: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"avif", b"avis", b"avio"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "image/heic"),
    b"crx ": "image/x-canon-cr3",
    b"qt  ": "video/quicktime",
    **dict.fromkeys((b"M4A ", b"M4B "), "audio/mp4"),
    **dict.fromkeys((b"isom", b"iso2", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp4", b"3gp5"), "video/mp4"),
}  # fmt: skip
_CODECS: Final[Mapping[bytes, str]] = {b"av01": "image/avif", b"hvc1": "image/heic"}
_HEIF: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
_MOST_FTYP: Final = 256  # bytes that are searched for brands
_MOST_ITEM: Final = 4096  # bytes that are searched for an item's kind, where brands name none

_EXPORT: Final = "export it as PNG or JPEG"
_DEVELOP: Final = "a raw photograph must be developed, or take the JPEG that the camera wrote next to it"
_PAGE: Final = "convert a page to PNG"
_DRAW: Final = "a drawing of shapes must be rendered to PNG"
_FRAME: Final = "save one frame as PNG or JPEG"
_UNPACK: Final = "unpack it and send one picture"
_TEXT: Final = "send the bytes of a picture, not words about it"
_SAVED: Final = "save the picture itself, not the page around it"

# Kinds of files that are sent in place of images: their first bytes, and advice.
_OTHERS: Final[tuple[tuple[str, tuple[bytes, ...], str], ...]] = (
    ("image/jxl (JPEG XL)", (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"), _EXPORT),
    ("image/jp2 (JPEG 2000)", (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), _EXPORT),
    ("image/jph (HTJ2K)", (b"\x00\x00\x00\x0cjP\x1a\x1a\r\n\x87\n",), _EXPORT),
    ("image/vnd.adobe.photoshop (PSD)", (b"8BPS",), _EXPORT),
    ("image/x-xcf (GIMP)", (b"gimp xcf",), _EXPORT),
    ("application/x-krita", (b"PK\x03\x04\x14\x00\x00\x00\x00\x00mimetypeapplication/x-krita",), _EXPORT),
    ("image/tiff in BigTIFF", (b"II+\x00", b"MM\x00+"), "save it as TIFF of less than 4 GB, or as PNG"),
    ("image/x-icon (ICO)", (b"\x00\x00\x01\x00",), _EXPORT),
    ("image/x-cursor (CUR)", tuple(b"\x00\x00\x02\x00%c\x00" % number for number in range(1, 33)), _EXPORT),
    ("image/icns (ICNS)", (b"icns",), _EXPORT),
    ("image/x-olympus-orf", (b"IIRO", b"IIRS", b"MMOR"), _DEVELOP),
    ("image/x-panasonic-rw2", (b"IIU\x00",), _DEVELOP),
    ("image/x-fuji-raf", (b"FUJIFILMCCD-RAW",), _DEVELOP),
    ("image/x-sigma-x3f", (b"FOVb",), _DEVELOP),
    ("image/x-minolta-mrw", (b"\x00MRM",), _DEVELOP),
    ("image/x-canon-crw", (b"II\x1a\x00\x00\x00HEAPCCDR",), _DEVELOP),
    ("application/postscript (EPS)", (b"%!PS", b"\xc5\xd0\xd3\xc6"), _PAGE),
    ("application/pdf", (b"%PDF",), _PAGE),
    ("image/vnd.djvu", (b"AT&TFORM",), _PAGE),
    ("image/wmf (WMF)", (b"\xd7\xcd\xc6\x9a", b"\x01\x00\x09\x00"), _DRAW),
    ("image/x-portable-anymap (PNM)", tuple(b"P%d%c" % (n, c) for n in range(1, 8) for c in b"\n\r\t #"), _EXPORT),
    ("image/qoi", (b"qoif",), _EXPORT),
    ("image/vnd.zbrush.pcx (PCX)", tuple(bytes((10, version, 1)) for version in (0, 2, 3, 4, 5)), _EXPORT),
    ("image/vnd.ms-dds", (b"DDS ",), _EXPORT),
    ("image/x-exr (OpenEXR)", (b"v/1\x01",), _EXPORT),
    ("image/vnd.radiance (HDR)", (b"#?RADIANCE", b"#?RGBE"), _EXPORT),
    ("image/fits", (b"SIMPLE  =",), _EXPORT),
    ("image/flif", (b"FLIF",), _EXPORT),
    ("image/bpg", (b"BPG\xfb",), _EXPORT),
    ("video/x-mng", (b"\x8aMNG\r\n\x1a\n",), _FRAME),
    ("image/x-jng", (b"\x8bJNG\r\n\x1a\n",), _EXPORT),
    ("video/webm (or Matroska)", (b"\x1aE\xdf\xa3",), _FRAME),
    ("video/x-ms-wmv", (b"0&\xb2u\x8ef\xcf\x11",), _FRAME),
    ("video/mpeg", (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"), _FRAME),
    ("video/x-flv", (b"FLV\x01",), _FRAME),
    ("application/ogg", (b"OggS",), _FRAME),
    ("audio/mpeg", (b"ID3",), "an image"),
    ("application/zip (or a document or archive of that form)", (b"PK\x03\x04", b"PK\x05\x06"), _UNPACK),
    ("application/gzip (an SVGZ, too)", (b"\x1f\x8b",), _UNPACK),
    ("application/x-7z-compressed", (b"7z\xbc\xaf\x27\x1c",), _UNPACK),
    ("application/vnd.rar", (b"Rar!\x1a\x07",), _UNPACK),
    ("application/x-xz", (b"\xfd7zXZ\x00",), _UNPACK),
    ("application/zstd", (b"(\xb5/\xfd",), _UNPACK),
    ("application/x-bzip2", (b"BZh",), _UNPACK),
    ("application/x-ole-storage (an Office document or Thumbs.db)", (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",), _EXPORT),
    (
        "an AppleDouble file (._NAME)",
        (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00"),
        "send the file without ._ in its name",
    ),
    ("application/rtf", (b"{\\rtf",), _EXPORT),
)
# The same for texts, after white space and a byte order mark, in any case.
_TEXTS: Final[tuple[tuple[str, tuple[bytes, ...], str], ...]] = (
    ("text/html", (b"<!doctype html", b"<html", b"<head", b"<body", b"<!doctype"), _SAVED),
    ("application/xml", (b"<?xml", b"<!--"), _SAVED),
    ("base64 text", (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR", b"SUkqA", b"TU0AK"), "decode it, or send it in a JSON body"),
    ("a data URI", (b"data:",), "send the bytes that it holds, or the URI in the field image of a JSON body"),
    ("a Git LFS pointer", (b"version https://git-lfs",), "the file that it points to: git lfs pull"),
    ("application/json", (b"{", b"["), _TEXT),
    ("a web address", (b"http://", b"https://"), "download the picture and send its bytes"),
)  # fmt: skip
_SEARCHED: Final = 4096  # bytes of a text
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
# Kinds that are recognised further inside.
_WITHIN: Final[tuple[tuple[int, tuple[bytes, ...], str, str], ...]] = (
    (4, (b"moov", b"mdat", b"wide", b"free", b"skip"), "video/quicktime", _FRAME),
    (40, (b" EMF",), "image/emf (EMF)", _DRAW),
    (128, (b"DICM",), "application/dicom", _EXPORT),
    (-18, (b"TRUEVISION-XFILE.",), "image/x-tga (TGA)", _EXPORT),
    (0, (b"\x00\x00\x02\x00", b"\x00\x00\x0a\x00", b"\x00\x01\x01\x00"), "image/x-tga (TGA)", _EXPORT),
)


class Unread(ValueError):
    """A kind of file that isn't decoded, named by the message; `advice` is what to send instead."""

    def __init__(self, kind: str, advice: str = _EXPORT) -> None:
        super().__init__(kind)
        self.advice = advice


def sniff(content: Buffer) -> str | None:
    """Return the media type of an image that may be decoded; None for other content."""
    if content[4:8] == b"ftyp":
        kind = _brand(content)
        return kind if kind in SUFFIXES else None
    kind = next((kind for kind, starts in BEGINNINGS.items() if content.startswith(starts)), None)
    return None if kind == "image/webp" and content[8:12] != b"WEBP" else kind


def unread(content: bytes) -> Unread:
    """Return the error that names the kind of content that can't be decoded."""
    if content[4:8] == b"ftyp":
        return _media(content)
    if content.startswith(b"RIFF"):
        return Unread({b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}.get(content[8:12], "a RIFF file"), _FRAME)
    return (
        next((Unread(name, advice) for name, starts, advice in _OTHERS if content.startswith(starts)), None)
        or next((Unread(name, advice) for at, marks, name, advice in _WITHIN if content[at:].startswith(marks)), None)
        or _text(content)
    )


def _text(content: bytes) -> Unread:
    beginning = content[:_SEARCHED].removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = beginning.lower()
    if (image := sniff(beginning)) is not None:
        return Unread(f"{image} behind white space or a byte order mark", "send the file as it is")
    if b"<svg" in lower and lower.startswith((b"<?xml", b"<!--", b"<svg", b"<!doctype svg")):
        return Unread("image/svg+xml", _DRAW)
    for name, starts, advice in _TEXTS:
        if beginning.startswith(starts) or lower.startswith(starts):
            return Unread(name, advice)
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) or (beginning and not _BINARY.search(beginning)):
        return Unread("bytes of no known picture format", "send the bytes of a picture")
    return Unread("bytes of no known picture format")


def _brand(content: Buffer) -> str | None:
    """Return the kind of an ISO base media file: by its major brand, then by the others."""
    beginning = bytes(content[:_MOST_ITEM])
    length = min(len(beginning), max(16, int.from_bytes(beginning[:4], "big")), _MOST_FTYP)
    brands = [beginning[8:12], *(beginning[at : at + 4] for at in range(16, length - 3, 4))]
    if brands[0] in _BRANDS:
        return _BRANDS[brands[0]]
    named = next((_BRANDS[brand] for brand in brands if _BRANDS.get(brand) in SUFFIXES), None)
    if named or not _HEIF & set(brands):
        return named or next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    return next((kind for codec, kind in _CODECS.items() if codec in beginning), "image/heif")


def _media(content: bytes) -> Unread:
    kind = _brand(content)
    if kind == "image/x-canon-cr3":
        return Unread(kind, _DEVELOP)
    if kind == "image/heif":
        return Unread("image/heif of neither HEVC nor AV1", _EXPORT)
    return Unread(kind or f"an ISO base media file of brand {content[8:12].decode('ascii', 'replace')!r}", _FRAME)
