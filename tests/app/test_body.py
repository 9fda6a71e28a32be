"""Properties of the readers: whatever comes, it becomes a question or a refusal, however the network cuts it."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.body import (
    JSON_DEPTH,
    JSON_PIECES,
    MalformedBody,
    RequestError,
    _batch,
    _check_structure,
    _Form,
    _is_unicode,
    _parse_json,
    _question,
)
from app.settings import Settings

SETTINGS = Settings()
FORM = (
    b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\na red\r\n--car\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\r\n"
    b'--frontier\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n2\r\n--frontier--\r\n'
)


def read_form(*chunks: bytes):
    form = _Form(b"frontier", SETTINGS)
    for chunk in chunks:
        form.write(chunk)
    return form.close()


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


def test_a_form_becomes_parts_and_options():
    question = read_form(FORM)
    assert question.parts == {"text": b"a red\r\n--car", "image": b"\x89PNG\r\n"}
    assert question.options.top_k == 2


@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_how_the_network_cuts_a_form_does_not_matter(cuts):
    assert read_form(*pieces(FORM, cuts)) == read_form(FORM)


@given(st.binary(max_size=200), st.integers(0, len(FORM)), st.integers(0, len(FORM)))
def test_a_damaged_form_is_read_or_refused(damage, start, end):
    with suppress(RequestError):
        assert set(read_form(FORM[:start] + damage + FORM[end:]).parts) <= {"image", "text"}


@given(st.binary(max_size=100))
@example(b'{"a": {"b": 1, "b": 2}}')
@example(b'{"text": "\\ud83d\\ude00"}')
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_as_json_are_read_or_refused(content):
    with suppress(RequestError):
        assert isinstance(_parse_json(content), dict)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["image", "text", "top_k", "threshold", "model"]) | st.text(max_size=5)


@given(st.dictionaries(fields, values, max_size=4))
def test_any_json_object_becomes_a_question_or_is_refused(document):
    with suppress(RequestError):
        assert set(_question(_parse_json(json.dumps(document).encode()), SETTINGS).parts) <= {"image", "text"}


@pytest.mark.parametrize("text", ["\U0001f600", "déjà vu", "日本"])
def test_escaped_characters_outside_ascii_are_text(text):
    question = _question(_parse_json(json.dumps({"text": text}).encode()), SETTINGS)
    assert question.parts["text"].decode() == text


# --- limits of structure ---


def structured(content: bytes) -> bool:
    try:
        _check_structure(content)
    except RequestError:
        return False
    return True


def depth_of(value) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth_of, children), default=0)


nested = st.recursive(
    st.text(alphabet='ab[]{},"\\', max_size=8), lambda children: st.lists(children, max_size=2), max_leaves=30
)


@given(nested, st.integers(0, 2 * JSON_DEPTH))
def test_json_is_as_deep_as_its_lists_and_objects_whatever_its_strings_hold(value, wraps):
    for number in range(wraps):
        value = [value] if number % 2 else {"[{": value}
    assert structured(json.dumps(value).encode()) == (depth_of(value) <= JSON_DEPTH)


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        pytest.param(b"[" + b"," * (JSON_PIECES - 2) + b"]", True, id="as-many-as-allowed"),
        pytest.param(b"[" + b"," * (JSON_PIECES + 1) + b"]", False, id="too-many"),
        pytest.param(b'"' + b"," * JSON_PIECES + b'"', True, id="commas-in-a-string"),
        pytest.param(b'"' + b'\\"[' * JSON_PIECES + b'"', True, id="quotes-and-brackets-in-a-string"),
        pytest.param(b'"' + b'\\"[' * JSON_PIECES, True, id="a-string-without-end"),
        pytest.param(b'""' * (JSON_PIECES + 1), False, id="strings"),
    ],
)
def test_the_pieces_of_json_are_counted(content, fits):
    assert structured(content) == fits


@given(values)
def test_what_a_surrogate_is_half_of_is_found(value):
    def encodes(text: str) -> bool:
        try:
            return bool(text.encode() or True)
        except UnicodeEncodeError:
            return False

    text = json.dumps(value, ensure_ascii=False)
    assert _is_unicode(value) == encodes(text)
    assert not _is_unicode({"a": [value, {"\ud800": 1}]})


@given(
    st.dictionaries(
        st.sampled_from(["items", "top_k", "model", "x"]), values | st.lists(values, max_size=3), max_size=3
    )
)
def test_any_json_object_becomes_a_batch_or_is_refused(document):
    with suppress(RequestError):
        question = _batch(_parse_json(json.dumps(document).encode()), SETTINGS)
        assert len(question.ids) == len(question.unpack) >= 1
        for unpack in question.unpack:
            with suppress(RequestError):
                assert set(unpack()) <= {"image", "text"}


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
@example(b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\n\r\n--frontie', [50, 60])
def test_how_the_network_cuts_any_bytes_does_not_matter(content, cuts):
    def outcome(*chunks: bytes):
        try:
            return read_form(*chunks)
        except RequestError as refusal:
            return str(refusal)

    assert outcome(*pieces(content, [min(cut, len(content)) for cut in cuts])) == outcome(content)


@pytest.mark.parametrize("cut", range(12))
def test_only_line_breaks_may_stand_before_a_form_wherever_the_network_cuts(cut):
    before = b"\r\n\r\n"
    assert read_form((before + FORM)[:cut], (before + FORM)[cut:]) == read_form(FORM)
    words = b"\r\nwords" + FORM
    with pytest.raises(MalformedBody, match="broken multipart"):
        read_form(words[:cut], words[cut:])


@given(st.data())
def test_how_the_network_cuts_a_damaged_form_does_not_matter(data):
    at = data.draw(st.integers(0, len(FORM)))
    content = FORM[:at] + data.draw(st.binary(max_size=20)) + FORM[at + data.draw(st.integers(0, 20)) :]
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))

    def outcome(*chunks: bytes):
        try:
            return read_form(*chunks)
        except RequestError as refusal:
            return type(refusal)

    assert outcome(*pieces(content, cuts)) == outcome(content)
