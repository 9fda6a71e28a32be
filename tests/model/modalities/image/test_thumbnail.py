"""Thumbnails of any accepted format keep their proportions, on white."""

import io

import pytest
from PIL import Image

from polymodal.model import Undecodable
from polymodal.model.modalities.image.thumbnail import thumbnail
from tests.hostile.images import saved


@pytest.mark.parametrize(
    ("size", "kind", "expected"),
    [
        pytest.param((900, 300), "JPEG", (120, 40), id="reduced"),
        pytest.param((20, 10), "PNG", (20, 10), id="a-small-image-is-not-enlarged"),
    ],
)
def test_a_thumbnail_keeps_the_proportions(size, kind, expected):
    small = Image.open(io.BytesIO(thumbnail(saved(Image.new("RGB", size, "red"), kind), 120)))
    assert (small.format, small.size) == ("WEBP", expected)


def test_transparent_pixels_become_white():
    small = Image.open(io.BytesIO(thumbnail(saved(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), "PNG"), 40)))
    assert min(small.convert("RGB").getpixel((20, 20))) > 250


def test_a_broken_image_is_rejected():
    with pytest.raises(Undecodable):
        thumbnail(saved(Image.new("RGB", (50, 50)), "PNG")[:40], 40)
