"""Every kind of bad input gets the right status, and a message that names the input, what was found and what is allowed."""

import asyncio
import base64
import binascii
import io
import json
import struct
import zlib

import pytest
from PIL import Image

MIB = 1024 * 1024
PNG, JPEG = "image/png", "image/jpeg"


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--frontier--\r\n"):
    """A request with exactly these (name, filename, content) parts, which no client would let us send."""
    body = b"".join(
        b'--frontier\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name.encode(), b"" if filename is None else b'; filename="%s"' % filename.encode(), content)
        for name, filename, content in parts
    )
    return {"content": body + end, "headers": {"Content-Type": "multipart/form-data; boundary=frontier"}}


def image(content: bytes, filename="picture.png"):
    return form(("image", filename, content))


def as_json(content: bytes | str | dict):
    body = json.dumps(content) if isinstance(content, dict) else content
    return {"content": body, "headers": {"Content-Type": "application/json"}}


def typed(media_type: str | None, content: bytes = b"", **headers):
    declared = {} if media_type is None else {"Content-Type": media_type}
    return {"content": content, "headers": declared | headers}


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than follow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def picture(file_format="PNG", mode="RGB", size=(64, 48), **options) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "red").convert(mode).save(content, file_format, **options)
    return content.getvalue()


def animated(file_format: str) -> bytes:
    later = [Image.new("RGB", (16, 16), colour) for colour in ("lime", "blue")]
    content = io.BytesIO()
    options = {"lossless": True} if file_format == "WEBP" else {}
    Image.new("RGB", (16, 16), "red").save(
        content, file_format, save_all=True, append_images=later, duration=50, **options
    )
    return content.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90° to see it upright
    return picture("JPEG", exif=exif, quality=95)


def palette_with_alpha() -> bytes:
    content = io.BytesIO()
    faded = Image.new("RGBA", (16, 16), (255, 0, 0, 200))
    faded.quantize().save(content, "PNG", transparency=bytes([200]))
    return content.getvalue()


def sixteen_bit() -> bytes:
    content = io.BytesIO()
    Image.new("I;16", (16, 16), 40_000).save(content, "PNG")
    return content.getvalue()


