"""Seeds of fuzzing: the small hostile uploads, and a valid input of every kind."""

from collections.abc import Iterable, Iterator
from io import BytesIO

import numpy as np

from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item, ItemResult
from polymodal.model import Took, Undecodable
from polymodal.model.modalities.image.input import FORMATS
from tests.hostile import conversations, sounds, uploads
from tests.hostile.images import apng, png, saved, tiff_deflated, webp_animation

MAX_BYTES, MAX_SOUND_BYTES = 2000, 8000


def seeds(name: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    groups = {
        "image": _images,
        "audio": _sounds,
        "text": _texts,
        "form": _forms,
        "document": _documents,
        "message": _messages,
        "conversation": _conversations,
    }
    yield from groups[name]()


def _images() -> Iterator[bytes]:
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
        yield from _small(map(_only_field, group()))


def _sounds() -> Iterator[bytes]:
    """Yield sounds of every kind; those that PyAV writes are longer than other seeds."""
    for group in (sounds.samples, sounds.headers, sounds.containers, sounds.strangers):
        yield from (sound.content for sound in group() if len(sound.content) <= MAX_SOUND_BYTES)


def _texts() -> Iterator[bytes]:
    yield from _small(map(_only_field, uploads.texts()))


def _small(contents: Iterable[bytes]) -> Iterator[bytes]:
    return (content for content in contents if len(content) <= MAX_BYTES)


def _only_field(upload: uploads.Upload) -> bytes:
    """Return the content of the only field of a form."""
    return upload.content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + uploads.END)


def _forms() -> Iterator[bytes]:
    yield from (b"\x80" + content for content in _small(upload.content for upload in uploads.forms()))


def _documents() -> Iterator[bytes]:
    yield from _small(upload.content for group in (uploads.documents, uploads.encodings) for upload in group())
    yield b'{"items": [{"id": "a", "text": "red"}, {"image": "AAAA"}, 7], "top_k": 1}'
    yield rb'{"items": [{"id": "a", "text": "\ud83d"}, {"id": "b", "id": "c"}, NaN, {"text": -Infinity}], "top_k": 1.0}'
    yield b'{"items": [{"id": "a", "text": "caf\xe9"}, {"image": "data:,%00"}, {"image": "-_-_"}], "threshold": 1e-1}'


def _messages() -> Iterator[bytes]:
    items = [Item({"image": b"123", "text": "red"}, {"text": b"4567"}, {"language": "en"})]
    problem = Undecodable("image", "3 bytes", "a whole image")
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
    sent = [conversations.conversation(offer) for offer in (b"", *offers.values())]
    post = b"POST / HTTP/1.1\r\nHost: x\r\n"
    sent += [
        post + offer + message + models
        for offer in (b"", offers["h2c"])
        for message in conversations.AMBIGUOUS.values()
    ]
    sent += [models + tunnel + models for tunnel in conversations.TUNNELS.values()]
    yield from (cut.to_bytes(2) + content for content in sent for cut in (70, 230))
