"""A picture's size from its first bytes is what Pillow says after opening it, and rubbish has none."""

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
def test_a_part_of_a_form_which_is_a_bytearray_has_the_same_workload(file_format, options):
    content = encoded((300, 200), file_format, **options)
    assert ImageInput.workload(bytearray(content)) == ImageInput.workload(content) == work_of(content)


@given(st.integers(1, 3000), st.integers(1, 60), st.sampled_from([kind.values for kind in KINDS]))
@settings(max_examples=60, deadline=None)
def test_the_size_is_the_one_that_pillow_finds(width, height, kind):
    file_format, options = kind
    content = encoded((width, height), file_format, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert size_of(content) == image.size


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_says_its_size_in_either_order_of_bytes(order):
    entries = struct.pack(order + "HHIHHHHII", 256, 3, 1, 700, 0, 257, 4, 1, 90_000)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    assert size_of(head + struct.pack(order + "H", 2) + entries) == (700, 90_000)


def test_of_a_tiff_with_thousands_of_tags_the_first_are_read():
    entries = struct.pack("<HHII", 7, 4, 1, 1) * 60_000 + struct.pack("<HHIIHHII", 256, 4, 1, 5, 257, 4, 1, 5)
    assert size_of(b"II*\x00" + struct.pack("<IH", 8, 60_002) + entries) is None


def test_a_bmp_from_the_top_is_as_high():
    content = bytearray(encoded((4, 5), "BMP"))
    content[22:26] = (-5).to_bytes(4, "little", signed=True)
    assert size_of(bytes(content)) == (4, 5)


def test_fill_bytes_before_a_marker_are_skipped():
    content = encoded((9, 8), "JPEG")
    assert size_of(content[:2] + b"\xff\xff" + content[2:]) == (9, 8)


BEGINNINGS = [
    encoded((5, 5), name)[:length] for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF") for length in (4, 12, 24)
]


@given(st.sampled_from([b"", *BEGINNINGS]), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_has_a_size_or_none(beginning, rest):
    size = size_of(beginning + rest)
    assert size is None or min(size) > 0
    kind, units = ImageInput.workload(beginning + rest)
    assert kind in {"image", "image/jpeg"}
    assert units >= 0


def test_a_jpeg_of_nothing_but_segments_ends():
    assert size_of(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 100_000) is None


def test_a_jpeg_of_nothing_but_fill_bytes_is_not_searched_to_its_end():
    content = encoded((9, 8), "JPEG")
    assert size_of(content[:2] + b"\xff" * 300 + content[2:]) is None


def test_what_states_no_size_counts_by_its_bytes():
    assert ImageInput.workload(b"no picture") == ("image", 10)
    assert ImageInput.workload("no picture") == ("image", 10)


@pytest.mark.parametrize(
    ("file_format", "options", "kind"),
    [
        pytest.param("JPEG", {}, "image/jpeg", id="jpeg"),
        pytest.param("JPEG", {"progressive": True}, "image", id="progressive-jpeg"),
        *(pytest.param(name, {}, "image", id=name.lower()) for name in ("PNG", "WEBP", "GIF", "BMP", "TIFF")),
    ],
)
def test_only_a_jpeg_that_is_not_progressive_is_decoded_in_a_draft(file_format, options, kind):
    found, units = work_of(encoded((400, 300), file_format, **options))
    assert found == kind
    assert units > work_of(encoded((40, 30), file_format, **options)).units


def test_of_a_draft_the_bytes_count_and_of_other_pictures_the_pixels():
    draft, whole = encoded((400, 300), "JPEG"), encoded((400, 300), "PNG")
    assert work_of(draft).units == pytest.approx(len(draft) + 400 * 300 / 13)
    assert work_of(whole).units == 400 * 300 + 2 * len(whole)
    assert work_of(draft + bytes(1000)).units == work_of(draft).units + 1000
