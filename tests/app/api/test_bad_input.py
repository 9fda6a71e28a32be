"""Bad requests that the catalogue of tests/hostile/uploads.py cannot express, and unusual images that are accepted.

The messages for uploads of the catalogue are in test_hostile.py.
"""

import asyncio
import base64
import binascii
import json

import pytest
from PIL import Image

from tests.media import saved, solid

FORM = "multipart/form-data; boundary=frontier"


def form(*fields: tuple[str, str | None, bytes]) -> dict:
    """Return a request with these (name, filename, content) fields."""
    body = b"".join(
        b'--frontier\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name.encode(), b"" if filename is None else b'; filename="%s"' % filename.encode(), content)
        for name, filename, content in fields
    )
    return {"content": body + b"--frontier--\r\n", "headers": {"Content-Type": FORM}}


def as_json(content: bytes) -> dict:
    return {"content": content, "headers": {"Content-Type": "application/json"}}


async def test_a_compressed_body_is_rejected(client):
    request = as_json(b"{}")
    request["headers"]["Content-Encoding"] = "gzip"
    problem = (await client.post("/v1/classify", **request)).json()
    assert (problem["status"], problem["code"]) == (415, "unsupported_media_type")
    assert problem["detail"] == 'Content-Encoding: "gzip"; allowed: an uncompressed body'


@pytest.mark.parametrize(
    ("text", "status", "modalities"),
    [pytest.param(b"", 422, None, id="no-text"), pytest.param(b"blue", 200, ["text"], id="text")],
)
async def test_a_file_that_was_not_chosen_in_a_form_is_no_input(client, text, status, modalities):
    answer = await client.post("/v1/classify", **form(("image", "", b""), ("text", None, text)))
    assert (answer.status_code, answer.json().get("modalities")) == (status, modalities)
    assert status == 200 or answer.json()["code"] == "nothing_given"


# --- unusual images ---


def animated(file_format: str, **options) -> bytes:
    red, *later = (Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue"))
    return saved(red, file_format, save_all=True, append_images=later, duration=50, **options)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: upright after a turn by 90°
    return solid(file_format="JPEG", exif=exif, quality=95)


def palette_with_alpha() -> bytes:
    return saved(Image.new("RGBA", (16, 16), (255, 0, 0, 200)).quantize(), transparency=bytes([200]))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(solid(size=(1, 1)), id="1x1"),
        pytest.param(solid(mode="CMYK", file_format="JPEG"), id="cmyk"),
        pytest.param(palette_with_alpha(), id="palette-with-alpha"),
        pytest.param(animated("GIF"), id="animated-gif"),
        pytest.param(animated("WEBP", lossless=True), id="animated-webp"),
        pytest.param(rotated(), id="exif-rotated"),
        pytest.param(solid(file_format="BMP"), id="bmp"),
        pytest.param(solid(file_format="TIFF"), id="tiff"),
    ],
)
async def test_unusual_images_are_classified_by_what_they_show(client, content):
    answer = await client.post("/v1/classify", files={"image": content})
    assert answer.status_code == 200, answer.json()
    assert answer.json()["labels"][0]["label"] == "red"


async def test_16_bit_grey_has_no_colour(client):
    grey = saved(Image.new("I;16", (16, 16), 40_000))
    answer = await client.post("/v1/classify", files={"image": grey})
    assert [entry["score"] for entry in answer.json()["labels"]] == pytest.approx([1 / 3] * 3)


async def test_the_declared_media_type_of_an_image_is_ignored(client):
    answer = await client.post("/v1/classify", files={"image": ("song.mp3", solid(), "audio/mpeg")})
    assert answer.status_code == 200


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
async def test_an_image_in_a_transfer_encoding_is_classified(client, encoding):
    content = base64.encodebytes(solid()) if encoding == "base64" else binascii.b2a_qp(solid(), istext=False)
    head = f'Content-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    body = b"--frontier\r\n" + head.encode() + content + b"\r\n--frontier--\r\n"
    answer = await client.post("/v1/classify", content=body, headers={"Content-Type": FORM})
    assert answer.json()["labels"][0]["label"] == "red"


# --- batches ---


