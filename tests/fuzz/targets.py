"""Targets of fuzzing by name: each processes bytes as the service does, and suppresses only domain errors.

`run.py` runs them with atheris; `test_targets` replays the corpus without it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
from tokenizers import Tokenizer, models

from polymodal.app.api.body import ParsedBatch, RequestError
from polymodal.app.api.body.form import Form
from polymodal.app.api.body.json import batch_of, parse, request_of, search_of
from polymodal.app.settings import Settings
from polymodal.app.workers import wire
from polymodal.model import TASKS, InputError
from polymodal.model.blank import is_blank
from polymodal.model.modalities.image.formats import sniff
from polymodal.model.modalities.image.header import size_of
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.modalities.text.input import TextInput
from polymodal.model.sound import RATE, decode, seconds_of
from tests.packets import answers_to

IMAGE = ImageInput(side=32, max_pixels=4_000_000)
TEXT = TextInput(Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, "[UNK]")))
SETTINGS = Settings(workers=0)
CLASSIFY = TASKS["classify"]


def image(content: bytes) -> None:
    """Decode and preprocess an uploaded image."""
    sniff(content)
    size_of(content)
    with suppress(InputError):
        prepared = IMAGE.preprocess(IMAGE.decode(content))
        assert prepared.shape == (32, 32, 3)


def text(content: bytes) -> None:
    """Decode and preprocess an uploaded text: it is rejected, blank, or has tokens."""
    with suppress(InputError):
        decoded = TEXT.decode(content)
        assert decoded is None or not is_blank(decoded)
        assert decoded is None or len(TEXT.preprocess(decoded)) >= 1


def sound(content: bytes) -> None:
    """Estimate the seconds of a recording, and decode it where PyAV is installed: its samples are finite and bounded."""
    assert 0 <= seconds_of(content) <= 600
    if find_spec("av") is None:
        return
    with suppress(InputError):
        samples = decode(content, "audio", longest_s=5.0).samples
        assert np.isfinite(samples).all()
        assert len(samples) <= 5 * RATE
        assert np.abs(samples).max() <= 1


def form(content: bytes) -> None:
    """Parse a multipart body, whole and in two pieces; the first byte is the place of the cut."""
    body = content[1:]
    cut = len(body) * content[0] // 256 if content else 0
    results = []
    for chunks in ((body,), (body[:cut], body[cut:])):
        try:
            reader = Form(CLASSIFY, b"frontier", SETTINGS)
            for chunk in chunks:
                reader.write(chunk)
            results.append(reader.close())
        except (RequestError, InputError) as refusal:
            results.append(type(refusal))
    assert results[0] == results[1]


def document(content: bytes) -> None:
    """Parse a JSON body for either route, with its base64."""
    for read in (request_of, batch_of):
        with suppress(RequestError, InputError):
            parsed = read(CLASSIFY, parse(content), SETTINGS)
            for unpack in parsed.unpack if isinstance(parsed, ParsedBatch) else ():
                with suppress(RequestError, InputError):
                    unpack()
    with suppress(RequestError, InputError):
        search_of(parse(bytearray(content)), SETTINGS)


def message(content: bytes) -> None:
    """Read a message of the socket between service and worker."""
    for read in (wire.read_results, wire.read_loaded, wire.read_done):
        with suppress(ValueError, LookupError):
            read(content)
    for read in (wire.read_request, wire.read_init):
        with suppress(ValueError, LookupError):
            read(wire.pieces_of(content))


def conversation(content: bytes) -> None:
    """Serve the requests of a connection, in one packet and in two; the first two bytes are the place of the cut."""
    sent = content[2:]
    cut = int.from_bytes(content[:2]) % (len(sent) + 1)
    answers = [
        asyncio.run(answers_to(*pieces, head_bytes=1 << 20, shut=True))
        for pieces in ((sent,), (sent[:cut], sent[cut:]))
    ]
    assert answers[0] == answers[1]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image": image,
    "text": text,
    "sound": sound,
    "form": form,
    "document": document,
    "message": message,
    "conversation": conversation,
}
