"""Memory of a large image between the socket and the decoder, in copies of the image."""

import base64
import io
import json
import tracemalloc
from itertools import pairwise

import pytest

from polymodal.app.api.body.form import Form
from polymodal.app.api.body.json import parse, request_of
from polymodal.app.settings import Settings
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item
from polymodal.model import TASKS

SETTINGS = Settings(workers=0)
SIZE = 8 * 2**20
IMAGE = bytes(range(256)) * (SIZE // 256)
CHUNK = 2**16  # as uvicorn reads them
CLASSIFY = TASKS["classify"]
FORM = (
    b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    + IMAGE
    + b"\r\n--frontier--\r\n"
)


def message(inputs):
    return wire.request(wire.Compute("toy#1", "classify", [Item(inputs)]))


def by_form():
    """Read chunks of a form; return the buffers that are written to a worker."""
    form = Form(CLASSIFY, b"frontier", SETTINGS)
    for start, end in pairwise((*range(0, len(FORM), CHUNK), len(FORM))):
        form.write(FORM[start:end])
    return message(form.close().inputs)


def by_json(content: bytes):
    """Read chunks of JSON; return the buffers that are written to a worker."""
    body = bytearray()
    for start, end in pairwise((*range(0, len(content), CHUNK), len(content))):
        body.extend(content[start:end])
    return message(request_of(CLASSIFY, parse(body), SETTINGS).inputs)


def copies(run, *arguments) -> tuple[float, float]:
    """Return the peak memory of a call and the memory of its result, in sizes of the image."""
    tracemalloc.start()
    try:
        result = run(*arguments)
        kept, peak = tracemalloc.get_traced_memory()
        assert result
        return peak / SIZE, kept / SIZE
    finally:
        tracemalloc.stop()


def test_an_image_of_a_form_is_in_memory_once():
    peak, kept = copies(by_form)
    assert 1 <= kept <= peak < 1.15  # bytearrays grow by an eighth


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"], ids=["base64", "data-uri"])
def test_the_base64_of_an_image_in_json_is_in_memory_at_most_twice_and_then_freed(start):
    content = json.dumps({"image": start + base64.b64encode(IMAGE).decode()}).encode()
    peak, kept = copies(by_json, content)
    assert 1 <= kept < 1.1
    assert peak < 2 * 4 / 3 + (1 if start else 0) + 0.1


def test_an_image_is_in_the_memory_of_a_worker_once_before_it_is_decoded(tmp_path):
    (tmp_path / "message").write_bytes(b"".join(message({"image": IMAGE})))

    def receive(stream: io.BufferedReader):
        pieces = wire.receive(stream)
        assert pieces
        return wire.read_request(pieces)

    with (tmp_path / "message").open("rb") as stream:
        peak, kept = copies(receive, stream)
    assert 1 <= kept <= peak < 1.1