@pytest.mark.parametrize(
    ("item", "id_", "code", "detail"),
    [
        pytest.param(
            rb'{"id": "b", "text": "red \ud83d"}', "b", "malformed_body", "text: half of a surro", id="half-an-emoji"
        ),
        pytest.param(
            b'{"id": "b", "text": "caf\xe9"}', "b", "malformed_body", "text: half of a surrogate", id="latin-1"
        ),
        pytest.param(
            b'{"id": "b", "text": "\xf0\x9f\x98"}', "b", "malformed_body", "a byte that is not", id="cut-utf-8"
        ),
        pytest.param(
            rb'{"id": "b", "image": "\ud83d"}', "b", "malformed_body", "image: invalid base64", id="half-in-an-image"
        ),
        pytest.param(rb'{"id": "b\ud83d", "text": "red"}', None, "malformed_body", "id: half of a", id="half-in-an-id"),
        pytest.param(
            rb'{"id": "b", "\ud83d": "red"}', "b", "malformed_body", r'field "\ud83d"', id="half-in-a-field-name"
        ),
        pytest.param(
            b'{"id": "b", "text": "red", "text": "blue"}',
            "b",
            "repeated_field",
            'item: field "text" twice',
            id="a-field-twice",
        ),
        pytest.param(
            b'{"id": "b", "id": "c", "text": "red"}', None, "repeated_field", 'item: field "id" twice', id="an-id-twice"
        ),
        pytest.param(
            b'{"id": "b", "text": {"a": 1, "a": 2}}',
            "b",
            "repeated_field",
            'text: field "a" twice',
            id="a-field-twice-inside",
        ),
        pytest.param(b'{"id": "b", "text": NaN}', "b", "malformed_body", "text: NaN", id="nan"),
        pytest.param(b'{"id": "b", "image": -Infinity}', "b", "malformed_body", "image: -Infinity", id="infinity"),
        pytest.param(b'{"id": NaN, "text": "red"}', None, "malformed_body", "id: NaN", id="nan-as-an-id"),
        pytest.param(b"NaN", None, "malformed_body", "item: NaN", id="nan-as-an-item"),
        pytest.param(
            b"null",
            None,
            "invalid_parameter",
            "item: null; allowed: an object with image, text, audio or several",
            id="null",
        ),
        pytest.param(b"[]", None, "invalid_parameter", "item: a list of 0", id="a-list"),
        pytest.param(b"{}", None, "nothing_given", "allowed: at least one of image, text", id="no-input"),
        pytest.param(b'{"id": "b", "text": [NaN]}', "b", "invalid_parameter", "text: a list of 1", id="nan-inside"),
        pytest.param(
            b'{"id": "b", "text": ' + b"9" * 5000 + b"}",
            "b",
            "malformed_body",
            "text: a number that is too",
            id="a-long-number",
        ),
        pytest.param(
            b"9" * 5000, None, "malformed_body", "item: a number that is too long", id="a-long-number-as-an-item"
        ),
        pytest.param(b'{"id": "b", "text": 1e999}', "b", "invalid_parameter", "text: Infinity", id="a-huge-exponent"),
        pytest.param(b'{"id": "b", "text": 7}', "b", "invalid_parameter", "text: 7", id="a-wrong-type"),
        pytest.param(
            b'{"id": "b", "top_k": 1, "text": "red"}', "b", "unknown_field", 'field "top_k"', id="an-unknown-field"
        ),
        pytest.param(
            b'{"id": "b", "colour": NaN}', "b", "unknown_field", 'field "colour"', id="nan-in-an-unknown-field"
        ),
        pytest.param(
            b'{"id": "b", "image": "QUJDR"}', "b", "malformed_body", "image: invalid base64, of 5", id="bad-base64"
        ),
        pytest.param(rb'{"id": "b", "text": "a\u0000b"}', "b", "undecodable", "text: a NUL", id="nul"),
        pytest.param(
            b'{"id": "' + b"b" * 129 + b'", "text": "red"}', None, "invalid_parameter", "id: ", id="a-long-id"
        ),
        pytest.param(
            b'{"id": "b", "text": "red red red red red"}',
            "b",
            "internal_error",
            "The request failed",
            id="a-failure-of-the-model",
        ),
    ],
)
async def test_a_bad_item_of_a_batch_fails_alone(client, item, id_, code, detail):
    good = [{"id": "a", "text": "red"}, {"id": "c", "text": "green blue"}]
    body = b'{"items": [' + b", ".join((json.dumps(good[0]).encode(), item, json.dumps(good[1]).encode())) + b"]}"
    answer = await client.post("/v1/classify/batch", **as_json(body))
    assert answer.status_code == 200, answer.json()
    first, bad, last = answer.json()["items"]
    alone = [(await client.post("/v1/classify", json={"text": item["text"]})).json() for item in good]
    assert [first["classification"], last["classification"]] == alone
    assert (bad["index"], bad.get("id"), bad["problem"]["code"]) == (1, id_, code)
    assert bad["status"] == bad["problem"]["status"]
    assert detail in bad["problem"]["detail"]


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        pytest.param(b"{}", "invalid_parameter", "items: null; allowed: a list of at least one object", id="no-items"),
        pytest.param(
            b'{"items": []}', "invalid_parameter", "items: a list of 0; allowed: a list of at least one", id="no-item"
        ),
        pytest.param(
            b'{"items": {}}', "invalid_parameter", "items: an object; allowed: a list", id="items-in-an-object"
        ),
        pytest.param(b'{"items": NaN}', "malformed_body", "items: NaN", id="items-as-nan"),
        pytest.param(
            b'{"items": {"a": 1, "a": 2}}', "repeated_field", 'items: field "a" twice', id="items-as-a-faulty-object"
        ),
        pytest.param(
            b'{"items": ' + b"9" * 5000 + b"}",
            "malformed_body",
            "items: a number that is too long",
            id="items-as-a-long-number",
        ),
        pytest.param(
            b'{"items": [' + b"{}, " * 64 + b"{}]}",
            "too_many_items",
            "items: 65 items; allowed: up to 64 items",
            id="too-many-items",
        ),
        pytest.param(
            b'{"items": [{}], "items": [{}]}', "repeated_field", 'body: field "items" twice', id="items-twice"
        ),
        pytest.param(
            b'{"items": [{}, {"text": "\\x41"}]}',
            "malformed_body",
            "body: invalid JSON at line 1, column 26",
            id="no-json",
        ),
        pytest.param(
            rb'{"items": [{}], "model": "\ud83d"}',
            "malformed_body",
            "model: half of a surrogate pair",
            id="half-an-emoji",
        ),
        pytest.param(
            b'{"items": [{}], "model": "\xe9"}', "malformed_body", "model: half of a surrogate pair", id="latin-1"
        ),
        pytest.param(b'{"items": [{}], "model": "x"}', "unknown_model", 'model: "x"; allowed: toy', id="unknown-model"),
        pytest.param(
            rb'{"items": [{}], "\ud83d": 1}', "malformed_body", r'body: field "\ud83d"', id="half-in-a-field-name"
        ),
        pytest.param(
            b'{"items": [{}], "text": "red"}',
            "unknown_field",
            'body: field "text"; allowed: top_k',
            id="field-of-an-item",
        ),
        pytest.param(
            b'{"items": [{}], "colour": NaN}', "unknown_field", 'body: field "colour"', id="nan-in-an-unknown-field"
        ),
        pytest.param(
            b'{"items": [{}], "top_k": 1, "top_k": 2}',
            "repeated_field",
            'body: field "top_k" twice',
            id="an-option-twice",
        ),
        pytest.param(b'{"items": [{}], "top_k": Infinity}', "malformed_body", "top_k: Infinity", id="infinity"),
        pytest.param(
            b'{"items": [{}], "top_k": ' + b"9" * 5000 + b"}",
            "malformed_body",
            "top_k: a number that is too",
            id="a-long-number",
        ),
        pytest.param(
            b'{"items": [{}], "top_k": 4}',
            "invalid_parameter",
            "top_k: 4; allowed: an integer from 1 to 3",
            id="more-than-the-labels",
        ),
        pytest.param(b'{"items": [{}], "top_k": 1.5}', "invalid_parameter", "top_k: 1.5", id="no-integer"),
        pytest.param(b'{"items": [{}], "threshold": NaN}', "malformed_body", "threshold: NaN", id="nan"),
        pytest.param(
            b'{"items": [{}], "threshold": "0.5"}', "invalid_parameter", 'threshold: "0.5"', id="a-wrong-type"
        ),
    ],
)
async def test_a_fault_outside_of_the_items_rejects_the_whole_batch(client, body, code, detail):
    answer = await client.post("/v1/classify/batch", **as_json(body))
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code)
    assert answer.json()["detail"].startswith(detail)


