"""AVIF and HEIC files are reduced to their primary image, turned and cropped by its boxes; forged sizes never reach a decoder."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from polymodal.model.errors import TooLarge, Undecodable
from polymodal.model.modalities.image.bmff import still
from polymodal.model.modalities.image.header import size_of
from polymodal.model.modalities.image.input import FORMATS, TURNS, ImageInput
from tests.hostile.images import av1, avif, avif_grid, box, full, heif, ispe, saved

INPUT = ImageInput(side=64)
SIZE = (64, 48)
needs_avif = pytest.mark.skipif("image/avif" not in FORMATS, reason="Pillow has no decoder for AVIF here")
needs_heic = pytest.mark.skipif("image/heic" not in FORMATS, reason="the extra heif is not installed")
pytestmark = needs_avif


def shades(size=SIZE):
    """Return an image with a different colour in each quarter."""
    quarters = np.zeros((size[1], size[0], 3), np.uint8)
    quarters[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
    quarters[: size[1] // 2, size[0] // 2 :] = (0, 255, 0)
    quarters[size[1] // 2 :, : size[0] // 2] = (0, 0, 255)
    return Image.fromarray(quarters)


def heic(image, **options):
    from pillow_heif import from_pillow

    content = io.BytesIO()
    from_pillow(image).save(content, **options)
    return content.getvalue()


def near(pixels, expected, tolerance=8):
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected.astype(int)).mean() < tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once_by_its_boxes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # Pillow writes it as boxes
    content = saved(shades(), "AVIF", exif=exif, quality=95)
    turn = TURNS.get(orientation)
    assert near(INPUT.decode(content), np.asarray(shades() if turn is None else shades().transpose(turn)))


def test_exif_without_boxes_does_not_turn_an_avif():
    data, configuration = av1(SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    items = [(b"av01", data, (ispe(SIZE), configuration)), (b"Exif", bytes(4) + exif.tobytes(), ())]
    assert INPUT.decode(heif(items, [(b"cdsc", 2, [1])])).shape == (48, 64, 3)


def test_a_clean_aperture_is_cropped_before_turning():
    aperture = box(b"clap", struct.pack(">IIIIiIiI", 8, 1, 4, 1, 0, 1, 0, 1))
    assert INPUT.decode(avif(SIZE, aperture)).shape == (4, 8, 3)
    assert INPUT.decode(avif(SIZE, aperture, box(b"irot", b"\x01"))).shape == (8, 4, 3)
    with pytest.raises(Undecodable):
        INPUT.decode(avif(SIZE, box(b"clap", struct.pack(">IIIIiIiI", 99, 1, 4, 1, 0, 1, 0, 1))))


def test_transparent_pixels_become_white():
    clear = shades().convert("RGBA")
    clear.putalpha(0)
    assert near(INPUT.decode(saved(clear, "AVIF")), np.full((48, 64, 3), 255), 2)


def test_tiles_are_joined():
    pixels = INPUT.decode(avif_grid([(255, 255, 255), 0, 0, (255, 255, 255)], 2, (100, 90)))
    assert pixels.shape == (90, 100, 3)
    assert [int(pixels[y, x, 0]) > 128 for y, x in ((5, 5), (5, 90), (80, 5), (80, 90))] == [True, False, False, True]


def test_the_first_image_of_a_sequence_is_read():
    content = saved(shades(), "AVIF", save_all=True, append_images=[Image.new("RGB", SIZE)], quality=95)
    assert near(INPUT.decode(content), np.asarray(shades()))
    assert b"moov" not in still("image/avif", content).content


def test_metadata_thumbnails_and_other_items_are_stripped():
    data, configuration = av1()
    other = (b"av01", data, (ispe((16, 12)), configuration))
    content = heif(
        [other, other, (b"Exif", bytes(1000), ()), (b"mime", b"<x:xmpmeta/>" * 99, ())],
        [(b"thmb", 2, [1]), (b"cdsc", 3, [1])],
    )
    alone = still("image/avif", content).content
    assert len(alone) < len(content) - 2000
    assert alone.count(b"infe") == 1
    assert (INPUT.decode(content) == INPUT.decode(avif())).all()


@pytest.mark.parametrize("kind", [pytest.param("AVIF", id="avif"), pytest.param("HEIF", id="heic", marks=needs_heic)])
def test_the_size_is_read_from_the_header(kind):
    image = shades((302, 204))
    assert size_of(saved(image, "AVIF") if kind == "AVIF" else heic(image)) == (302, 204)


@pytest.mark.parametrize("stated", [(60_000, 60_000), (16_385, 16)])
def test_a_vast_image_is_rejected_by_its_header(stated):
    with pytest.raises(TooLarge, match=f"{stated[0]:,} × {stated[1]:,} px"):
        INPUT.decode(avif(stated=stated))


def test_compressed_data_of_another_size_than_in_the_header_never_reaches_a_decoder(monkeypatch):
    monkeypatch.setitem(FORMATS, "image/avif", lambda file: pytest.fail("a decoder was called"))
    with pytest.raises(Undecodable) as caught:
        INPUT.decode(avif((200, 100), stated=(16, 12)))
    assert "another size" in caught.value.__notes__[0]


def test_more_frames_than_layers_are_rejected():
    data, configuration = av1()
    with pytest.raises(ValueError, match="5 frames"):
        still("image/avif", heif([(b"av01", data * 5, (ispe((16, 12)), configuration))]))


def test_items_must_not_share_their_bytes():
    data, configuration = av1((64, 64))
    data += b"\x12\x00" * 5000
    properties = (ispe((64, 64)), configuration)
    grid = (b"grid", struct.pack(">BBBBHH", 0, 0, 0, 1, 128, 64), (ispe((128, 64)),))
    content = heif([grid, (b"av01", data, properties), (b"av01", b"", properties)], [(b"dimg", 1, [2, 3])])
    start = content.index(b"mdat") + 4
    content = heif(
        [grid, (b"av01", data, properties), (b"av01", b"", properties)],
        [(b"dimg", 1, [2, 3])],
        places=[(start, 8), (start + 8, len(data)), (start + 8, len(data))],
    )
    with pytest.raises(ValueError, match=r"share their bytes|units of compressed data"):
        still("image/avif", content)


@needs_heic
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_heic_keeps_its_pixels(mode):
    image = shades((301, 203)).convert(mode)
    pixels = INPUT.decode(heic(image, quality=95))  # odd sides are a clean aperture
    assert near(pixels, np.asarray(image.convert("RGB")))


@needs_heic
@pytest.mark.parametrize("turns", range(4))
def test_a_heic_is_turned_by_its_boxes(turns):
    image = shades((128, 96))
    content = _with_property(still("image/heic", heic(image, quality=95)).content, box(b"irot", bytes([turns])))
    assert near(INPUT.decode(content), np.rot90(np.asarray(image), turns))


def _with_property(content, new):
    """Return a file of one image with one more property."""
    properties = [property_of(content, name) for name in (b"ispe", b"hvcC", b"pixi")]
    return heif([(b"hvc1", data_of(content), (*properties, new))], brands=b"heicmif1")


def property_of(content, name):
    start = content.index(name) - 4
    return content[start : start + int.from_bytes(content[start : start + 4], "big")]


def data_of(content):
    return content[content.index(b"mdat") + 4 :]


@needs_heic
def test_a_heic_with_tiles_or_with_more_than_8_bits_is_read():
    import pillow_heif

    content = io.BytesIO()
    samples = np.asarray(shades()).astype(np.uint16) * 257
    pillow_heif.encode("RGB;16", SIZE, samples.tobytes(), content, quality=95)
    assert near(INPUT.decode(content.getvalue()), np.asarray(shades()))
    tiled = heic(shades((600, 400)), quality=95, grid_tile_size=128)
    assert near(INPUT.decode(tiled), np.asarray(shades((600, 400)).reduce(max(1, 600 // (8 * 64)))), 12)


@needs_heic
def test_a_heic_with_forged_slices_or_sizes_never_reaches_a_decoder(monkeypatch):
    monkeypatch.setitem(FORMATS, "image/heic", lambda file: pytest.fail("a decoder was called"))
    small, large = (still("image/heic", heic(shades(size))).content for size in (SIZE, (400, 300)))
    data = data_of(small)
    for payload, file in ((data * 2, small), (data[:-5], small), (data_of(large), large)):
        items = [(b"hvc1", payload, (ispe((64, 64)), property_of(file, b"hvcC")))]
        with pytest.raises(Undecodable):
            INPUT.decode(heif(items, brands=b"heicmif1"))


def test_the_number_and_size_of_boxes_are_limited():
    alone = (b"av01", *av1()[:1], (ispe((16, 12)), av1()[1]))
    with pytest.raises(ValueError, match="4,096 boxes"):
        still("image/avif", heif([alone], before=full(b"free") * 5000))
    with pytest.raises(ValueError, match="a description of"):
        still("image/avif", heif([alone], before=box(b"free", bytes(2**20))))
