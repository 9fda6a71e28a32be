"""Properties of reading bodies: any bytes become a request or an error, wherever the chunks of the network end.

tests/hostile/uploads.py lists more bad bodies; test_hostile.py has their messages.
"""

import base64
import json
import tracemalloc
from contextlib import suppress
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import HTTP
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polymodal.app.api.body.binary import file_of
from polymodal.app.api.body.charsets import _CODECS
from polymodal.app.api.body.form import Form
from polymodal.app.api.body.json import JSON_DEPTH, JSON_PIECES, _check_structure, batch_of, parse, request_of
from polymodal.app.api.body.problems import MalformedBody, TooManyBytes
from polymodal.app.problems import RequestError
from polymodal.app.settings import Settings
from polymodal.model import TASKS, InputError

SETTINGS = Settings()
CLASSIFY = TASKS["classify"]
FORM = (
    b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\na red\r\n--car\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\r\n"
    b'--frontier\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n2\r\n--frontier--\r\n'
)


def read_form(*chunks: bytes, boundary: bytes = b"frontier", charset: bytes = b""):
    form = Form(CLASSIFY, boundary, SETTINGS, charset)
    for chunk in chunks:
        form.write(chunk)
    return form.close()


def read_json(document: object):
    return request_of(CLASSIFY, parse(json.dumps(document).encode()), SETTINGS)


def attempt(read, *arguments):
    """Return what `read` returns, or the error that it raises."""
    try:
        return read(*arguments)
    except (RequestError, InputError) as error:
        return error


def chunks(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


def test_a_form_is_read_into_inputs_and_options():
    parsed = read_form(FORM)
    assert parsed.inputs == {"text": b"a red\r\n--car", "image": b"\x89PNG\r\n"}
    assert parsed.options.top_k == 2


@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_a_form_is_read_alike_wherever_chunks_end(cuts):
    assert read_form(*chunks(FORM, cuts)) == read_form(FORM)


@given(st.binary(max_size=200), st.integers(0, len(FORM)), st.integers(0, len(FORM)))
def test_a_damaged_form_is_read_or_rejected(damage, start, end):
    with suppress(RequestError, InputError):
        assert set(read_form(FORM[:start] + damage + FORM[end:]).inputs) <= {"image", "text"}


@given(st.binary(max_size=100))
@example(b'{"a": {"b": 1, "b": 2}}')
@example(b'{"text": "\\ud83d\\ude00"}')
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_as_json_are_read_or_rejected(content):
    with suppress(RequestError, InputError):
        assert isinstance(parse(content), dict)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["image", "text", "top_k", "threshold", "model"]) | st.text(max_size=5)


@given(st.dictionaries(fields, values, max_size=4))
def test_any_json_object_becomes_a_request_or_is_rejected(document):
    with suppress(RequestError, InputError):
        assert set(read_json(document).inputs) <= {"image", "text"}


@pytest.mark.parametrize("text", ["\U0001f600", "déjà vu", "日本"])
def test_escaped_characters_outside_ascii_are_text(text):
    assert read_json({"text": text}).inputs["text"].decode() == text


# --- limits of structure ---


def within_limits(content: bytes) -> bool:
    return attempt(_check_structure, content) is None


def depth_of(value) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth_of, children), default=0)


nested = st.recursive(
    st.text(alphabet='ab[]{},"\\', max_size=8), lambda children: st.lists(children, max_size=2), max_leaves=30
)


@given(nested, st.integers(0, 2 * JSON_DEPTH))
def test_brackets_in_strings_do_not_count_for_the_depth_of_json(value, wraps):
    for number in range(wraps):
        value = [value] if number % 2 else {"[{": value}
    assert within_limits(json.dumps(value).encode()) == (depth_of(value) <= JSON_DEPTH)


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        pytest.param(b"[" + b"," * (JSON_PIECES - 2) + b"]", True, id="at-the-limit"),
        pytest.param(b"[" + b"," * (JSON_PIECES + 1) + b"]", False, id="above-the-limit"),
        pytest.param(b'"' + b"," * JSON_PIECES + b'"', True, id="commas-in-a-string"),
        pytest.param(b'"' + b'\\"[' * JSON_PIECES + b'"', True, id="quotes-and-brackets-in-a-string"),
        pytest.param(b'"' + b'\\"[' * JSON_PIECES, True, id="a-string-without-end"),
        pytest.param(b'""' * (JSON_PIECES + 1), False, id="strings"),
    ],
)
def test_the_pieces_of_json_are_counted(content, fits):
    assert within_limits(content) == fits


