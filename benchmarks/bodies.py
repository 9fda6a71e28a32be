"""What every service of a benchmark is asked: 64 different photographs of 640 × 480 px, each with a caption of its own.

They are made here from the example pictures, so that nothing has to be downloaded and every run has the same bytes.
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
WORDS: Final = (
    "a boat on a lake", "fresh fruit for a salad", "a camera on the table", "two people at karate", "a yellow flower",
    "an old map of the harbour", "tools for the garden", "a red flag in the wind", "an animal asleep", "signs at a station",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One picture with its text."""

    image: bytes
    """A JPEG."""
    text: str

    @property
    def form(self) -> bytes:
        """Both as multipart/form-data."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n{self.text}\r\n--{BOUNDARY}\r\n'
        part = (
            'Content-Disposition: form-data; name="image"; filename="picture.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        return (head + part).encode() + self.image + f"\r\n--{BOUNDARY}--\r\n".encode()


def items(count: int = COUNT) -> list[Item]:
    """The first `count` items, the same ones in every run."""
    drawings = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.png"))]
    return [Item(_photograph(drawings, number), _caption(number)) for number in range(count)]


def _photograph(drawings: list[Image.Image], number: int) -> bytes:
    """A drawing before a noisy, uneven background, as a camera would see it."""
    chance = np.random.default_rng(number)
    coarse = chance.integers(60, 220, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    grain = chance.normal(0, 6, (SIZE[1], SIZE[0], 3))
    picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)).filter(ImageFilter.SMOOTH)
    side = int(chance.integers(240, 440))
    drawing = (
        drawings[number % len(drawings)].resize((side, side)).rotate(float(chance.uniform(-20, 20)), fillcolor="white")
    )
    picture.paste(drawing, (int(chance.integers(0, SIZE[0] - side)), int(chance.integers(0, SIZE[1] - side))))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    return content.getvalue()


def _caption(number: int) -> str:
    return f"{WORDS[number % len(WORDS)]}, {WORDS[number * 7 // 5 % len(WORDS)]}, item {number:08d}"
