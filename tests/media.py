"""Image files for tests."""

import io

from PIL import Image


def saved(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """Return the bytes of the file that Pillow writes."""
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def solid(colour="red", *, size=(8, 6), mode="RGB", file_format="PNG", **options: object) -> bytes:
    """Return an image file of one colour."""
    return saved(Image.new("RGB", size, colour).convert(mode), file_format, **options)