BAD = [
    # What the body says of itself
    pytest.param(
        typed(None),
        415,
        "unsupported_media_type",
        "Content-Type: none; allowed: multipart/form-data or application/json",
        id="empty-body",
    ),
    pytest.param(
        typed("application/json"), 400, "malformed_body", "body: no bytes; allowed: a JSON object", id="empty-json-body"
    ),
    pytest.param(
        form(end=b""),
        400,
        "malformed_body",
        "body: no closing boundary; allowed: the whole multipart body",
        id="empty-form-body",
    ),
    pytest.param(
        typed("text/plain", b"a red car"),
        415,
        "unsupported_media_type",
        'Content-Type: "text/plain"; allowed: multipart',
        id="wrong-media-type",
    ),
    pytest.param(
        typed("application/x-www-form-urlencoded", b"text=red"),
        415,
        "unsupported_media_type",
        "urlencoded",
        id="urlencoded-form",
    ),
    pytest.param(
        typed("multipart/form-data", b"--x--"),
        400,
        "malformed_body",
        "Content-Type: no boundary",
        id="form-without-boundary",
    ),
    pytest.param(
        typed("multipart/form-data; boundary=" + "x" * 300),
        400,
        "malformed_body",
        "too long; allowed: up to 256",
        id="form-with-a-huge-boundary",
    ),
    pytest.param(
        typed("multipart/form-data; boundary=x", b"what is this?"),
        400,
        "malformed_body",
        "body: broken multipart",
        id="form-without-parts",
    ),
    pytest.param(
        typed("application/json", b"{}", **{"Content-Encoding": "gzip"}),
        415,
        "unsupported_media_type",
        'Content-Encoding: "gzip"; allowed: an uncompressed body',
        id="compressed-body",
    ),
    pytest.param(
        form(("text", None, b"red"), end=b""), 400, "malformed_body", "no closing boundary", id="form-cut-off"
    ),
    # Nothing to classify
    pytest.param(form(), 422, "nothing_given", "at least one of image, text", id="form-without-modality"),
    pytest.param(as_json({}), 422, "nothing_given", "at least one of image, text", id="json-without-modality"),
    pytest.param(
        as_json({"image": None, "text": " \n"}),
        422,
        "nothing_given",
        "at least one of image, text",
        id="only-a-blank-text",
    ),
    pytest.param(
        as_json({"text": "\u200b\u3164\ufe0f"}),
        422,
        "nothing_given",
        "at least one of image, text",
        id="only-a-text-that-shows-nothing",
    ),
    pytest.param(
        form(("image", "", b""), ("text", None, b"")),
        422,
        "nothing_given",
        "at least one of",
        id="a-form-with-nothing-chosen",
    ),
    # The image
    pytest.param(image(b""), 422, "undecodable", "image: 0 bytes; allowed: a whole picture", id="0-byte-image"),
    pytest.param(
        image(picture("JPEG", size=(256, 256))[:-200], "photo.jpg"),
        422,
        "undecodable",
        "image: image/jpeg of",
        id="truncated-jpeg",
    ),
    pytest.param(
        image(b"Dear diary, today I wrote a text file.\n"),
        415,
        "unsupported_format",
        "image: bytes of no known picture format; allowed: image/jpeg, image/png",
        id="a-text-file-called-png",
    ),
    pytest.param(
        image(b"%PDF-1.7\n"), 415, "unsupported_format", "image: application/pdf; allowed: image/jpeg", id="a-pdf"
    ),
    pytest.param(
        image(png_that_claims(20_000, 20_000)),
        422,
        "too_large",
        "image: 20,000 × 20,000 px; allowed: at most 50,000,000 pixels",
        id="20000-px-header",
    ),
    pytest.param(
        image(b"x" * (11 * MIB)),
        413,
        "too_many_bytes",
        "image: more than 10485760 bytes; allowed: up to 10485760 bytes",
        id="image-of-11-mib",
    ),
    pytest.param(
        as_json({"image": base64.b64encode(b"x" * (11 * MIB)).decode()}),
        413,
        "too_many_bytes",
        "image: 11534336 bytes; allowed: up to 10485760 bytes",
        id="base64-image-of-11-mib",
    ),
    pytest.param(
        as_json({"image": "not base64!"}),
        400,
        "malformed_body",
        'image: invalid base64, with " " at position 3; allowed: base64',
        id="bad-base64",
    ),
    pytest.param(
        as_json({"image": "YWJj\u00e9"}),
        400,
        "malformed_body",
        "image: invalid base64",
        id="base64-with-letters-of-another-alphabet",
    ),
    pytest.param(
        as_json({"image": "data:image/png,rawbytes"}),
        400,
        "malformed_body",
        "image: a data: URI without ;base64",
        id="data-uri-without-base64",
    ),
    pytest.param(as_json({"image": ""}), 422, "undecodable", "image: 0 bytes", id="empty-base64"),
    pytest.param(
        as_json({"image": 7}),
        422,
        "invalid_parameter",
        "image: 7; allowed: the image file as a base64 string",
        id="image-is-a-number",
    ),
    # The text
    pytest.param(
        form(("text", None, b"a" * 1_000_000)),
        413,
        "too_many_bytes",
        "text: more than 262144 bytes; allowed: up to 262144 bytes",
        id="text-of-1-mb",
    ),
    pytest.param(
        as_json({"text": "a" * 1_000_000}),
        413,
        "too_many_bytes",
        "text: 1000000 bytes; allowed: up to 262144 bytes",
        id="json-text-of-1-mb",
    ),
    pytest.param(
        form(("text", None, b"a" * 25_000)),
        422,
        "too_large",
        "text: 25,000 characters; allowed: at most 20,000 characters",
        id="text-of-25000-characters",
    ),
    pytest.param(
        form(("text", None, b"a\0b")), 422, "undecodable", "text: a NUL character at position 1", id="nul-byte"
    ),
    pytest.param(
        as_json(b'{"text": "a\\u0000b"}'),
        422,
        "undecodable",
        "text: a NUL character at position 1",
        id="json-nul-character",
    ),
    pytest.param(
        form(("text", None, b"caf\xe9")),
        422,
        "undecodable",
        "text: a byte that is not UTF-8 at position 3; allowed: UTF-8",
        id="invalid-utf-8",
    ),
    pytest.param(
        as_json(b'{"text": "caf\xe9"}'),
        400,
        "malformed_body",
        "text: half of a surrogate pair, or a byte that is not UTF-8, at position 3; allowed: whole characters",
        id="json-of-invalid-utf-8",
    ),
    pytest.param(
        as_json(b'{"text": "\\ud800"}'),
        400,
        "malformed_body",
        "text: half of a surrogate pair, or a byte that is not UTF-8, at position 0; allowed: whole characters",
        id="half-a-surrogate-pair",
    ),
    pytest.param(
        as_json({"text": ["red"]}),
        422,
        "invalid_parameter",
        "text: a list of 1; allowed: a string",
        id="text-is-a-list",
    ),
    # Fields
    pytest.param(
        form(("colour", None, b"red")),
        400,
        "unknown_field",
        'body: field "colour"; allowed: image, text, top_k, threshold, model',
        id="unknown-field",
    ),
    pytest.param(
        as_json({"colour": "red"}),
        400,
        "unknown_field",
        'body: field "colour"; allowed: image, text, top_k, threshold, model',
        id="unknown-json-field",
    ),
    pytest.param(
        as_json(b'{"\\ud800": 1}'),
        400,
        "malformed_body",
        'body: field "\\ud800", which has half of a surrogate pair; allowed: whole characters',
        id="half-a-surrogate-pair-as-a-field",
    ),
    pytest.param(
        form(("text", None, b"red"), ("text", None, b"blue")),
        400,
        "repeated_field",
        "text: the field twice; allowed: once",
        id="same-field-twice",
    ),
    pytest.param(
        as_json(b'{"text": "red", "text": "blue"}'),
        400,
        "repeated_field",
        'body: field "text" twice; allowed: each field once',
        id="same-json-field-twice",
    ),
    pytest.param(form(("", None, b"red")), 400, "unknown_field", 'body: field ""', id="field-without-name"),
    pytest.param(
        form(("model", None, b"m" * 2000)), 413, "too_many_bytes", "model: more than 1024 bytes", id="huge-option"
    ),
    # JSON
    pytest.param(
        as_json(b'{"text": "red"'), 400, "malformed_body", "body: invalid JSON at line 1, column 15", id="bad-json"
    ),
    pytest.param(
        as_json(b"[1, 2]"), 400, "malformed_body", "body: a list of 2; allowed: a JSON object", id="json-list"
    ),
    pytest.param(as_json(b'{"threshold": NaN}'), 400, "malformed_body", "threshold: NaN", id="json-nan"),
    pytest.param(as_json(b"[" * 100_000), 400, "malformed_body", "body: JSON nested too deeply", id="deep-json"),
    pytest.param(
        as_json(b'{"top_k": ' + b"9" * 10_000 + b"}"),
        400,
        "malformed_body",
        "top_k: a number that is too long; allowed: up to 4300 digits",
        id="json-number-of-10000-digits",
    ),
    # Options
    *(
        pytest.param(
            request({"text": "red", name: value}),
            422,
            "invalid_parameter",
            f"{name}: {value}; allowed: {allowed}",
            id=f"{name}-{value}-{kind}",
        )
        for kind, request in (
            ("json", as_json),
            ("form", lambda fields: form(*((n, None, str(v).encode()) for n, v in fields.items()))),
        )
        for name, value, allowed in (
            ("top_k", 0, "an integer from 1 to"),
            ("top_k", 1.5, "an integer from 1 to"),
            ("top_k", 4, "an integer from 1 to 3"),
            ("threshold", 1.5, "a number from 0 to 1"),
            ("threshold", -1, "a number from 0 to 1"),
        )
    ),
    pytest.param(
        form(("text", None, b"red"), ("top_k", None, b"1_0")),
        422,
        "invalid_parameter",
        'top_k: "1_0"; allowed: an integer from 1 to the number of labels, as JSON writes numbers',
        id="a-number-of-pythons",
    ),
    pytest.param(
        form(("text", None, b"red"), ("threshold", None, b"nan")),
        422,
        "invalid_parameter",
        "threshold: ",
        id="threshold-nan",
    ),
    pytest.param(
        as_json({"text": "red", "top_k": "2"}),
        422,
        "invalid_parameter",
        'top_k: "2"; allowed: an integer',
        id="top_k-is-a-json-string",
    ),
    pytest.param(
        as_json({"text": "red", "model": "tooy"}),
        404,
        "unknown_model",
        'model: "tooy"; allowed: toy',
        id="unknown-model",
    ),
]