@given(st.text(alphabet="aé\U0001f600\ud83d\ude00\udc80", max_size=4))
@pytest.mark.parametrize("name", ["text", "model", "image", "colour"])
def test_a_request_contains_only_whole_characters(name, text):
    for document in ({name: text}, {text: 1}):
        with suppress(RequestError, InputError):
            parsed = read_json(document)
            (parsed.model or "").encode()
            assert all(isinstance(content, bytes) for content in parsed.inputs.values())


@given(
    st.dictionaries(
        st.sampled_from(["items", "top_k", "model", "x"]), values | st.lists(values, max_size=3), max_size=3
    )
)
def test_any_json_object_becomes_a_batch_or_is_rejected(document):
    with suppress(RequestError, InputError):
        parsed = batch_of(CLASSIFY, parse(json.dumps(document).encode()), SETTINGS)
        assert len(parsed.ids) == len(parsed.unpack) >= 1
        for unpack in parsed.unpack:
            with suppress(RequestError, InputError):
                assert set(unpack()) <= {"image", "text"}


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
@example(b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\n\r\n--frontie', [50, 60])
def test_any_bytes_are_read_alike_wherever_chunks_end(content, cuts):
    cut = chunks(content, [min(cut, len(content)) for cut in cuts])
    assert str(attempt(read_form, *cut)) == str(attempt(read_form, content))


@pytest.mark.parametrize("cut", range(12))
def test_only_line_breaks_may_precede_a_form_wherever_chunks_end(cut):
    before = b"\r\n\r\n"
    assert read_form((before + FORM)[:cut], (before + FORM)[cut:]) == read_form(FORM)
    words = b"\r\nwords" + FORM
    with pytest.raises(MalformedBody, match="broken multipart"):
        read_form(words[:cut], words[cut:])


@given(st.data())
def test_a_damaged_form_is_read_alike_wherever_chunks_end(data):
    start = data.draw(st.integers(0, len(FORM)))
    content = FORM[:start] + data.draw(st.binary(max_size=20)) + FORM[start + data.draw(st.integers(0, 20)) :]
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))
    whole, cut = attempt(read_form, content), attempt(read_form, *chunks(content, cuts))
    assert type(cut) is type(whole)
    assert isinstance(whole, Exception) or cut == whole


# --- parts of a form ---


def part(name: str, content: bytes, *fields: str, disposition: str = "") -> bytes:
    head = "\r\n".join((f'Content-Disposition: form-data; name="{name}"{disposition}', *fields))
    return b"--frontier\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def read_parts(*parts: bytes, **options: bytes):
    return read_form(b"".join(parts) + b"--frontier--\r\n", **options)


@pytest.mark.parametrize("encoding", ["", "7bit", "8bit", "binary", "BINARY "])
def test_a_transfer_encoding_that_changes_nothing_is_accepted(encoding):
    parsed = read_parts(part("text", "réd".encode(), f"Content-Transfer-Encoding: {encoding}"))
    assert parsed.inputs == {"text": "réd".encode()}


@pytest.mark.parametrize(
    ("encoding", "content", "decoded"),
    [
        pytest.param("base64", b"cmVk", b"red", id="base64"),
        pytest.param("Base64", b"cmVk\r\n\r\n", b"red", id="base64-in-lines"),
        pytest.param("base64", b"cmVkIQ", b"red!", id="base64-without-padding"),
        pytest.param("quoted-printable", b"r=C3=A9d=\r\n boat", "réd boat".encode(), id="quoted-printable"),
        pytest.param("Quoted-Printable", b"r=c3=a9d", "réd".encode(), id="quoted-printable-in-small-letters"),
        pytest.param("quoted-printable", b"a_b", b"a_b", id="an-underscore-is-no-blank"),
    ],
)
def test_a_transfer_encoding_is_decoded(encoding, content, decoded):
    field = f"Content-Transfer-Encoding: {encoding}"
    assert read_parts(part("text", content, field)).inputs == {"text": decoded}
    assert read_parts(part("image", content, field)).inputs == {"image": decoded}


