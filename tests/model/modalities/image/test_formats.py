"""The format of a file is recognised by its bytes; other kinds are rejected by name, with advice."""

import pytest

from polymodal.model.errors import UnsupportedFormat
from polymodal.model.modalities.image.formats import BEGINNINGS, SUFFIXES, sniff
from polymodal.model.modalities.image.input import FORMATS, ImageInput
from tests.hostile.images import png

OTHERS = {
    b"\xff\x0a\x00": ("JPEG XL", "export it as PNG"),
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": ("JPEG XL", "export it as PNG"),
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": ("JPEG 2000", "export it as PNG"),
    b"8BPS\x00\x01": ("PSD", "export it as PNG"),
    b"II+\x00\x08\x00": ("BigTIFF", "save it as TIFF"),
    b"\x00\x00\x01\x00\x01\x00": ("ICO", "export it as PNG"),
    b"\x00\x00\x02\x00\x01\x00": ("CUR", "export it as PNG"),
    b"\x00\x00\x02\x00\x00\x00\x00": ("TGA", "export it as PNG"),
    b"II*\x00\x10\x00\x00\x00CR\x02\x00\x00\x00" + bytes(40): ("raw photograph", "develop it"),
    b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom": ("image/x-canon-cr3", "must be developed"),
    b"FUJIFILMCCD-RAW": ("image/x-fuji-raf", "must be developed"),
    b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom": ("video/mp4", "save one frame"),
    b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ": ("video/quicktime", "save one frame"),
    b"\x00\x00\x00\x08wide": ("video/quicktime", "save one frame"),
    b"\x1aE\xdf\xa3": ("video/webm", "save one frame"),
    b"RIFF\x00\x00\x00\x00AVI LIST": ("video/x-msvideo", "save one frame"),
    b"\x01\x00\x00\x00" + bytes(36) + b" EMF": ("EMF", "rendered to PNG"),
    b"\xd7\xcd\xc6\x9a": ("WMF", "rendered to PNG"),
    b"\x0a\x05\x01\x08": ("PCX", "export it as PNG"),
    b"P6\n1 1 255\n": ("PNM", "export it as PNG"),
    b"qoif\x00": ("image/qoi", "export it as PNG"),
    b"gimp xcf file": ("GIMP", "export it as PNG"),
    b"PK\x03\x04": ("application/zip", "unpack it"),
    b"\x1f\x8b\x08": ("SVGZ", "unpack it"),
    b"%PDF-1.7": ("application/pdf", "convert a page"),
    b"%!PS-Adobe-3.0 EPSF-3.0": ("EPS", "convert a page"),
    b"\xef\xbb\xbf <svg xmlns=''/>": ("image/svg+xml", "rendered to PNG"),
    b"<?xml version='1.0'?><!-- a --><svg/>": ("image/svg+xml", "rendered to PNG"),
    b"<?xml version='1.0'?><Error/>": ("application/xml", "save the picture itself"),
    b"\n<!DOCTYPE HTML><title>404": ("text/html", "save the picture itself"),
    b'{"error": "not found"}': ("application/json", "send the bytes"),
    b"data:image/png;base64,iVBORw0KGgo": ("a data URI", "send the bytes"),
    b"iVBORw0KGgoAAAA": ("base64 text", "decode it"),
    b"version https://git-lfs.github.com/spec/v1": ("Git LFS", "git lfs pull"),
    b"https://example.com/a.png": ("a web address", "download"),
    b"\x00\x05\x16\x07": ("AppleDouble", "without ._"),
    b"\r\n" + png(): ("image/png behind white space", "as it is"),
    b"the picture is attached": ("no known picture format", "send the bytes"),
    bytes(128) + b"DICM": ("application/dicom", "export it as PNG"),
    bytes(100): ("bytes of no known picture format", "export it as PNG"),
}


@pytest.mark.parametrize("content", OTHERS, ids=lambda content: OTHERS[content][0])
def test_a_kind_that_is_not_decoded_is_named_with_advice(content):
    with pytest.raises(UnsupportedFormat) as caught:
        ImageInput().decode(content)
    name, advice = OTHERS[content]
    assert name in caught.value.found
    assert caught.value.allowed.startswith("image/jpeg, image/png")
    assert advice in caught.value.allowed


def test_an_image_whose_decoder_is_missing_is_named_and_not_listed(monkeypatch):
    monkeypatch.delitem(FORMATS, "image/avif", raising=False)
    with pytest.raises(UnsupportedFormat, match="image/avif, for which this installation has no decoder") as caught:
        ImageInput().decode(b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf")
    assert "image/avif" not in caught.value.allowed
    assert "image/avif" not in ImageInput().describe().media_types


@pytest.mark.parametrize(
    ("brands", "media_type"),
    [
        pytest.param(b"avif\x00\x00\x00\x00avifmif1miaf", "image/avif", id="avif"),
        pytest.param(b"mif1\x00\x00\x00\x00mif1avif", "image/avif", id="avif-as-mif1"),
        pytest.param(b"heic\x00\x00\x00\x00mif1heic", "image/heic", id="iphone"),
        pytest.param(b"heix\x00\x00\x00\x00mif1heix", "image/heic", id="canon"),
        pytest.param(b"mif1\x00\x00\x00\x00mif1heic", "image/heic", id="samsung"),
        pytest.param(b"isom\x00\x00\x00\x00isomiso2", None, id="video"),
    ],
)
def test_the_format_of_a_media_file_is_read_from_its_brands(brands, media_type):
    assert sniff((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands) == media_type


def test_every_format_has_suffixes_and_a_beginning():
    assert set(FORMATS) <= set(SUFFIXES)
    assert set(SUFFIXES) == {*BEGINNINGS, "image/avif", "image/heic"}
    assert len({name for names in SUFFIXES.values() for name in names}) == sum(map(len, SUFFIXES.values()))
