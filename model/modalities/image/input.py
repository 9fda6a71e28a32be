"""Decode and preprocess images (steps 2 and 3 of a request).

H, W height and width of the decoded image; S the side that the encoder takes, all in pixels.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImagePalette,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from polymodal.model.errors import InputError, TooLarge, Undecodable, UnsupportedFormat
from polymodal.model.modalities.image.bmff import CODECS
from polymodal.model.modalities.image.formats import Unread, sniff, unread
from polymodal.model.modalities.image.header import MOST_WORK, WHOLE, size_of, work_of
from polymodal.model.modalities.image.levels import FULL, SAMPLE_FORMAT, Levels, check_colours, levels_of
from polymodal.model.modalities.image.metadata import Stripped, strip_metadata
from polymodal.model.types import Array, InputSpec, Probe, Workload

Pixels = npt.NDArray[np.uint8]

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


class _WebP(WebPImagePlugin.WebPImageFile):
    """Pillow's reader, freeing its decoder's two canvases after the first frame."""

    def _get_next(self) -> tuple[bytes, int, int]:
        frame = super()._get_next()
        del self._decoder
        return frame


class _Avif(AvifImagePlugin.AvifImageFile):
    """Pillow's reader, freeing its decoder's planes as soon as the pixels are copied."""

    def load(self) -> Any:  # noqa: ANN401 - as Pillow's
        if self.tile:
            content, _, _, _ = self._decoder.get_frame(0)
            del self._decoder
            self.fp = io.BytesIO(content)
            del content
            return ImageFile.ImageFile.load(self)
        return super().load()


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's reader, naming the layout of samples that it cannot read."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError as problem:
            if str(problem) != "unknown pixel mode" or not {TIFF_BITS, TIFF_PHOTOMETRIC} <= set(self.tag_v2):
                raise
            bits, photometric = self.tag_v2[TIFF_BITS], self.tag_v2[TIFF_PHOTOMETRIC]
            kind = {2: "signed integers", 3: "floating-point numbers"}.get(
                self.tag_v2.get(SAMPLE_FORMAT, (1,))[0], "integers"
            )
            layout = (
                f"image/tiff of {kind} of {' + '.join(map(str, bits))} bits, photometric interpretation {photometric}"
            )
            raise Unread(layout, "save it with 8 bits a channel, or as PNG") from problem
        if self.use_load_libtiff:
            return
        if self.mode == "YCbCr" and self.tag_v2.get(TIFF_SUBSAMPLING, (2, 2)) != (1, 1):
            raise Unread(
                "image/tiff of uncompressed YCbCr with fewer samples of colour", "save it as RGB, or compressed by JPEG"
            )
        if self.tile[0].args and self.tile[0].args[0] in TIFF_REVERSED:
            raise Unread(
                "image/tiff with the bits of each byte in reverse (FillOrder 2)",
                "save it in the usual order, or as PNG",
            )


AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker decodes in one thread, however many it has

# Pillow's reader of each format that this installation decodes.
FORMATS: Final[dict[str, Opener]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/webp": _WebP,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": _Tiff,
}
if features.check("avif"):
    FORMATS["image/avif"] = _Avif
try:
    from pillow_heif import options as _heif  # of the extra heif
    from pillow_heif.as_plugin import HeifImageFile
except ImportError:
    pass
else:
    _heif.DECODE_THREADS = 1
    _heif.THUMBNAILS = _heif.DEPTH_IMAGES = _heif.AUX_IMAGES = False
    FORMATS["image/heic"] = HeifImageFile
# Allowed compressions of a format: libtiff would also try WebP, Zstandard, LZMA and a dozen others, and Pillow
# unpacks a BMP's run lengths byte by byte in Python (7 s for a file of 12 KB).
PACKINGS: Final[Mapping[str, Mapping[object, str]]] = {
    "image/bmp": {0: "none", 3: "bit fields"},
    "image/tiff": {
        "raw": "none",
        "tiff_lzw": "LZW",
        "tiff_deflate": "deflate",
        "tiff_adobe_deflate": "deflate",
        "packbits": "PackBits",
        "jpeg": "JPEG",
        "tiff_ccitt": "CCITT",
        "group3": "CCITT",
        "group4": "CCITT",
    },
}
# Transposition that turns an image upright, by its orientation (tag 274 of EXIF); 1 is upright.
TURNS: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_THEIR_SIDE: Final = frozenset(TURNS[code] for code in (5, 6, 7, 8))
FROM_THE_END: Final = frozenset(TURNS[code] for code in (3, 4, 7, 8))
"""Transpositions after which the last row, or the last column, is the first row."""
BAND_PIXELS: Final = 2**20
"""Pixels that are converted at a time: a whole image in three modes at once would take three times its memory."""
BAND_ROWS: Final = 64  # compared at a time
TIFF_WIDTH, TIFF_HEIGHT, TIFF_STRIP_ROWS, TIFF_BITS = (322, 256), (323, 257), 278, 258
TIFF_REVERSED: Final = frozenset({"L;IR", "P;1R", "P;2R", "P;4R"})  # layouts that Pillow recognises but cannot unpack
TIFF_PHOTOMETRIC, TIFF_COLOURS, TIFF_SUBSAMPLING = 262, 320, 530
BACKGROUND_TOLERANCE: Final = 10  # of 255: the noise that JPEG leaves on a plain background
PNG_DEPTH: Final = 24  # the byte of a PNG with the bits of a sample
FLOAT_SHADES: Final = Levels(0.0, 255.0, whole=False)
"""Levels of floating-point numbers from 0 to 255, which Pillow converts."""
WHITE: Final = (255, 255, 255)
FRAMINGS: Final = ("trim", "crop", "stretch")
LONGEST: Final = 64
"""Longest side of a resized image that is cut, in sides of the square."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Decodes an image and makes it an S × S square, by its `framing`."""

    side: int = 128
    """S, the side that the encoder takes; some take only one."""
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    framing: str = "trim"
    """trim: trim a plain margin, and fit the rest into the square with a border. crop: resize the shorter side to `resized`, and
    cut the square out of the centre. stretch: resize both sides to `resized`, whatever the proportions, and cut the square out."""
    resized: int = 0
    """Side before cutting, in pixels; 0: S."""
    filter: str = "bicubic"
    """Name of Pillow's filter for resizing."""

    name: ClassVar[str] = "image"
    files: ClassVar[tuple[str, ...]] = ()
    free_axes: ClassVar[Mapping[str, Mapping[int, str]]] = {}

    def __post_init__(self) -> None:
        """Raise ValueError for a framing or filter that is not known."""
        filters = [entry.name.lower() for entry in Image.Resampling]
        for name, value, allowed in (("framing", self.framing, FRAMINGS), ("filter", self.filter, filters)):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r}; allowed: {', '.join(allowed)}")

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from this input's entry in a bundle's config.json."""
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that `load` needs; what was added to the layout later is left out where it has its default."""
        later = {entry.name: entry.default for entry in fields(self) if entry.name in ("framing", "resized", "filter")}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    def save(self, folder: Path) -> None:
        """Write nothing, because this input has no files."""

    def describe(self) -> InputSpec:
        """Return accepted formats, and limits in pixels."""
        return InputSpec(self.name, tuple(FORMATS), {"max_pixels": self.max_pixels, "max_side": self.max_side})

    def decode(self, content: bytes | str) -> Pixels:
        """Return the first frame, upright, on white where it was transparent: RGB uint8 (H, W, 3).

        Very large images are reduced, to at least twice the encoder's resolution on the longer side.
        Raises UnsupportedFormat, TooLarge (from the header, before any pixel is decoded) or Undecodable.
        """
        if isinstance(content, str):
            raise UnsupportedFormat(self.name, "text instead of the bytes of a picture", accepted())
        try:
            media_type = self._sniff(content)
            if media_type in CODECS and (size := size_of(content)):
                self._check_size(*size)
            stripped = strip_metadata(media_type, content)
            pixels = self._pixels(media_type, stripped)
            if stripped.other_ending:
                self._check_ending(pixels, media_type, replace(stripped, content=stripped.other_ending))
        except (InputError, MemoryError):
            raise
        except Unread as problem:
            raise UnsupportedFormat(self.name, str(problem), f"{accepted()}; {problem.advice}") from problem
        except Exception as problem:
            raise self._broken(content, problem) from problem
        return pixels

    def preprocess(self, decoded: Pixels) -> Pixels:
        """Return the square: uint8 (S, S, 3). Without trimming it is what Pillow makes of whole images, pixel by pixel."""
        return self._trimmed(decoded) if self.framing == "trim" else self._cut(decoded)

    def _trimmed(self, decoded: Pixels) -> Pixels:
        """Trim a plain margin, then fit into a square without changing the proportions."""
        box, background = content_box(decoded)
        left, top, right, bottom = box
        scale = self.side / max(right - left, bottom - top)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        # Images that shrink to half or less are averaged first, by the largest whole factor: six times as fast as the filter alone.
        fitted = Image.fromarray(decoded).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=1.0)
        square = Image.new("RGB", (self.side, self.side), background)
        square.paste(fitted, ((self.side - size[0]) // 2, (self.side - size[1]) // 2))
        return np.asarray(square)

    def _cut(self, decoded: Pixels) -> Pixels:
        """Resize, then cut a square out of the centre; where the image is smaller, the rest is black."""
        height, width = decoded.shape[:2]
        side = self.resized or self.side
        new_width, new_height = side, side
        if self.framing == "crop":
            longer = int(side * max(width, height) / min(width, height))
            new_width, new_height = (longer, side) if width >= height else (side, longer)
        left, top = (new_width - self.side) // 2, (new_height - self.side) // 2
        image, resample = Image.fromarray(decoded), Image.Resampling[self.filter.upper()]
        if max(new_width, new_height) <= LONGEST * side:
            return np.asarray(
                image.resize((new_width, new_height), resample).crop((left, top, left + self.side, top + self.side))
            )
        # Of a very long image only what is cut out is resized: less memory, and pixels that differ by rounding.
        box = (
            max(0, left) * width / new_width,
            max(0, top) * height / new_height,
            min(new_width, left + self.side) * width / new_width,
            min(new_height, top + self.side) * height / new_height,
        )
        kept = image.resize((min(self.side, new_width), min(self.side, new_height)), resample, box=box)
        square = Image.new("RGB", (self.side, self.side))
        square.paste(kept, (max(0, -left), max(0, -top)))
        return np.asarray(square)

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Return pixels uint8 (B, S, S, 3); the encoder normalises them."""
        return {"pixels": np.stack(arrays)}

    @staticmethod
    def workload(content: bytes | bytearray | str) -> Workload:
        """Estimate the work from the header, or from the number of bytes without one."""
        return Workload(WHOLE, float(len(content))) if isinstance(content, str) else work_of(content)

    def probes(self) -> tuple[Probe, ...]:
        """Return a photograph, which is decoded at a reduced size, and a drawing, which is decoded whole."""
        most = float(MOST_WORK * self.max_pixels)
        return tuple(
            Probe(make(64, 48), make(*size), most, embeds_alike=True)
            for make, size in ((_photograph, (1600, 1200)), (_drawing, (1024, 768)))
        )

    def blank(self) -> Pixels:
        """Return a white square."""
        return np.full((self.side, self.side, 3), 255, dtype=np.uint8)

    def _sniff(self, content: bytes) -> str:
        if not content:
            raise Undecodable(self.name, "0 bytes", f"a whole picture ({accepted()})")
        media_type = sniff(content)
        if media_type is None:
            raise unread(content)
        if media_type not in FORMATS:
            raise Unread(f"{media_type}, for which this installation has no decoder", "export it as PNG or JPEG")
        return media_type

    def _pixels(self, media_type: str, stripped: Stripped) -> Pixels:
        """Open, check, load and flatten."""
        image = self._open(media_type, stripped)
        # Twice the size before cutting, so that the filter has the last word.
        fitted = max(image.size) if self.framing == "trim" else min(image.size)
        draft = [max(1, 2 * (self.resized or self.side) * side // fitted) for side in image.size]
        if media_type == "image/jpeg":
            image.draft("RGB", (draft[0], draft[1]))  # decodes at 1/2, 1/4 or 1/8, not below this size
        image.load()
        levels = FULL
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            if image.mode == "F" or image.mode.startswith("I"):
                levels = levels_of(image, image.tag_v2, inverted=stripped.inverted)
            check_colours(image, image.tag_v2)
        turn = TURNS.get(stripped.orientation)
        if stripped.size is None:
            return self._flatten(image, turn, levels)
        if image.size != stripped.size:
            raise ValueError(f"{image.size} px instead of those of the header")
        return self._flatten(image.crop(stripped.crop) if stripped.crop else image, turn, levels)

    def _check_ending(self, pixels: Pixels, media_type: str, other: Stripped) -> None:
        if not np.array_equal(pixels, self._pixels(media_type, other)):
            raise ValueError("it ends within its pixels")

    def _open(self, media_type: str, stripped: Stripped) -> ImageFile.ImageFile:
        """Read the header alone, and check it against the limits."""
        if stripped.size:
            self._check_size(*stripped.size)
        try:
            # Not Image.open: Pillow's guard would reject or warn by its own limits before ours. It still guards allocations
            # while the header is read, such as the first frame of a GIF.
            image = FORMATS[media_type](io.BytesIO(stripped.content))
            piece_bytes = _tiff_piece_bytes(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
            header = "a header that states a vast size"
            raise TooLarge(self.name, header, f"at most {self.max_pixels:,} pixels in all") from problem
        self._check_size(*image.size)
        # libtiff decompresses a whole strip or tile at once, and a tile may be larger than its image.
        if piece_bytes > 4 * self.max_pixels:
            piece = f"a strip or tile of {piece_bytes:,} bytes"
            raise TooLarge(self.name, piece, f"strips and tiles of at most {4 * self.max_pixels:,} bytes")
        packings = PACKINGS.get(media_type)
        if packings is not None and (packing := image.info.get("compression")) not in packings:
            allowed = ", ".join(dict.fromkeys(packings.values()))
            raise UnsupportedFormat(
                self.name, f"{media_type} compressed by method {packing}", f"compression by {allowed}"
            )
        if media_type == "image/png":
            _scale_transparency(image, stripped.content[PNG_DEPTH])
        elif isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("P", "PA"):
            _scale_palette(image)
        return image

    def _check_size(self, width: int, height: int) -> None:
        size = f"{width:,} × {height:,} px"
        if width * height > self.max_pixels:
            raise TooLarge(self.name, size, f"at most {self.max_pixels:,} pixels in all")
        if max(width, height) > self.max_side:
            raise TooLarge(self.name, size, f"sides of at most {self.max_side:,} px")

    def _flatten(self, image: Image.Image, turn: Image.Transpose | None, levels: Levels) -> Pixels:
        """Turn upright and convert any mode to RGB on white, band by band; 16 bits per channel keep their upper 8."""
        width, height = image.size if turn not in ON_THEIR_SIDE else image.size[::-1]
        # A box filter is cheap; trimming and resizing then work on at most 16 × S.
        fitted = max(image.size) if self.framing == "trim" else min(image.size)
        factor = max(1, fitted // (8 * (self.resized or self.side)))
        rows = factor * max(1, BAND_PIXELS // (width * factor))  # so that no block of the filter is in two bands
        if rows >= height:
            return _on_white(_band(image, turn, 0, height), factor, levels)
        flat = np.empty((-(-height // factor), -(-width // factor), 3), dtype=np.uint8)
        for top in range(0, height, rows):
            band = _on_white(_band(image, turn, top, min(top + rows, height)), factor, levels)
            flat[top // factor : top // factor + len(band)] = band
        return flat

    def _broken(self, content: bytes, problem: Exception) -> Undecodable:
        file = f"{sniff(content)} of {len(content):,} bytes that is truncated or corrupt"
        error = Undecodable(self.name, file, f"a whole picture ({accepted()})")
        error.add_note(f"{type(problem).__name__}: {problem}")  # for the log, not for clients
        return error


INPUT: Final = ImageInput
"""Imported by `Modality.input`."""


def accepted() -> str:
    """Return the media types that this installation decodes, for messages."""
    return ", ".join(FORMATS)


class _File(io.BytesIO):
    name: str  # Pillow chooses the writer by its suffix; with the format as an argument, it would load all its writers


def _photograph(width: int, height: int) -> bytes:
    """Return a JPEG of soft noise, with about as many bytes as a photograph of its size."""
    return _noise("photograph.jpg", (width, height), 4, Image.Resampling.BICUBIC, quality=85)


def _drawing(width: int, height: int) -> bytes:
    """Return a PNG of plain squares."""
    return _noise("drawing.png", (width, height), 16, Image.Resampling.NEAREST, compress_level=1)


def _noise(
    name: str,
    size: tuple[int, int],
    grain: int,
    resample: Image.Resampling,
    **options: Any,  # noqa: ANN401 - as Pillow's
) -> bytes:
    """Return an image file of noise whose grains have a side of `grain` pixels."""
    coarse = Image.effect_noise((max(1, size[0] // grain), max(1, size[1] // grain)), 64)
    file = _File()
    file.name = name
    coarse.resize(size, resample).convert("RGB").save(file, **options)
    return file.getvalue()


def _tiff_piece_bytes(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return the decompressed size of the largest strip or tile."""
    tags = image.tag_v2
    tiled = TIFF_WIDTH[0] in tags
    width, height = int(tags[TIFF_WIDTH[not tiled]]), int(tags[TIFF_HEIGHT[not tiled]])
    rows = height if tiled else min(height, int(tags.get(TIFF_STRIP_ROWS, height)))
    return width * rows * sum(tags.get(TIFF_BITS, (1,))) // 8


def _band(image: Image.Image, turn: Image.Transpose | None, top: int, bottom: int) -> Image.Image:
    """Return these rows of the turned image: phones store an orientation instead of turning the pixels."""
    width, height = image.size
    length = width if turn in ON_THEIR_SIDE else height
    first, last = (length - bottom, length - top) if turn in FROM_THE_END else (top, bottom)
    box = (first, 0, last, height) if turn in ON_THEIR_SIDE else (0, first, width, last)
    band = image if box == (0, 0, width, height) else image.crop(box)
    return band if turn is None else band.transpose(turn)


def _on_white(image: Image.Image, factor: int, levels: Levels) -> Pixels:
    """Return RGB uint8, reduced by a whole factor."""
    if image.mode.startswith("I") or (image.mode == "F" and levels != FLOAT_SHADES):  # Pillow would clip it to white
        transparent_grey = image.info.get("transparency")
        samples = np.asarray(image)
        shades = levels.shades(samples)
        if isinstance(transparent_grey, int):
            shades[samples == transparent_grey] = 255
        image = Image.fromarray(shades)
    elif image.mode == "La":
        image = image.convert("LA")  # Pillow has no way from here to RGBA
    transparent = image.has_transparency_data
    image = image.convert("RGBA" if transparent else "RGB")
    if factor > 1:
        image = image.reduce(factor)
    if transparent:
        canvas = Image.new("RGBA", image.size, (*WHITE, 255))
        image = Image.alpha_composite(canvas, image).convert("RGB")
    return np.asarray(image)


def _scale_transparency(image: Image.Image, depth: int) -> None:
    """Scale a PNG's transparent shade or colour to 8 bits, which Pillow forgets."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and depth < 8:
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple) and depth == 16:
        image.info["transparency"] = tuple(channel >> 8 for channel in colour)


def _scale_palette(image: TiffImagePlugin.TiffImageFile) -> None:
    """Scale palettes of TIFFs in which programs wrote 8 bits per colour instead of 16, as libtiff does."""
    colours = image.tag_v2[TIFF_COLOURS]
    if max(colours) < 256:
        third = len(colours) // 3
        interleaved = [channel for colour in range(third) for channel in colours[colour::third]]
        image.palette = ImagePalette.raw("RGB", bytes(interleaved))


def content_box(pixels: Pixels) -> tuple[tuple[int, int, int, int], tuple[int, int, int]]:
    """Return the box (left, top, right, bottom) that differs from a plain background, and that background's RGB.

    The background is plain when the four corners agree; otherwise (a photograph) the whole image is the content, on
    white. An image of one colour is its own content.
    """
    height, width, _ = pixels.shape
    whole = (0, 0, width, height)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.int16)  # (4, 3)
    background = np.median(corners, axis=0).astype(np.int16)
    if np.abs(corners - background).max() > BACKGROUND_TOLERANCE:
        return whole, WHITE
    # A row is compared as one line of bytes, which is fifty times as fast as by pixels of three.
    low = np.tile(np.clip(background - BACKGROUND_TOLERANCE, 0, 255).astype(np.uint8), width)
    high = np.tile(np.clip(background + BACKGROUND_TOLERANCE, 0, 255).astype(np.uint8), width)
    drawn_rows, drawn_columns = np.zeros(height, dtype=bool), np.zeros(3 * width, dtype=bool)
    for top in range(0, height, BAND_ROWS):
        lines = pixels[top : top + BAND_ROWS].reshape(-1, 3 * width)
        drawn = (lines < low) | (lines > high)
        drawn_rows[top : top + BAND_ROWS] = drawn.any(axis=1)
        drawn_columns |= drawn.any(axis=0)
    red, green, blue = (int(channel) for channel in background)
    rows, columns = np.flatnonzero(drawn_rows), np.flatnonzero(drawn_columns.reshape(-1, 3).any(axis=1))
    if not rows.size:
        return whole, (red, green, blue)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), (red, green, blue)
