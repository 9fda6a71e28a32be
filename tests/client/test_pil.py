"""The bytes that are sent for a PIL image decode to its pixels in the service."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from polymodal.model.modalities.image.input import ImageInput
from polymodal_client import files
from tests.media import saved

INPUT = ImageInput()
ORIENTATION = 274
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")


def drawing(mode="RGB", size=(48, 32)):
    """Return an image without symmetry and with few colours, so that every format keeps it."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 4, 20, 12), fill=(200, 30, 30))
    draw.rectangle((24, 16, 40, 28), fill=(30, 60, 200))
    return image.convert(mode)


def transparent():
    image = drawing("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def lab():
    from PIL import ImageCms

    return ImageCms.profileToProfile(
        drawing(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )


def turned(orientation, kind="JPEG", **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(drawing(), kind, exif=exif.tobytes(), **options)


def sixteen_bits():
    return Image.fromarray((np.asarray(drawing("L")).astype(np.uint16) << 8) + 7)


def palette_with_key():
    image = drawing().quantize(8)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def decoded(content):
    return INPUT.decode(content).astype(int)


def opened(content):
    return Image.open(io.BytesIO(content))


def loaded(content):
    image = opened(content)
    image.load()
    return image


def sent_like(image, content):
    """Return whether the bytes that are sent for an image decode to the same pixels as `content`."""
    sent, expected = decoded(files.bytes_of(image)), decoded(content)
    return sent.shape == expected.shape and np.abs(sent - expected).max() <= 1


FILES = {
    "png-1": saved(drawing("1")),
    "png-L": saved(drawing("L")),
    "png-LA": saved(transparent().convert("LA")),
    "png-P": saved(drawing().quantize(8)),
    "png-P-with-a-transparent-colour": saved(palette_with_key()),
    "png-P-with-alpha": saved(transparent().quantize(16)),
    "png-RGB-with-a-transparent-colour": saved(drawing(), transparency=(255, 255, 255)),
    "png-RGBA": saved(transparent()),
    "png-16-bits": saved(sixteen_bits()),
    "png-16-bits-dark": saved(Image.fromarray(np.full((32, 48), 700, np.uint16))),
    "png-animated": saved(drawing(), save_all=True, append_images=[drawing().rotate(180)]),
    "png-turned": turned(6, "PNG"),
    "jpeg-L": saved(drawing("L"), "JPEG"),
    "jpeg-YCbCr": saved(drawing(), "JPEG"),
    "jpeg-CMYK-inverted-by-Adobe": saved(drawing("CMYK"), "JPEG"),
    "jpeg-progressive": saved(drawing(), "JPEG", progressive=True),
    "jpeg-with-a-second-image": saved(drawing(), "MPO", save_all=True, append_images=[drawing().rotate(180)]),
    **{f"jpeg-turned-{number}": turned(number) for number in range(1, 9)},
    "jpeg-with-an-invalid-orientation": turned(99),
    "jpeg-with-broken-exif": saved(drawing(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "webp": saved(drawing(), "WEBP", lossless=True),
    "webp-turned": turned(8, "WEBP", lossless=True),
    "webp-animated": saved(drawing(), "WEBP", lossless=True, save_all=True, append_images=[drawing().rotate(180)]),
    "gif": saved(drawing(), "GIF"),
    "gif-animated": saved(palette_with_key(), "GIF", save_all=True, append_images=[drawing().rotate(180)]),
    "bmp": saved(drawing(), "BMP"),
    "tiff-RGB": saved(drawing(), "TIFF"),
    "tiff-RGBX": saved(drawing("RGBX"), "TIFF"),
    "tiff-CMYK": saved(drawing("CMYK"), "TIFF"),
    "tiff-YCbCr": saved(drawing("YCbCr"), "TIFF"),
    "tiff-16-bits": saved(sixteen_bits(), "TIFF"),
    "tiff-turned": turned(6, "TIFF"),
    "tiff-of-two-pages": saved(drawing(), "TIFF", save_all=True, append_images=[drawing().rotate(180)]),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("read", [opened, loaded], ids=["opened", "loaded"])
def test_an_image_is_sent_with_the_pixels_of_its_file(content, read):
    assert sent_like(read(content), content)


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("bmp")])
def test_an_unread_image_is_sent_as_its_file_and_stays_readable(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    with Image.open(tmp_path / name) as image:
        assert files.bytes_of(image) == FILES[name]
        image.load()
    assert sent_like(image, FILES[name])


def test_formats_that_not_every_service_reads_are_encoded():
    for kind in ("PPM", "TGA", "PCX", "ICO"):
        image = opened(saved(drawing(size=(48, 48)), kind))
        assert sent_like(image, saved(drawing(size=(48, 48)))), kind


def test_a_loaded_image_is_sent_as_its_file_if_that_has_the_same_pixels(tmp_path):
    (tmp_path / "a.jpg").write_bytes(FILES["jpeg-turned-6"])
    image = Image.open(tmp_path / "a.jpg")
    image.load()
    assert files.bytes_of(image) == FILES["jpeg-turned-6"]
    image.putpixel((0, 0), (1, 2, 3))
    assert sent_like(ImageOps.exif_transpose(image), files.bytes_of(image))
    image = Image.open(tmp_path / "a.jpg")
    image.load()
    image.getexif()[ORIENTATION] = 1  # the image is no longer that of the file
    assert decoded(files.bytes_of(image)).shape == (32, 48, 3)
    for replaced in (saved(drawing("L"), "JPEG"), b"not an image", None):
        (tmp_path / "a.jpg").unlink()
        if replaced:
            (tmp_path / "a.jpg").write_bytes(replaced)
        image.info["comment"] = "still the old one"
        assert decoded(files.bytes_of(image)).shape == (32, 48, 3)
        assert files.bytes_of(image) != replaced


def test_the_tags_of_a_tiff_about_its_values_are_sent():
    values = np.linspace(0, 4095, 48 * 32).reshape(32, 48).astype(np.uint16)
    image = loaded(saved(Image.fromarray(values), "TIFF", tiffinfo={281: 4095, 262: 0}))
    with opened(files.bytes_of(image)) as sent:
        assert (sent.tag_v2[281], sent.tag_v2[262]) == ((4095,), 0)
        assert np.array_equal(np.asarray(sent), values)


CHANGES = {
    "painted": lambda image: image.paste("black", (0, 0, 9, 9)),
    "one-pixel": lambda image: image.putpixel((3, 3), (1, 2, 3)),
    "drawn-upon": lambda image: ImageDraw.Draw(image).rectangle((0, 0, 9, 9), fill="black"),
    "reduced": lambda image: image.thumbnail((24, 24)),
    "transparent": lambda image: image.putalpha(99),
    "turned-by-its-exif": lambda image: image.getexif().update({ORIENTATION: 3}),
    "read-in-grey": lambda image: image.draft("L", (8, 8)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_that_was_changed_in_place_is_sent_with_its_new_pixels(change):
    image, expected = opened(FILES["jpeg-YCbCr"]), opened(FILES["jpeg-YCbCr"])
    for changed in (image, expected):
        change(changed)
    sent = files.bytes_of(image)
    assert sent != FILES["jpeg-YCbCr"]
    assert np.array_equal(decoded(sent), decoded(saved(ImageOps.exif_transpose(expected))))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_current_frame_of_several_is_sent(kind):
    second = drawing().rotate(180)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(drawing(), kind, save_all=True, append_images=[second], **options)
    image = opened(content)
    image.seek(1)
    assert np.abs(decoded(files.bytes_of(image)) - decoded(saved(second))).max() <= 8  # a GIF's palette
    image.seek(0)
    assert sent_like(image, content)


DERIVED = {
    "converted": lambda image: image.convert("RGB"),
    "copied": lambda image: image.copy(),
    "transposed-by-pil": ImageOps.exif_transpose,
    "transposed-by-pil-in-place": lambda image: ImageOps.exif_transpose(image, in_place=True) or image,
    "transposed-twice": lambda image: ImageOps.exif_transpose(ImageOps.exif_transpose(image)),
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
@pytest.mark.parametrize("name", ["jpeg-turned-6", "jpeg-turned-7", "png-turned", "webp-turned", "tiff-turned"])
def test_an_orientation_is_applied_once(derive, name):
    assert sent_like(derive(opened(FILES[name])), FILES[name])


MODES = {
    "1": drawing("1"),
    "L": drawing("L"),
    "P": drawing().quantize(8),
    "P-with-a-palette-of-alpha": transparent().quantize(16),
    "PA": transparent().convert("PA"),
    "LA": transparent().convert("LA"),
    "La": transparent().convert("LA").convert("La"),
    "RGB": drawing(),
    "RGBA": transparent(),
    "RGBa": transparent().convert("RGBa"),
    "RGBX": drawing("RGBX"),
    "CMYK": drawing("CMYK"),
    "YCbCr": drawing("YCbCr"),
    "HSV": drawing("HSV"),
    "LAB": lab(),
}


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_is_sent_with_its_pixels(mode):
    grey = mode in ("1", "L", "LA", "La")
    of_alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "alpha" in mode
    expected = transparent() if of_alpha else drawing("1" if mode == "1" else "RGB")
    expected = expected.convert("LA" if of_alpha else "L") if grey else expected
    difference = np.abs(decoded(files.bytes_of(MODES[mode])) - decoded(saved(expected)))
    assert difference.max() <= (40 if mode.startswith("P") else 8)  # a palette lacks some colours


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bits_keep_their_depth_and_values(mode):
    values = np.linspace(0, 65_535, 48 * 32).reshape(32, 48).astype(np.uint16)
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (48, 32), values.astype(order).tobytes())
    with opened(files.bytes_of(image)) as sent:
        assert np.array_equal(np.asarray(sent), values)
        assert sent.format == "TIFF"


@pytest.mark.parametrize("values", [np.arange(12, dtype=np.int32), np.linspace(0, 1, 12, dtype=np.float32)])
def test_32_bit_values_are_sent_unchanged(values):
    image = Image.fromarray(values.reshape(3, 4))
    image.info["icc_profile"] = b"a profile"
    image.getexif()[ORIENTATION] = 6
    with opened(files.bytes_of(image)) as sent:
        assert (sent.format, sent.mode) == ("TIFF", image.mode)
        assert np.array_equal(np.asarray(sent), np.rot90(values.reshape(3, 4), -1))


def test_metadata_is_not_sent():
    image = loaded(saved(drawing(), "JPEG", icc_profile=b"profile", exif=turned_exif(), comment=b"secret"))
    with opened(files.bytes_of(image)) as sent:
        sent.load()
        assert not {"icc_profile", "exif", "comment"} & set(sent.info)


def turned_exif():
    exif = Image.Exif()
    exif[ORIENTATION], exif[270] = 3, "secret"
    return exif.tobytes()


def test_threads_may_send_the_same_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(FILES["jpeg-YCbCr"] + bytes(1_000_000))
    with Image.open(tmp_path / "a.jpg") as image, ThreadPoolExecutor(8) as threads:
        sent = set(threads.map(files.bytes_of, [image] * 64))
    assert sent == {(tmp_path / "a.jpg").read_bytes()}


def closed(content):
    with opened(content) as image:
        pass
    return image


def closed_by_hand(content):
    image = loaded(content)
    image.close()
    return image


def of_a_closed_file(content):
    file = io.BytesIO(content)
    image = Image.open(file)
    file.close()
    return image


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(closed(FILES["png-L"]), id="closed-before-it-was-loaded"),
        pytest.param(closed_by_hand(FILES["png-L"]), id="closed"),
        pytest.param(of_a_closed_file(FILES["png-L"]), id="of-a-closed-file"),
        pytest.param(opened(saved(drawing(), "PPM")[:-9]), id="cut-off"),
        pytest.param(Image.new("RGB", (0, 4)), id="without-pixels"),
    ],
)
def test_an_image_that_cannot_be_read_is_explained(image):
    with pytest.raises(OSError, match=r"^image: a PIL image that can't be read .*; allowed: one with pixels"):
        files.bytes_of(image)