# --- methods, routes and lengths ---


@pytest.mark.parametrize("route", ["/v1/classify", "/v1/classify/batch"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_wrong_method_is_rejected_with_the_allowed_one(client, method, route):
    answer = await client.request(method, route)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json()["detail"] == f"method: {method}; allowed: POST"


async def test_the_files_of_the_page_allow_only_get_and_head(client):
    answer = await client.post("/web/page.css")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_an_unknown_route_is_a_problem(client):
    answer = await client.get("/v2/classify")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_query_parameters_are_rejected(client):
    answer = await client.post("/v1/classify?top_k=1", json={"text": "red"})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
    assert answer.json()["detail"].startswith('query: "top_k"; allowed: no query parameters')


async def test_a_declared_length_of_50_mb_is_rejected_before_the_body_is_read(client):
    read = []

    async def body():
        read.append(True)
        yield b""

    headers = {"Content-Type": "application/json", "Content-Length": "50000000"}
    answer = await client.post("/v1/classify", content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "body: 50000000 bytes; allowed: up to 20971520 bytes"
    assert not read


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data; boundary=frontier"])
async def test_50_mb_in_chunks_are_rejected_when_the_limit_is_exceeded(client, media_type):
    read = 0

    async def body():
        nonlocal read
        yield b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(50):
            read += 1
            yield b"x" * 1_000_000

    answer = await client.post("/v1/classify", content=body(), headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_bytes")
    assert read <= 21


async def test_a_body_that_never_ends_is_rejected_after_the_timeout(serving):
    async def body():
        yield b'{"text": '
        await asyncio.sleep(5)

    async with serving(body_timeout_ms=50) as client:
        answer = await client.post("/v1/classify", content=body(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (408, "body_too_slow")
    assert answer.json()["detail"] == "body: 9 bytes in 50 ms; allowed: a body that arrives within 50 ms"
