"""A toy data set of drawn shapes, for classification from image and caption.

Of a label such as "red wood", the image shows the colour and the caption names the material; shape, size and place are random.
A classifier is therefore right half of the time with either input alone, and always with both.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from polymodal.model.errors import ModelError
from polymodal.model.manifest import Row, write_manifest
from polymodal.model.training.splits import split_rows

SIDE: Final = 96  # px
LICENCE: Final = "CC0-1.0"
SHAPES: Final = ("circle", "ellipse", "triangle", "square", "star")
PAINTS: Final = {"red": (208, 48, 48), "blue": (52, 98, 196)}
MATERIALS: Final = {"wood": ("oak", "pine", "bamboo", "walnut"), "metal": ("steel", "copper", "brass", "tin")}
SENTENCES: Final = (
    "a {shape} made of {material}",
    "{shape}, {material} inside",
    "paint over a {shape} cut from {material}",
    "{material} {shape} with a new coat",
)


def build(out: Path, *, rows: int = 300, seed: int = 0, groups: bool = False, splits: bool = False) -> str:
    """Draw `rows` shapes into the folder `out`, equally many of each label, and return a summary.

    With `groups` every shape is drawn twice, at two places and angles, and both drawings are one group. With `splits` the
    manifest has the splits that training would make with the split seed 0. The same arguments give the same files. Raises
    ModelError when `out` holds other files.
    """
    _prepare_folder(out)
    chance = np.random.default_rng(seed)
    labels = [(paint, material) for paint in PAINTS for material in MATERIALS]
    views = 2 if groups else 1  # drawings of each shape
    drawn: list[Row] = []
    for number in range(rows):
        if number % views == 0:
            paint, material = labels[number // views % len(labels)]
            shape, stuff = str(chance.choice(SHAPES)), str(chance.choice(MATERIALS[material]))
        text = str(chance.choice(SENTENCES)).format(shape=shape, material=stuff)
        image = out / "images" / f"{number + 1:05}.png"
        _draw(shape, PAINTS[paint], chance).save(image)
        group = f"thing-{number // views + 1}" if groups else str(number + 1)
        inputs: dict[str, Path | str] = {"image": image, "text": text}
        drawn.append(Row(str(number + 1), inputs, f"{paint} {material}", group, "", "shapes", LICENCE))
    write_manifest(out / "manifest.csv", split_rows(drawn, seed=0) if splits else drawn)
    return f"{out / 'manifest.csv'}: {rows} rows, {len(labels)} labels"


def _prepare_folder(out: Path) -> None:
    """Make an empty folder images/, unless `out` holds other files."""
    if out.exists() and any(out.iterdir()) and not (out / "images/00001.png").is_file():
        raise ModelError(f"{out}: holds other files; allowed: a new or empty folder, or one with older shapes")
    shutil.rmtree(out / "images", ignore_errors=True)
    (out / "images").mkdir(parents=True)


def _draw(shape: str, paint: Sequence[int], chance: np.random.Generator) -> Image.Image:
    """Draw a shape on white, in a shade of its paint, at a random place and angle, with a few grey specks around it."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    canvas = ImageDraw.Draw(image)
    red, green, blue = (int(value) for value in np.clip(np.asarray(paint) + chance.integers(-32, 33, size=3), 0, 255))
    radius = float(chance.uniform(16, 34))
    x, y = (float(value) for value in chance.uniform(radius + 4, SIDE - radius - 4, size=2))
    turn = float(chance.uniform(0, 2 * math.pi))
    canvas.polygon(_outline(shape, x, y, radius, turn), fill=(red, green, blue), outline="black")
    for _ in range(int(chance.integers(3, 7))):
        left, top = chance.integers(2, SIDE - 6, size=2).tolist()
        size = int(chance.integers(1, 4))
        canvas.rectangle((left, top, left + size, top + size), fill="grey")
    return image


def _outline(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around (x, y) in pixels, turned by `turn` radians; curves have many."""
    corners = {"triangle": 3, "square": 4, "star": 10}.get(shape, 72)
    points = []
    for number in range(corners):
        angle = 2 * math.pi * number / corners
        reach = radius * (0.45 if shape == "star" and number % 2 else 1.0)
        across, along = reach * math.cos(angle), reach * math.sin(angle) * (0.6 if shape == "ellipse" else 1.0)
        right, down = across * math.cos(turn) - along * math.sin(turn), across * math.sin(turn) + along * math.cos(turn)
        points.append((x + right, y + down))
    return points
