"""Small pictures: of any accepted kind, in their proportions, on white."""

import io

import pytest
from PIL import Image

from polymodal.model import Undecodable
from polymodal.model.modalities.image.thumbnail import thumbnail


def saved(picture, kind):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def test_a_thumbnail_keeps_the_proportions():
    small = Image.open(io.BytesIO(thumbnail(saved(Image.new("RGB", (900, 300), "red"), "JPEG"), 120)))
    assert small.format == "WEBP"
    assert small.size == (120, 40)


def test_a_small_picture_is_not_blown_up():
    assert Image.open(io.BytesIO(thumbnail(saved(Image.new("RGB", (20, 10)), "PNG"), 120))).size == (20, 10)


def test_what_is_transparent_becomes_white():
    small = Image.open(io.BytesIO(thumbnail(saved(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), "PNG"), 40)))
    assert min(small.convert("RGB").getpixel((20, 20))) > 250


def test_a_broken_picture_is_refused():
    with pytest.raises(Undecodable):
        thumbnail(saved(Image.new("RGB", (50, 50)), "PNG")[:40], 40)