@pytest.mark.parametrize(("request_", "status", "code", "message"), BAD)
async def test_bad_input_is_explained_to_the_caller(client, request_, status, code, message):
    answer = await client.post("/v1/classify", **request_)
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert message in problem["detail"]
    assert problem["detail"] == f"{problem['input']}: {problem['found']}; allowed: {problem['allowed']}"
    assert problem["instance"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(picture(size=(1, 1)), id="1x1"),
        pytest.param(picture("JPEG", "CMYK"), id="cmyk"),
        pytest.param(palette_with_alpha(), id="palette-with-alpha"),
        pytest.param(animated("GIF"), id="animated-gif"),
        pytest.param(animated("WEBP"), id="animated-webp"),
        pytest.param(rotated(), id="exif-rotated"),
        pytest.param(picture("BMP"), id="bmp"),
        pytest.param(picture("TIFF"), id="tiff"),
    ],
)
async def test_unusual_pictures_work_as_their_owner_expects(client, content):
    answer = await client.post("/v1/classify", files={"image": content})
    assert answer.status_code == 200, answer.json()
    assert answer.json()["labels"][0]["label"] == "red"


async def test_sixteen_bits_of_grey_are_no_colour(client):
    answer = await client.post("/v1/classify", files={"image": sixteen_bit()})
    scores = [entry["score"] for entry in answer.json()["labels"]]
    assert scores == pytest.approx([1 / 3] * 3)


