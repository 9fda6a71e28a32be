"""Inputs of any modality: how they are sent, and which the client rejects."""

import base64
import email
import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image

from polymodal_client import Item
from tests.client.toy_service import ANSWER, answering

SOUND = b"RIFF....WAVE"
NAN = float("nan")


def form_of(request):
    """Return the contents of a form by name: bytes of a file, str of a field."""
    head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    contents = {}
    for field in email.message_from_bytes(head + request.content).get_payload():
        content = field.get_payload(decode=True)
        name = field.get_param("name", header="content-disposition")
        contents[name] = content if field.get_filename() else content.decode()
    return contents


@pytest.fixture
def sound(tmp_path):
    (tmp_path / "sound.wav").write_bytes(SOUND)
    return tmp_path / "sound.wav"


FILES = {
    "path": lambda path: path,
    "bytes": Path.read_bytes,
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("call", ["classify", "embed"])
@pytest.mark.parametrize("convert", FILES.values(), ids=FILES)
def test_files_of_any_modality_are_sent_in_a_form(both, scripted, sound, convert, call):
    service = scripted(httpx.Response(200, json=ANSWER | {"embeddings": {}, "aligned": False}))
    both.call(service, call, text="red", inputs={"audio": convert(sound), "title": "blue"}, model="toy")
    (request,) = service.seen
    assert request.url.path == f"/v1/{call}"
    assert form_of(request) == {"audio": SOUND, "title": "blue", "text": "red", "model": "toy"}


def test_texts_alone_are_sent_as_json(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER))
    both.call(service, "classify", inputs={"title": "red", "text": "blue", "audio": None, "video": NAN})
    assert json.loads(service.seen[0].content) == {"title": "red", "text": "blue"}


def test_a_pil_image_may_be_an_input_of_any_name(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER))
    both.call(service, "classify", inputs={"sketch": Image.new("RGB", (3, 2), "red")})
    with Image.open(io.BytesIO(form_of(service.seen[0])["sketch"])) as sent:
        assert (sent.format, sent.size) == ("PNG", (3, 2))


@pytest.mark.parametrize("image", [str, lambda path: path, Path.read_bytes], ids=["text", "path", "bytes"])
def test_only_an_images_str_is_a_path(both, scripted, sound, image):
    service = scripted(httpx.Response(200, json=ANSWER))
    both.call(service, "classify", inputs={"image": image(sound), "audio": str(sound)})
    assert form_of(service.seen[0]) == {"image": SOUND, "audio": str(sound)}


@pytest.mark.parametrize("row", [dict, lambda cells: Item(**cells)], ids=["mapping", "item"])
def test_a_row_may_have_a_mapping_of_inputs(both, scripted, sound, row):
    service = scripted(answering)
    rows = [
        {"text": "red", "inputs": {"audio": sound, "title": "blue"}, "id": "a"},
        {"inputs": {"audio": None, "image": b"", "text": "red"}, "image": NAN, "text": None},
        {"text": "red", "inputs": NAN},
        {"text": "red", "inputs": {}},
    ]
    answers = both.call(service, "classify_batch", map(row, rows))
    assert json.loads(service.seen[0].content)["items"] == [
        {"text": "red", "audio": base64.b64encode(SOUND).decode(), "title": "blue"},
        {"image": "", "text": "red"},
        {"text": "red"},
        {"text": "red"},
    ]
    assert [(answer.id, answer.error) for answer in answers] == [("a", None), *[(None, None)] * 3]


REJECTED = {
    "image-twice": (
        {"image": b"a", "inputs": {"image": b"b"}},
        ValueError,
        "image: given by itself and in inputs; allowed",
    ),
    "text-twice": (
        {"text": "a", "inputs": {"text": "a"}},
        ValueError,
        "text: given by itself and in inputs; allowed: once",
    ),
    "bytes-as-text": ({"inputs": {"text": b"red"}}, TypeError, "text: bytes; allowed: str"),
    "number": ({"inputs": {"audio": 7}}, TypeError, "audio: int; allowed: a text, a Path, bytes, a binary file"),
    "opened-as-text": ({"inputs": {"audio": io.StringIO("a")}}, TypeError, "audio: a file opened as text"),
    "no-such-file": ({"inputs": {"audio": Path("nowhere.wav")}}, FileNotFoundError, "nowhere.wav"),
    "broken-pil-image": (
        {"inputs": {"sketch": Image.new("RGB", (0, 0))}},
        OSError,
        "sketch: a PIL image that can't be read",
    ),
    "lone-surrogate": ({"inputs": {"title": "\ud800"}}, ValueError, "surrogates not allowed"),
    "name-of-an-option": ({"inputs": {"top_k": "3"}}, ValueError, "inputs: key 'top_k'; allowed: names of the model's"),
    "name-of-the-id": ({"inputs": {"id": "3"}}, ValueError, "inputs: key 'id'; allowed: names"),
    "name-that-is-a-number": ({"inputs": {7: "a"}}, ValueError, "inputs: key 7; allowed: names"),
    "lone-surrogate-in-a-name": ({"inputs": {"\ud800": "a"}}, ValueError, "inputs: key '.ud800'; allowed: names"),
    "empty-name": ({"inputs": {"": "a"}}, ValueError, "inputs: key ''; allowed: names"),
    "no-mapping": ({"inputs": ["a"]}, TypeError, "inputs: list; allowed: a mapping of names to texts and files"),
}


@pytest.mark.parametrize(("row", "error", "message"), REJECTED.values(), ids=REJECTED)
def test_an_input_that_cannot_be_sent_is_rejected_alone_or_in_a_batch(both, scripted, row, error, message):
    with pytest.raises(error, match=message):
        both.call(scripted(AssertionError("sent")), "classify", **row)
    first, bad = both.call(scripted(answering), "classify_batch", [{"text": "red"}, {**row, "id": "bad"}])
    assert first.result().best.label == "red"
    assert bad.id == "bad"
    with pytest.raises(error, match=message):
        bad.result()


def test_an_unknown_key_of_a_row_is_an_error_with_the_allowed_keys(both, scripted):
    (answer,) = both.call(scripted(AssertionError("sent")), "classify_batch", [{"audio": b"a"}])
    assert str(answer.error) == "item: key 'audio'; allowed: image, text, id, inputs"