def test_a_form_of_pythons_email_package_is_read():
    message = MIMEMultipart("form-data")
    image = b"\x89PNG\r\n\x1a\n" + bytes(100)
    for name, attachment in {
        "text": MIMEText("a réd boat", "plain", "utf-8"),  # which becomes base64
        "image": MIMEImage(image),
        "top_k": MIMEText("2"),
    }.items():
        names = {"name": name, "filename": "réd.png"} if name == "image" else {"name": name}
        attachment.add_header("Content-Disposition", "form-data", **names)
        message.attach(attachment)
    body = message.as_bytes(policy=HTTP).partition(b"\r\n\r\n")[2]
    parsed = read_form(body, boundary=message.get_boundary().encode())
    assert parsed.inputs == {"text": "a réd boat".encode(), "image": image}
    assert parsed.options.top_k == 2


@pytest.mark.parametrize(
    ("content_type", "content", "text"),
    [
        pytest.param("text/plain; charset=ISO-8859-1", b"caf\xe9 \x80", "café €", id="latin-1-as-in-browsers"),
        pytest.param('text/plain; charset="windows-1252"', b"caf\xe9", "café", id="in-quotes"),
        pytest.param("text/plain;CHARSET=us-ascii", b"red", "red", id="ascii"),
        pytest.param("text/plain; charset=utf-16", "red".encode("utf-16"), "red", id="utf-16-with-a-mark"),
        pytest.param("text/plain; charset=utf-16", "red".encode("utf-16-le"), "red", id="utf-16-of-dotnet"),
        pytest.param("text/plain; charset=UTF-16BE", "red".encode("utf-16-be"), "red", id="utf-16be"),
        pytest.param("text/plain; charset=Shift_JIS", "日本".encode("cp932"), "日本", id="shift-jis"),
        pytest.param("text/plain; charset=gb2312", "中文".encode("gbk"), "中文", id="gb2312"),
        pytest.param("text/plain; charset=x-sjis", "日本".encode("cp932"), "日本", id="x-sjis"),
        pytest.param("text/csv; charset=utf-8; header=present", "é".encode(), "é", id="other-parameters"),
        pytest.param("application/octet-stream", "red".encode("utf-16"), "red", id="a-utf-16-file"),
        pytest.param("text/plain; charset=utf-8", b"\xff\xfer\x00", "r", id="a-mark-overrides-the-charset"),
        pytest.param("text/plain", b"\xef\xbb\xbfred", "red", id="a-utf-8-mark"),
        pytest.param("application/json; charset=UTF-8", b'"a \\u00e9"', "a é", id="json-of-retrofit"),
    ],
)
def test_a_text_is_decoded_by_its_declared_charset(content_type, content, text):
    assert read_parts(part("text", content, f"Content-Type: {content_type}")).inputs == {"text": text.encode()}


def test_every_charset_has_a_codec_that_reads_ascii_digits():
    for name, codec in _CODECS.items():
        digits = read_parts(part("top_k", "12".encode(codec), f"Content-Type: text/plain; charset={name}"))
        assert digits.options.top_k == 12, name


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_charset_field_holds_for_parts_that_declare_none(first):
    named = part("_charset_", b"windows-1252")
    text = part("text", b"caf\xe9")
    assert read_parts(*((named, text) if first else (text, named))).inputs == {"text": "café".encode()}
    own = part("text", "café".encode(), "Content-Type: text/plain; charset=utf-8")
    assert read_parts(named, own).inputs == {"text": "café".encode()}


def test_the_charset_of_the_whole_form_holds_for_parts_without_another():
    text = part("text", b"caf\xe9")
    assert read_parts(text, charset=b"ISO-8859-1").inputs == {"text": "café".encode()}
    assert read_parts(part("_charset_", b"koi8-r"), part("text", b"\xc1"), charset=b"utf-16").inputs == {
        "text": "а".encode()
    }


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        pytest.param(
            "Content-Transfer-Encoding: base64\r\ncontent-transfer-encoding: 8bit",
            b"cmVk",
            'header field "content-transfer-encoding" of one part twice',
            id="two-transfer-encodings",
        ),
        pytest.param("Content-Type: text/plain; charset=utf-7", b"red", 'charset "utf-7"', id="utf-7"),
        pytest.param("Content-Type: text/plain; charset=idna", b"red", 'charset "idna"', id="a-codec-of-python"),
        pytest.param("Content-Type: text/plain; charset=us-ascii", b"\xe9", "not ascii at position 0", id="not-ascii"),
        pytest.param("Content-Type: text/plain; charset=utf-16le", b"abc", "not utf-16-le", id="half-a-unit"),
        pytest.param("Content-Type: text/plain; charset*=''utf-16", b"a", "charset*=''utf-16", id="rfc-2231"),
        pytest.param("Content-Type: text/plain; delsp=yes", b"a", "delsp=yes", id="deleted-blanks"),
        pytest.param("Content-Type: message/rfc822", b"a: b", "message/rfc822", id="an-email"),
        pytest.param("Content-Type: application/x-www-form-urlencoded", b"a+b", "urlencoded", id="urlencoded"),
        pytest.param("Content-Type: application/json", b"a boat", "text: invalid JSON", id="no-json"),
        pytest.param("Content-Type: application/json", b"7", "text: 7; allowed: a string", id="json-of-another-type"),
        pytest.param("Content-Type: application/json", b'"\\ud83d"', "half of a surrogate pair", id="json-of-half"),
        pytest.param("Content-Range: bytes 0-2/9", b"red", "content-range", id="a-range"),
    ],
)
def test_a_part_with_headers_that_are_not_supported_is_rejected(field, content, message):
    assert message in str(attempt(read_parts, part("text", content, field)))


