"""Thumbnails for the pages that evaluation writes."""

import io
from typing import Final

from PIL import Image

from polymodal.model.modalities.image.input import ImageInput

QUALITY: Final = 80  # of WebP, from 0 to 100
MEDIA_TYPE: Final = "image/webp"


def thumbnail(content: bytes, side: int) -> bytes:
    """Return an image in any accepted format as WebP of at most `side` × `side` px. Raises InputError as decoding does."""
    image = Image.fromarray(ImageInput(side=side).decode(content))
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
