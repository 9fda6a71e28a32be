"""Request bodies of the benchmarks: 64 different photographs of 640 × 480 px, each with a caption of its own.

They are made from the example images, so that nothing is downloaded and every run sends the same bytes.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

COUNT: Final = 64
SIZE: Final = (640, 480)
BOUNDARY: Final = "polymodal-benchmark"
EXAMPLES: Final = Path(__file__).parents[1] / "examples"
PHRASES: Final = (
    "a boat on a lake", "fresh fruit for a salad", "a camera on the table", "two people at karate", "a yellow flower",
    "an old map of the harbour", "tools for the garden", "a red flag in the wind", "an animal asleep", "signs at a station",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """An image with its text."""

    image: bytes
    """A JPEG."""
    text: str

    @property
    def inputs(self) -> dict[str, bytes | str]:
        """Inputs by modality, as `prepare` takes them."""
        return {"image": self.image, "text": self.text}

    @property
    def form(self) -> bytes:
        """Both inputs as multipart/form-data."""
        return (
            (
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n{self.text}\r\n'
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture.jpg"\r\n'
                "Content-Type: image/jpeg\r\n\r\n"
            ).encode()
            + self.image
            + f"\r\n--{BOUNDARY}--\r\n".encode()
        )


def items(count: int = COUNT) -> list[Item]:
    """Return the first `count` items, the same ones in every run."""
    drawings = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.png"))]
    return [Item(_photograph(drawings, number), _caption(number)) for number in range(count)]


def _photograph(drawings: list[Image.Image], number: int) -> bytes:
    """Return a drawing before a noisy, uneven background, as a camera would see it."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(60, 220, (6, 8, 3), dtype=np.uint8)
    background = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
    pixels = np.clip(np.asarray(background) + grain, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).filter(ImageFilter.SMOOTH)
    side = int(rng.integers(240, 440))
    drawing = drawings[number % len(drawings)].resize((side, side))
    drawing = drawing.rotate(float(rng.uniform(-20, 20)), fillcolor="white")
    image.paste(drawing, (int(rng.integers(0, SIZE[0] - side)), int(rng.integers(0, SIZE[1] - side))))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=88)
    return content.getvalue()


def _caption(number: int) -> str:
    return f"{PHRASES[number % len(PHRASES)]}, {PHRASES[number * 7 // 5 % len(PHRASES)]}, item {number:08d}"