async def test_the_declared_media_type_of_a_picture_is_not_believed(client):
    answer = await client.post("/v1/classify", files={"image": ("song.mp3", picture(), "audio/mpeg")})
    assert answer.status_code == 200


async def test_a_form_in_which_no_file_was_chosen_is_a_text_alone(client):
    answer = await client.post("/v1/classify", **form(("image", "", b""), ("text", None, b"blue")))
    assert answer.json()["modalities"] == ["text"]


# --- a bad item of a batch ---


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
        pytest.param(rb'{"id": "b", "\ud83d": "red"}', "b", "malformed_body", r'field "\ud83d"', id="half-in-a-key"),
        pytest.param(
            b'{"id": "b", "text": "red", "text": "blue"}',
            "b",
            "repeated_field",
            'item: field "text" twice',
            id="a-key-twice",
        ),
        pytest.param(
            b'{"id": "b", "id": "c", "text": "red"}', None, "repeated_field", 'item: field "id" twice', id="an-id-twice"
        ),
        pytest.param(
            b'{"id": "b", "text": {"a": 1, "a": 2}}',
            "b",
            "repeated_field",
            'text: field "a" twice',
            id="a-key-twice-inside",
        ),
        pytest.param(b'{"id": "b", "text": NaN}', "b", "malformed_body", "text: NaN", id="nan"),
        pytest.param(b'{"id": "b", "image": -Infinity}', "b", "malformed_body", "image: -Infinity", id="infinity"),
        pytest.param(b'{"id": NaN, "text": "red"}', None, "malformed_body", "id: NaN", id="nan-for-an-id"),
        pytest.param(b"NaN", None, "malformed_body", "item: NaN", id="nan-for-an-item"),
        pytest.param(b'{"id": "b", "text": [NaN]}', "b", "invalid_parameter", "text: a list of 1", id="nan-inside"),
        pytest.param(
            b'{"id": "b", "text": ' + b"9" * 5000 + b"}",
            "b",
            "malformed_body",
            "text: a number that is too long",
            id="a-long-number",
        ),
        pytest.param(
            b"9" * 5000, None, "malformed_body", "item: a number that is too long", id="a-long-number-for-an-item"
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
    ],
)
async def test_a_bad_item_of_a_batch_fails_alone_and_is_named(client, item, id_, code, detail):
    body = b'{"items": [{"id": "a", "text": "red"}, ' + item + b', {"id": "c", "text": "blue"}]}'
    answer = await client.post("/v1/classify/batch", **as_json(body))
    assert answer.status_code == 200, answer.json()
    first, bad, last = answer.json()["items"]
    assert [first["status"], bad["status"] // 100, last["status"]] == [200, 4, 200]
    assert (bad["index"], bad.get("id"), bad["problem"]["code"]) == (1, id_, code)
    assert detail in bad["problem"]["detail"]


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        pytest.param(rb'"model": "\ud83d"', "malformed_body", "model: half of a surrogate pair", id="half-an-emoji"),
        pytest.param(b'"model": "\xe9"', "malformed_body", "model: half of a surrogate pair", id="latin-1"),
        pytest.param(rb'"\ud83d": 1', "malformed_body", r'body: field "\ud83d"', id="half-in-a-key"),
        pytest.param(b'"top_k": 1, "top_k": 2', "repeated_field", 'body: field "top_k" twice', id="a-key-twice"),
        pytest.param(b'"items": [{}]', "repeated_field", 'body: field "items" twice', id="items-twice"),
        pytest.param(b'"threshold": NaN', "malformed_body", "threshold: NaN", id="nan"),
        pytest.param(b'"top_k": Infinity', "malformed_body", "top_k: Infinity", id="infinity"),
        pytest.param(b'"top_k": ' + b"9" * 5000, "malformed_body", "top_k: a number that is too", id="a-long-number"),
        pytest.param(b'"colour": NaN', "unknown_field", 'body: field "colour"', id="an-unknown-field"),
        pytest.param(b'"top_k": 1.5', "invalid_parameter", "top_k: 1.5", id="no-integer"),
        pytest.param(b'"threshold": "0.5"', "invalid_parameter", 'threshold: "0.5"', id="a-wrong-type"),
    ],
)
async def test_the_same_faults_outside_of_the_items_refuse_the_batch_and_say_where(client, fields, code, detail):
    answer = await client.post("/v1/classify/batch", **as_json(b'{"items": [{"text": "red"}], ' + fields + b"}"))
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code)
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("items", [b"NaN", b'{"a": 1, "a": 2}', b"9" * 5000])
async def test_items_that_are_no_list_refuse_the_batch(client, items):
    answer = await client.post("/v1/classify/batch", **as_json(b'{"items": ' + items + b"}"))
    assert (answer.status_code, answer.json()["input"]) == (400, "items")


