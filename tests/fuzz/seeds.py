"""What fuzzing begins with: the small ones of the hostile uploads, and one good example of everything."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np

from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item, ItemResult
from polymodal.model import Took, Undecodable
from polymodal.model.modalities.image.input import FORMATS
from tests.hostile import conversations, uploads
from tests.hostile.pictures import apng, png, saved, tiff_deflated, webp_animation

SMALL = 2000  # bytes


def seeds(name: str) -> Iterator[bytes]:
    """The seeds of one target."""
    groups = {
        "picture": _pictures,
        "text": _texts,
        "form": _forms,
        "document": _documents,
        "message": _messages,
        "conversation": _conversations,
    }
    yield from groups[name]()


def _pictures() -> Iterator[bytes]:
    yield from uploads.SAMPLES.values()
    yield from (apng(2), webp_animation(2), png(mode="P", interlace=1), png(mode="I;16"))
    yield from (tiff_deflated((16, 12), mode) for mode in ("RGB", "RGBA", "CMYK", "I;16", "F", "planes"))
    yield saved(uploads.NOISE, "TIFF", compression="jpeg")
    if "image/heic" in FORMATS:
        from pillow_heif import from_pillow  # of an extra

        file = BytesIO()
        from_pillow(uploads.NOISE).save(file)
        yield file.getvalue()
    for group in (
        uploads.pngs,
        uploads.jpegs,
        uploads.gifs,
        uploads.webps,
        uploads.bmps,
        uploads.tiffs,
        uploads.stills,
    ):
        files = (each.content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + uploads.END) for each in group())
        yield from (each for each in files if len(each) <= SMALL)


def _texts() -> Iterator[bytes]:
    files = (upload.content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + uploads.END) for upload in uploads.texts())
    yield from (content for content in files if len(content) <= SMALL)


def _forms() -> Iterator[bytes]:
    yield from (b"\x80" + each.content for each in uploads.forms() if len(each.content) <= SMALL)


def _documents() -> Iterator[bytes]:
    for group in (uploads.documents, uploads.encodings):
        yield from (each.content for each in group() if len(each.content) <= SMALL)
    yield b'{"items": [{"id": "a", "text": "red"}, {"image": "AAAA"}, 7], "top_k": 1}'
    yield rb'{"items": [{"id": "a", "text": "\ud83d"}, {"id": "b", "id": "c"}, NaN, {"text": -Infinity}], "top_k": 1.0}'
    yield b'{"items": [{"id": "a", "text": "caf\xe9"}, {"image": "data:,%00"}, {"image": "-_-_"}], "threshold": 1e-1}'


def _messages() -> Iterator[bytes]:
    items = [Item({"image": b"123", "text": "red"}, {"text": b"4567"}, {"language": "en"})]
    problem = Undecodable("image", "3 bytes", "a whole picture")
    stages = {"decode": Took(0.0, 0.1), "fuse": Took(0.1, 0.2)}
    scores, vector = np.array([[0.25, 0.75]], dtype=np.float32), np.array([1.0, 2.0], dtype=np.float32)
    result = ItemResult({"scores": scores}, frozenset({"text"}), stages, {"text": vector})
    for buffers in (
        wire.request(wire.Compute("toy#1", "classify", items)),
        wire.request(wire.Unload("toy#1")),
        wire.results([result, ItemResult(error=problem)]),
        wire.results(wire.Failed("ValueError")),
        wire.loaded(wire.Failed("weights.safetensors was altered")),
        wire.done(wire.Done()),
    ):
        yield b"".join(buffers)[wire.LENGTH.size :]


def _conversations() -> Iterator[bytes]:
    models, offers = conversations.MODELS, conversations.OFFERS
    whole = [conversations.conversation(offer) for offer in (b"", *offers.values())]
    post = b"POST / HTTP/1.1\r\nHost: x\r\n"
    whole += [
        post + offer + message + models
        for offer in (b"", offers["h2c"])
        for message in conversations.AMBIGUOUS.values()
    ]
    whole += [models + tunnel + models for tunnel in conversations.TUNNELS.values()]
    yield from (cut.to_bytes(2) + sent for sent in whole for cut in (70, 230))
