"""The image tower of a dual encoder: its preprocessing, and a module from pixels to a vector."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from polymodal.model.errors import ModelError
from polymodal.model.modalities.image.encoders import Normalise
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.modalities.towers import DualEncoder, Tower, loaded, pooled
from polymodal.model.types import FloatArray

SIZES: Final = ((96, 64), (60, 150), (300, 300))
"""Width and height of the golden inputs: a wide, a tall and a square one, larger and smaller than these models take."""


class _ImageTower(nn.Module):
    """Pixels uint8 (B, S, S, 3) to vectors (B, V)."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return pooled(self.model.get_image_features(pixel_values=self.normalise(pixels)))  # type: ignore[operator]


def read_tower(dual: DualEncoder) -> Tower:
    """Return the image tower. Raises ModelError, also for preprocessing that ours can't do."""
    # Pillow, with which these models were trained, and not torchvision, which transformers prefers and whose pixels differ.
    processor = loaded(dual.address, dual.library.AutoImageProcessor.from_pretrained, dual.folder, backend="pil")
    settings: Mapping[str, Any] = processor.to_dict()
    try:
        entry = _input(settings, int(dual.model.config.vision_config.image_size))
        normalised = settings["do_normalize"]
        mean, std = (list(settings[name]) if normalised else [fallback] * 3 for name, fallback in _STATISTICS)
    except (KeyError, TypeError, ValueError) as problem:
        raise ModelError(f"{dual.address}: preprocessing of images that cannot be packed: {problem}") from problem

    @torch.inference_mode()
    def reference(files: Sequence[bytes | str]) -> FloatArray:
        images = [Image.open(io.BytesIO(bytes(file))) for file in files if isinstance(file, bytes)]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        vectors: FloatArray = pooled(dual.model.get_image_features(pixel_values=pixels)).numpy()
        return vectors

    return Tower(entry, _ImageTower(dual.model, mean, std), [_drawing(*size) for size in SIZES], reference)


_STATISTICS: Final = (("image_mean", 0.0), ("image_std", 1.0))


def _input(settings: Mapping[str, Any], side: int) -> ImageInput:
    """Return our input with the preprocessing of an image processor. Raises ValueError, KeyError or TypeError."""
    if not settings["do_rescale"] or not math.isclose(settings["rescale_factor"], 1 / 255, rel_tol=1e-6):
        raise ValueError("pixels are not scaled to 0 … 1")
    if not settings["do_resize"] or settings.get("do_pad"):
        raise ValueError("images are not resized, or padded")
    size = {name: value for name, value in dict(settings["size"]).items() if value}
    if set(size) == {"shortest_edge"}:
        framing, resized = "crop", int(size["shortest_edge"])
    elif set(size) == {"height", "width"} and size["height"] == size["width"]:
        framing, resized = "stretch", int(size["height"])
    else:
        raise ValueError(f"size {size}; allowed: shortest_edge, or height and width that are equal")
    cut = dict(settings["crop_size"]) if settings.get("do_center_crop") else {"height": resized, "width": resized}
    if not cut["height"] == cut["width"] == side:
        raise ValueError(f"images of {cut['width']} × {cut['height']} px; the model takes {side} × {side}")
    if framing == "crop" and not settings.get("do_center_crop"):
        raise ValueError("images are not cut to a square")
    return ImageInput(
        side,
        framing=framing,
        resized=resized if resized != side else 0,
        filter=Image.Resampling(settings["resample"]).name.lower(),
    )


def _drawing(width: int, height: int) -> bytes:
    """Return a PNG of gradients with a plain square: the same bytes of pixels on every machine."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * columns // width, 255 * rows // height, (7 * columns + 3 * rows) % 256], axis=2)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (230, 40, 10)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