async def test_a_batch_that_is_no_json_is_refused_where_it_ends_to_be_json(client):
    answer = await client.post("/v1/classify/batch", **as_json(b'{"items": [{"text": "red"}, {"text": "\\x41"}]}'))
    assert answer.json()["detail"].startswith("body: invalid JSON at line 1, column 3")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
async def test_a_picture_in_a_transfer_encoding_is_classified(client, encoding):
    content = base64.encodebytes(picture()) if encoding == "base64" else binascii.b2a_qp(picture(), istext=False)
    head = f'Content-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    body = b"--frontier\r\n" + head.encode() + content + b"\r\n--frontier--\r\n"
    answer = await client.post("/v1/classify", **typed("multipart/form-data; boundary=frontier", body))
    assert answer.json()["labels"][0]["label"] == "red"


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(base64.b64encode(picture()).decode(), id="base64"),
        pytest.param("data:image/png;base64," + base64.b64encode(picture()).decode(), id="data-uri"),
        pytest.param(base64.encodebytes(picture()).decode(), id="base64-in-lines"),
    ],
)
async def test_an_image_in_json_may_be_written_in_the_usual_ways(client, encoded):
    answer = await client.post("/v1/classify", json={"image": encoded})
    assert answer.json()["modalities"] == ["image"]


@pytest.mark.parametrize("route", ["/v1/classify", "/v1/classify/batch"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_wrong_method_is_told_the_right_one(client, method, route):
    answer = await client.request(method, route)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json()["detail"] == f"method: {method}; allowed: POST"


async def test_the_files_of_the_page_are_only_read(client):
    answer = await client.post("/web/page.css")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_an_unknown_route_is_a_problem_too(client):
    answer = await client.get("/v2/classify")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_query_parameters_are_refused_rather_than_ignored(client):
    answer = await client.post("/v1/classify?top_k=1", json={"text": "red"})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
    assert answer.json()["detail"].startswith('query: "top_k"; allowed: no query parameters')


async def test_a_declared_length_of_50_mb_is_refused_before_anything_is_read(client):
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
async def test_50_mb_in_chunks_are_refused_as_soon_as_they_are_too_many(client, media_type):
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


async def test_a_body_that_never_ends_is_given_up(serving):
    async def body():
        yield b'{"text": '
        await asyncio.sleep(5)

    async with serving(body_timeout_ms=50) as client:
        answer = await client.post("/v1/classify", content=body(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (408, "body_too_slow")
    assert answer.json()["detail"] == "body: 9 bytes in 50 ms; allowed: a body that arrives within 50 ms"