@pytest.mark.parametrize("field", ["Content-Length: 3", "MIME-Version: 1.0", "Content-ID: <a>", "Content-Language: en"])
def test_other_header_fields_of_a_part_are_ignored(field):
    assert read_parts(part("text", b"red", field)).inputs == {"text": b"red"}


@pytest.mark.parametrize(
    ("disposition", "named"),
    [
        ("", False),
        ('; filename=""', False),
        ("; filename*=utf-8''", False),
        ('; filename="a.png"', True),
        ("; filename*=utf-8''a%20b.png", True),
        ("; filename*=UTF-8'en'a.png", True),
        ("; filename*=a.png", True),
        ("; filename=\"\"; filename*=utf-8''a.png", True),
        ("; filename*0=a; filename*1=b.png", True),
        ("; filename*0*=utf-8''a", True),
        ('; FileName="a.png"', True),
        ('; filename="C:\\pictures\\"', True),
    ],
)
def test_an_empty_file_is_an_input_if_it_has_a_file_name(disposition, named):
    assert read_parts(part("image", b"", disposition=disposition)).inputs == ({"image": b""} if named else {})
    assert read_parts(part("image", b"a", disposition=disposition)).inputs == {"image": b"a"}


def test_the_limits_of_a_part_hold_for_its_decoded_content():
    settings = SETTINGS.model_copy(update={"max_text_bytes": 8, "max_image_bytes": 9})

    def read(content: bytes):
        form = Form(CLASSIFY, b"frontier", settings)
        form.write(content + b"--frontier--\r\n")
        return form.encoded, form.close()

    for field, content in (
        ("Content-Transfer-Encoding: base64", base64.b64encode(b"a" * 9)),
        ("Content-Transfer-Encoding: quoted-printable", b"=61" * 9),
        ("Content-Type: text/plain; charset=koi8-r", b"\xc1" * 5),
        ("Content-Type: text/plain", b"a" * 9),
    ):
        with pytest.raises(TooManyBytes, match=r"text: .*allowed: up to 8 bytes"):
            read(part("text", content, field))
    encoded, parsed = read(part("image", b"=61" * 9, "Content-Transfer-Encoding: quoted-printable"))
    assert encoded
    assert parsed.inputs == {"image": b"a" * 9}


# --- numbers ---


def in_a_form(name: str, number: str):
    return getattr(read_parts(part(name, number.encode())).options, name)


def in_json(name: str, number: str):
    return getattr(request_of(CLASSIFY, parse(f'{{"{name}":{number}}}'.encode()), SETTINGS).options, name)


@pytest.mark.parametrize("read", [in_a_form, in_json])
@pytest.mark.parametrize(
    ("name", "written", "number"),
    [
        *(("top_k", written, 3) for written in ("3", "3.0", "3e0", "30e-1", "0.3E+1", "3.000")),
        ("top_k", "1e2", 100),
        *(("threshold", written, 1.0) for written in ("1", "1.0", "1e0", "10e-1", "0.1E1")),
        *(("threshold", written, 0.0) for written in ("0", "-0", "-0.0", "0e9", "1e-400")),
    ],
)
def test_numbers_are_those_of_json_schema(read, name, written, number):
    assert read(name, written) == number


@pytest.mark.parametrize("read", [in_a_form, in_json])
@pytest.mark.parametrize(
    ("name", "written"),
    [
        *(("top_k", written) for written in ("-1e400", "[3]", "３")),
        *(("threshold", written) for written in ("1.5", "false", '"0.5"', "5.", "0_1", "inf", "-Infinity", "0,5")),
    ],
)
def test_anything_else_is_not_a_number(read, name, written):
    assert isinstance(attempt(read, name, written), RequestError | InputError)


