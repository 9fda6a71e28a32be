"""Seeds of fuzzing: the small hostile uploads, and a valid input of every kind."""

import base64
from collections.abc import Iterable, Iterator
from io import BytesIO

import numpy as np

from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item, ItemResult
from polymodal.model import RECORDING, Took, Undecodable
from polymodal.model.modalities.image.input import FORMATS
from tests.hostile import conversations, uploads
from tests.hostile.images import apng, png, saved, tiff_deflated, webp_animation
from tests.speech_models import tone, wav

MAX_BYTES = 2000


def seeds(name: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    groups = {
        "image": _images,
        "text": _texts,
        "sound": _sounds,
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
    yield wav(tone(0.2))
    yield wav(np.stack([tone(0.2), -tone(0.2)]))
    yield base64.b64decode(RECORDING.example)
    yield b"OggS\x00\x02" + bytes(8) + b"\x01\x00\x00\x00" + bytes(30)
    yield b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm" + bytes(20)
    yield b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00M4A mp42isom\x00\x00\x00\x08moov"
    yield b"\xff\xfb\x90\x00" + bytes(413) + b"\xff\xfb\x90\x00" + bytes(413)


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
