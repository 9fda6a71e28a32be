"""The size in an image's header is the size that Pillow reads; other bytes have none."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polymodal.model.modalities.image.header import size_of, work_of
from polymodal.model.modalities.image.input import ImageInput


def encoded(size, file_format, mode="RGB", **options):
    content = io.BytesIO()
    Image.new(mode, size, 1).save(content, file_format, **options)
    return content.getvalue()


KINDS = [
    pytest.param("JPEG", {}, id="jpeg"),
    pytest.param("JPEG", {"progressive": True}, id="progressive-jpeg"),
    pytest.param(
        "JPEG",
        {"exif": b"Exif\x00\x00" + b"\xff" * 60_000, "comment": b"\xff\xc0 not a frame"},
        id="jpeg-with-metadata",
    ),
    pytest.param("PNG", {}, id="png"),
    pytest.param("GIF", {"mode": "P"}, id="gif"),
    pytest.param("BMP", {}, id="bmp"),
    pytest.param("TIFF", {}, id="tiff"),
    pytest.param("WEBP", {}, id="webp-lossy"),
    pytest.param("WEBP", {"lossless": True}, id="webp-lossless"),
    pytest.param("WEBP", {"exif": b"Exif\x00\x00"}, id="webp-extended"),
]


@pytest.mark.parametrize(("file_format", "options"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (1234, 17)])
def test_the_size_is_read_from_the_header(file_format, options, size):
    assert size_of(encoded(size, file_format, **options)) == size


@pytest.mark.parametrize(("file_format", "options"), [*KINDS, pytest.param("AVIF", {}, id="avif")])
def test_a_bytearray_has_the_workload_of_the_same_bytes(file_format, options):
    content = encoded((300, 200), file_format, **options)
    assert ImageInput.workload(bytearray(content)) == ImageInput.workload(content) == work_of(content)


@given(st.integers(1, 3000), st.integers(1, 60), st.sampled_from([kind.values for kind in KINDS]))
@settings(max_examples=60, deadline=None)
def test_any_size_is_read_from_the_header(width, height, kind):
    file_format, options = kind
    assert size_of(encoded((width, height), file_format, **options)) == (width, height)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_size_of_a_tiff_is_read_in_both_byte_orders(order):
    entries = struct.pack(order + "HHIHHHHII", 256, 3, 1, 700, 0, 257, 4, 1, 90_000)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    assert size_of(head + struct.pack(order + "H", 2) + entries) == (700, 90_000)


def test_only_the_first_256_tags_of_a_tiff_are_read():
    entries = struct.pack("<HHII", 7, 4, 1, 1) * 60_000 + struct.pack("<HHIIHHII", 256, 4, 1, 5, 257, 4, 1, 5)
    assert size_of(b"II*\x00" + struct.pack("<IH", 8, 60_002) + entries) is None


def test_a_bmp_with_rows_from_the_top_has_the_same_height():
    content = bytearray(encoded((4, 5), "BMP"))
    content[22:26] = (-5).to_bytes(4, "little", signed=True)
    assert size_of(bytes(content)) == (4, 5)


@pytest.mark.parametrize(
    ("before", "size"),
    [
        pytest.param(b"\xff\xff", (9, 8), id="two-fill-bytes"),
        pytest.param(b"\xff" * 300, None, id="too-many-fill-bytes"),
        pytest.param(b"\xff\xe1\x00\x02other bytes", (9, 8), id="bytes-between-segments"),
        pytest.param(b"\xff\xe1\x00\x02" * 100_000, None, id="too-many-segments"),
        pytest.param(b"\xff\xd9", None, id="end-of-the-image"),
    ],
)
def test_a_limited_number_of_bytes_before_the_frame_of_a_jpeg_is_skipped(before, size):
    content = encoded((9, 8), "JPEG")
    assert size_of(content[:2] + before + content[2:]) == size


def test_a_box_with_a_length_of_64_bits_is_read():
    content = encoded((16, 12), "AVIF")
    start = content.index(b"meta") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 8
    wide = content[:start] + struct.pack(">I4sQ", 1, b"meta", length) + content[start + 8 :]
    assert size_of(content) == size_of(wide) == (16, 12)


BEGINNINGS = [
    encoded((5, 5), name)[:length] for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF") for length in (4, 12, 24)
]


@given(st.sampled_from([b"", *BEGINNINGS]), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_a_positive_size_or_none(beginning, rest):
    size = size_of(beginning + rest)
    assert size is None or min(size) > 0
    kind, units = ImageInput.workload(beginning + rest)
    assert kind in {"image", "image/jpeg"}
    assert units >= 0


def test_content_without_a_size_counts_by_its_bytes():
    assert ImageInput.workload(b"some words") == ImageInput.workload("some words") == ("image", 10)


@pytest.mark.parametrize(
    ("file_format", "options", "kind"),
    [
        pytest.param("JPEG", {}, "image/jpeg", id="jpeg"),
        pytest.param("JPEG", {"progressive": True}, "image", id="progressive-jpeg"),
        *(pytest.param(name, {}, "image", id=name.lower()) for name in ("PNG", "WEBP", "GIF", "BMP", "TIFF")),
    ],
)
def test_only_a_sequential_jpeg_is_decoded_at_a_reduced_size(file_format, options, kind):
    large, small = (work_of(encoded(size, file_format, **options)) for size in ((400, 300), (40, 30)))
    assert large.kind == kind
    assert large.units > small.units


def test_the_workload_of_a_sequential_jpeg_counts_bytes_and_of_other_images_pixels():
    draft, whole = encoded((400, 300), "JPEG"), encoded((400, 300), "PNG")
    assert work_of(draft).units == pytest.approx(len(draft) + 400 * 300 / 13)
    assert work_of(whole).units == 400 * 300 + 2 * len(whole)
    assert work_of(draft + bytes(1000)).units == work_of(draft).units + 1000