@given(st.text(alphabet="0123456789eE+-._ ", max_size=6).filter(str.strip), st.sampled_from(["top_k", "threshold"]))
def test_forms_and_json_accept_the_same_numbers(written, name):
    if written == written.strip():  # JSON ignores blanks around a number
        in_form, by_json = (attempt(read, name, written) for read in (in_a_form, in_json))
        assert isinstance(in_form, Exception) == isinstance(by_json, Exception)
        assert isinstance(in_form, Exception) or in_form == by_json


# --- base64 ---

SPELLINGS = {
    "standard": lambda content: base64.b64encode(content).decode(),
    "for URLs": lambda content: base64.urlsafe_b64encode(content).decode(),
    "without padding": lambda content: base64.b64encode(content).decode().rstrip("="),
    "for URLs, without padding": lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
    "in lines": lambda content: base64.encodebytes(content).decode(),
    "in lines that end with CRLF": lambda content: base64.encodebytes(content).decode().replace("\n", "\r\n"),
    "in indented lines": lambda content: "\n  " + base64.encodebytes(content).decode().replace("\n", " \n  "),
    "escaped": lambda content: quote(base64.b64encode(content), safe=""),
    "a data: URI": lambda content: "data:image/png;base64," + base64.b64encode(content).decode(),
    "an escaped data: URI": lambda content: "data:image/png;base64," + quote(base64.b64encode(content), safe=""),
    "a data: URI escaped as a whole": lambda content: quote(
        "data:image/png;base64," + base64.b64encode(content).decode(), safe=""
    ),
    "a data: URI in base64 for URLs": lambda content: "data:;base64," + base64.urlsafe_b64encode(content).decode(),
    "a data: URI with parameters": lambda content: (
        "data:image/png;name=a.png;charset=utf-8; BASE64," + base64.b64encode(content).decode()
    ),
    "a data: URI with base64 in the middle": lambda content: (
        "DATA:image/png;base64;name=a.png," + base64.b64encode(content).decode()
    ),
    "a data: URI without base64": lambda content: "data:image/png;charset=utf-8,%ff" + quote(content),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(st.binary(max_size=200))
@example(bytes(range(256)))
@example(b"\xfb\xff\xfe")
def test_every_unambiguous_spelling_of_bytes_is_decoded(spelling, content):
    decoded = file_of("image", SPELLINGS[spelling](content), 1000)
    assert decoded.removeprefix(b"\xff") == content if spelling.endswith("without base64") else decoded == content


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("QR", "bits of no byte", id="spare-bits-after-one-byte"),
        pytest.param("QUJ", "bits of no byte", id="spare-bits-after-two-bytes"),
        pytest.param("QUJD====", 'of 4 letters with 4 "="', id="needless-padding"),
        pytest.param("data:image/png,%89PNG\u00e9", 'with "\\u00e9"', id="not-ascii"),
    ],
)
def test_ambiguous_base64_is_rejected_with_the_reason(written, message):
    with pytest.raises(MalformedBody) as error:
        file_of("image", written, 1000)
    assert message in error.value.found


@given(st.text(alphabet="AQR/+-_= \n%3D", max_size=12))
def test_decoded_base64_has_exactly_the_bits_of_its_letters(written):
    with suppress(MalformedBody):
        content = file_of("image", written, 1000)
        letters = "".join(written.replace("%3D", "=").split()).rstrip("=")
        if "%" not in letters:
            assert base64.b64encode(content).decode().rstrip("=") == letters.replace("-", "+").replace("_", "/")


@pytest.mark.parametrize("before", range(3))
def test_an_escape_is_decoded_wherever_the_decoder_cuts(before):
    written = "data:," + "a" * before + "%3Db" * 100_000
    assert file_of("image", written, 300_000) == b"a" * before + b"=b" * 100_000


def test_escapes_of_a_data_uri_take_little_memory():
    written = "data:image/bmp," + "%00" * 500_000 + "=" * 1_500_000
    tracemalloc.start()
    try:
        assert file_of("image", written, 2_000_000) == bytes(500_000) + b"=" * 1_500_000
        assert tracemalloc.get_traced_memory()[1] < 5 * len(written)
    finally:
        tracemalloc.stop()
