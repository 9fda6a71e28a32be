"""Properties of the readers: whatever comes, it becomes a question or a refusal, however the network cuts it."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.body import RequestError, _Form, _parse_json, _question
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
