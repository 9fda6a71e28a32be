"""From an uploaded picture to the pixels that the image encoder was trained on (steps 2 and 3 of a request).

H, W height and width of the decoded picture; S the side that the encoder takes, all in pixels.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from model.errors import TooLarge, Undecodable, UnsupportedFormat
from model.modalities.image.header import size_of
from model.types import Array, InputSpec, Probe

Pixels = npt.NDArray[np.uint8]

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

# Pillow's reader of each accepted format, and how it begins, as its specification says. A RIFF file names its kind at byte 8.
FORMATS: Final[Mapping[str, tuple[Opener, tuple[bytes, ...]]]] = {
    "image/jpeg": (JpegImagePlugin.jpeg_factory, (b"\xff\xd8\xff",)),
    "image/png": (PngImagePlugin.PngImageFile, (b"\x89PNG\r\n\x1a\n",)),
    "image/webp": (WebPImagePlugin.WebPImageFile, (b"RIFF",)),
    "image/gif": (GifImagePlugin.GifImageFile, (b"GIF87a", b"GIF89a")),
    "image/bmp": (BmpImagePlugin.BmpImageFile, (b"BM",)),
    "image/tiff": (TiffImagePlugin.TiffImageFile, (b"II*\x00", b"MM\x00*")),
}
ACCEPTED: Final = ", ".join(FORMATS)
KNOWN_OTHERS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "application/pdf": (b"%PDF",),
    "application/zip": (b"PK\x03\x04",),
    "text/html": (b"<!DOCTYPE", b"<!doctype", b"<html"),
    "image/svg+xml": (b"<svg",),
    "application/xml": (b"<?xml",),
}

# What turns a picture upright, by the orientation noted in it (tag 274 of EXIF); 1 is upright already.
TURNS: Final[Mapping[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BACKGROUND_TOLERANCE: Final = 10  # of 255: the noise that JPEG leaves on a plain background
WHITE: Final = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Decode any accepted picture, trim the plain margin around the drawing, and fit it into an S × S square."""

    side: int = 128
    """S: what the encoder takes; some take one side alone."""
    max_pixels: int = 50_000_000
    max_side: int = 16_384

    name: ClassVar[str] = "image"
    files: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from this input's part of a bundle's config.json."""
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Everything `load` needs."""
        return asdict(self)

    def save(self, folder: Path) -> None:
        """This input has no files."""

    def describe(self) -> InputSpec:
        """Accepted formats, and limits in pixels."""
        return InputSpec(self.name, tuple(FORMATS), {"max_pixels": self.max_pixels, "max_side": self.max_side})

    def decode(self, content: bytes | str) -> Pixels:
        """The first frame, upright, on white where it was transparent: RGB uint8 (H, W, 3).

        Very large pictures come out reduced, still with at least twice the encoder's resolution on the longer side.
        Raises UnsupportedFormat, TooLarge (from the header, before any pixel is decoded) or Undecodable.
        """
        if isinstance(content, str):
            raise UnsupportedFormat(self.name, "text instead of the bytes of a picture", ACCEPTED)
        image = self._open(content)
        try:
            longer = max(image.size)
            wanted = [max(1, 2 * self.side * side // longer) for side in image.size]
            image.draft("RGB", (wanted[0], wanted[1]))  # JPEG only: decodes at 1/2, 1/4 or 1/8, not below this size
            image.load()
            return self._flatten(_upright(image))
        except MemoryError:
            raise
        except Exception as problem:
            raise self._broken(content, problem) from problem

    def preprocess(self, decoded: Pixels) -> Pixels:
        """Trim a plain margin, then fit into a square without changing the proportions: uint8 (S, S, 3)."""
        box, background = content_box(decoded)
        left, top, right, bottom = box
        scale = self.side / max(right - left, bottom - top)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        # What is to shrink to half or less is averaged first, by the largest whole factor: six times as quick as the filter alone.
        fitted = Image.fromarray(decoded).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=1.0)
        square = Image.new("RGB", (self.side, self.side), background)
        square.paste(fitted, ((self.side - size[0]) // 2, (self.side - size[1]) // 2))
        return np.asarray(square)

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Pixels: uint8 (B, S, S, 3); normalising belongs to the encoder."""
        return {"pixels": np.stack(arrays)}

    @staticmethod
    def workload(content: bytes | str) -> float:
        """Pixels, as the header tells; of a format whose header isn't read, bytes."""
        size = size_of(content) if isinstance(content, bytes) else None
        return float(size[0] * size[1] if size else len(content))

    def probe(self) -> Probe:
        """A thumbnail, and a photograph of 640 × 480 px; the encoder takes as long for both, decoding doesn't."""
        return Probe(_photograph(64, 48), _photograph(640, 480), most=float(self.max_pixels))

    def blank(self) -> Pixels:
        """A white square."""
        return np.full((self.side, self.side, 3), 255, dtype=np.uint8)

    def _open(self, content: bytes) -> Image.Image:
        """Read the header alone, and check it against the limits."""
        media_type = sniff(content)
        if not content:
            raise Undecodable(self.name, "0 bytes", f"a whole picture ({ACCEPTED})")
        if media_type is None or media_type not in FORMATS:
            raise UnsupportedFormat(self.name, media_type or "bytes of no known picture format", ACCEPTED)
        opener, _ = FORMATS[media_type]
        try:
            # Not Image.open: Pillow's guard would refuse, or merely warn, by its own numbers before we could name ours. It
            # still guards what a reader allocates while it reads the header, such as the first frame of a GIF.
            image = opener(io.BytesIO(content))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
            found = "a header that asks for a vast picture"
            raise TooLarge(self.name, found, f"at most {self.max_pixels:,} pixels in all") from problem
        except MemoryError:
            raise
        except Exception as problem:
            raise self._broken(content, problem) from problem
        width, height = image.size
        found = f"{width:,} × {height:,} px"
        if width * height > self.max_pixels:
            raise TooLarge(self.name, found, f"at most {self.max_pixels:,} pixels in all")
        if max(width, height) > self.max_side:
            raise TooLarge(self.name, found, f"sides of at most {self.max_side:,} px")
        return image

    def _flatten(self, image: Image.Image) -> Pixels:
        """From whatever mode to RGB on white; 16 bits per channel keep their upper 8."""
        if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it to white
            wide = np.asarray(image)
            image = Image.fromarray((np.clip(wide, 0, 65_535) >> 8).astype(np.uint8))
        transparent = image.has_transparency_data
        image = image.convert("RGBA" if transparent else "RGB")
        # A box filter is cheap; trimming and resizing then work on at most 16 × S.
        factor = max(image.size) // (8 * self.side)
        if factor > 1:
            image = image.reduce(factor)
        if transparent:
            canvas = Image.new("RGBA", image.size, (*WHITE, 255))
            image = Image.alpha_composite(canvas, image).convert("RGB")
        return np.asarray(image)

    def _broken(self, content: bytes, problem: Exception) -> Undecodable:
        found = f"{sniff(content)} of {len(content):,} bytes that is truncated or corrupt"
        error = Undecodable(self.name, found, f"a whole picture ({ACCEPTED})")
        error.add_note(f"{type(problem).__name__}: {problem}")  # for the log; never sent to a client
        return error


def sniff(content: bytes) -> str | None:
    """The media type that the first bytes say, whatever the sender declared; None when they say nothing known."""
    for media_type, (_, beginnings) in FORMATS.items():
        if content.startswith(beginnings) and (media_type != "image/webp" or content[8:12] == b"WEBP"):
            return media_type
    return next((kind for kind, starts in KNOWN_OTHERS.items() if content.lstrip().startswith(starts)), None)


def _photograph(width: int, height: int) -> bytes:
    """A JPEG of soft noise, with about as many bytes as a photograph of its size."""
    coarse = Image.effect_noise((max(1, width // 4), max(1, height // 4)), 64)
    content = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).convert("RGB").save(content, "JPEG", quality=85)
    return content.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its header says; phones write that instead of turning the pixels.

    Not ImageOps.exif_transpose, which also writes the rest of the metadata anew and refuses a picture for a broken entry.
    """
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001 — whatever Pillow trips over in broken metadata; the pixels are fine
        return image
    return image if turn is None else image.transpose(turn)


def content_box(pixels: Pixels) -> tuple[tuple[int, int, int, int], tuple[int, int, int]]:
    """The box (left, top, right, bottom) around what differs from a plain background, and that background's RGB.

    The background is plain when the four corners agree; otherwise (a photograph) the whole picture is the content, on
    white. A picture of one colour is its own content.
    """
    height, width, _ = pixels.shape
    whole = (0, 0, width, height)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.int16)  # (4, 3)
    background = np.median(corners, axis=0).astype(np.int16)
    if np.abs(corners - background).max() > BACKGROUND_TOLERANCE:
        return whole, WHITE
    low = np.clip(background - BACKGROUND_TOLERANCE, 0, 255).astype(np.uint8)
    high = np.clip(background + BACKGROUND_TOLERANCE, 0, 255).astype(np.uint8)
    drawn = ((pixels < low) | (pixels > high)).any(axis=2)  # (H, W)
    red, green, blue = (int(channel) for channel in background)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not rows.size:
        return whole, (red, green, blue)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), (red, green, blue)
