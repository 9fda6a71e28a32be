"""Rows of tables as items: missing values, values of other types, numbers of numpy, and iterables that fail."""

import json
import sqlite3
import subprocess
import sys
from collections import UserDict, namedtuple
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import httpx
import numpy as np
import pytest

from polymodal_client import InternalError, Item, Retries, Unauthorized
from polymodal_client.items import is_missing
from tests.client.toy_service import ANSWER, answering, problem

NAN = float("nan")


def sent_items(transport):
    return [item for request in transport.seen for item in json.loads(request.content)["items"]]


def results(answers):
    return [str(answer.error) if answer.error else "ok" for answer in answers]


def pandas_missing(name):
    """Return a value like those of pandas: of a type with that name, and without a truth value."""

    def refuse(*_):
        raise TypeError("boolean value is ambiguous")

    return type(name, (), {"__bool__": refuse, "__eq__": refuse, "__ne__": refuse, "__hash__": None})()


MISSING = {
    "None": None,
    "nan": NAN,
    "numpy-nan": np.nan,
    "float32-nan": np.float32("nan"),
    "float64-nan": np.float64("nan"),
    "array-of-nan-without-dimensions": np.array(np.nan),
    "complex-nan": complex(0, NAN),
    "decimal-nan": Decimal("nan"),
    "numpy-not-a-time": np.datetime64("NaT"),
    "numpy-masked": np.ma.masked,
    "pandas-NA": pandas_missing("NAType"),
    "pandas-NaT": pandas_missing("NaTType"),
}


@pytest.mark.parametrize("value", MISSING.values(), ids=MISSING)
def test_a_missing_value_is_no_input(both, scripted, value):
    service = scripted(answering)
    rows = [{"text": "red", "image": value, "id": value}, {"text": value, "image": b"bytes"}, {"text": value}]
    answers = both.call(service, "classify_batch", [*rows, Item(value, "red", value)])
    assert sent_items(service) == [{"text": "red"}, {"image": "Ynl0ZXM="}, {}, {"text": "red"}]
    assert results(answers) == ["ok", "ok", "422 nothing_given: nothing", "ok"]
    assert [answer.id for answer in answers] == [None] * 4
    both.call(service, "classify", value, "red")
    assert json.loads(service.seen[-1].content) == {"text": "red"}


@pytest.mark.parametrize("value", [0, 0.0, "", "nan", b"", [NAN], np.array([NAN]), date(2026, 1, 1), object()])
def test_other_values_are_not_missing(value):
    assert not is_missing(value)


def test_an_empty_path_is_no_image(both, scripted):
    service = scripted(answering)
    both.call(service, "classify_batch", [{"image": "", "text": "red"}])
    assert sent_items(service) == [{"text": "red"}]


WRONG = {
    "number": ({"text": 7}, "text: int; allowed: str, or None or NaN for no text"),
    "numpy-number": ({"text": np.int64(7)}, "text: int64; allowed: str"),
    "truth": ({"text": True}, "text: bool; allowed: str"),
    "list": ({"text": ["red"]}, "text: list; allowed: str"),
    "bytes": ({"text": b"red"}, "text: bytes; allowed: str"),
    "array": ({"text": np.array(["red", "blue"])}, "text: ndarray; allowed: str"),
    "date": ({"text": date(2026, 1, 1)}, "text: date; allowed: str"),
    "lone-surrogate": ({"text": "\ud800"}, "surrogates not allowed"),
    "image-of-pixels": ({"image": np.zeros((2, 2, 3))}, "image: ndarray; allowed: a path, bytes, a binary file"),
    "image-that-is-a-number": ({"image": 7}, "image: int; allowed: a path"),
    "no-such-file": ({"image": "nowhere.png"}, "No such file"),
    "folder": ({"image": "/"}, "Is a directory"),
    "item-with-a-number": (Item(text=7), "text: int; allowed: str"),
    "another-key": ({"text": "red", "label": "x"}, "item: key 'label'; allowed: image, text, id"),
    "other-keys": ({"Text": "red", 1: 2}, "item: keys 'Text', 1; allowed: image, text, id"),
    "more-cells-than-columns": ({"text": "red", None: ["blue"]}, "item: key None; allowed: image, text, id"),
    "a-thousand-keys": ({f"k{n}": 1 for n in range(1000)}, "item: keys 'k0', 'k1', 'k2', 'k3', 'k4' …; allowed"),
    "no-mapping": ("red", "item: str; allowed: an Item, or a mapping with image, text, id"),
    "tuple": (("a.png", "red"), "item: tuple; allowed: an Item"),
    "none": (None, "item: NoneType; allowed: an Item"),
    "nan": (NAN, "item: float; allowed: an Item"),
}


@pytest.mark.parametrize(("row", "message"), WRONG.values(), ids=WRONG)
def test_a_row_that_cannot_be_sent_is_explained_and_does_not_affect_others(both, scripted, row, message):
    service = scripted(answering)
    answers = both.call(service, "classify_batch", [{"text": "red"}, row, {"text": "blue"}])
    assert sent_items(service) == [{"text": "red"}, {"text": "blue"}]
    first, middle, last = results(answers)
    assert (first, last) == ("ok", "ok")
    assert message in middle


def test_a_row_that_cannot_be_sent_keeps_its_id(both, scripted):
    rows = [{"id": "a", "colour": "red"}, {"id": "b", "text": 7}, Item(text=7, id="c")]
    answers = both.call(scripted(answering), "classify_batch", rows)
    assert [answer.id for answer in answers] == ["a", "b", "c"]


def test_a_row_that_raises_does_not_affect_others(both, scripted):
    class Broken(UserDict):
        def __getitem__(self, key):
            raise ZeroDivisionError("a row of its own kind")

    answers = both.call(scripted(answering), "classify_batch", [{"text": "a"}, Broken(text="b")])
    assert results(answers) == ["ok", "a row of its own kind"]


class Series:
    """A row of pandas: it has keys and items, but is not a Mapping, and iterating it yields values."""

    def __init__(self, cells):
        self.cells = cells

    def keys(self):
        return self.cells.keys()

    def __getitem__(self, key):
        return self.cells[key]

    def __iter__(self):
        return iter(self.cells.values())


def row_of_sqlite(text):
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT ? AS text, 'a' AS id", [text]).fetchone()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"text": "red", "id": "a"}, id="dict"),
        pytest.param(UserDict(text="red", id="a"), id="mapping"),
        pytest.param(Series({"text": "red", "id": "a"}), id="series"),
        pytest.param(namedtuple("Row", "text id")("red", "a"), id="named-tuple"),
        pytest.param(row_of_sqlite("red"), id="sqlite"),
        pytest.param({"text": np.str_("red"), "id": "a"}, id="numpy-text"),
    ],
)
def test_an_object_with_keys_is_a_row(both, scripted, row):
    service = scripted(answering)
    (answer,) = both.call(service, "classify_batch", [row])
    assert answer.result().best.label == "red"
    assert (answer.id, sent_items(service)) == ("a", [{"text": "red"}])


@pytest.mark.parametrize(
    "items",
    [
        pytest.param({"text": "red"}, id="one-row"),
        pytest.param(Item(text="red"), id="one-item"),
        pytest.param("red", id="a-text"),
        pytest.param(b"red", id="bytes"),
        pytest.param(None, id="none"),
        pytest.param(7, id="a-number"),
        pytest.param(type("GeoDataFrame", (type("DataFrame", (list,), {}),), {})(), id="a-table"),
    ],
)
def test_an_argument_that_is_not_an_iterable_of_rows_is_rejected(both, scripted, items):
    service = scripted(AssertionError("sent"))
    with pytest.raises(TypeError, match=r"^items: .*allowed: an iterable of Items or mappings.*to_dict\('records'\)"):
        both.call(service, "classify_batch", items)


def test_neither_numpy_nor_pandas_is_imported():
    code = "import polymodal_client.items, sys; sys.exit(bool({'numpy', 'pandas', 'PIL'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "client", check=True)


# --- options ---


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param({"top_k": np.int64(3)}, {"top_k": 3}, id="int64"),
        pytest.param({"top_k": np.uint8(3)}, {"top_k": 3}, id="uint8"),
        pytest.param({"top_k": np.array(3)}, {"top_k": 3}, id="array-without-dimensions"),
        pytest.param({"top_k": 3.0}, {"top_k": 3}, id="whole-float"),
        pytest.param({"top_k": np.float64(3)}, {"top_k": 3}, id="whole-float64"),
        pytest.param({"threshold": np.float32(0.5)}, {"threshold": 0.5}, id="float32"),
        pytest.param({"threshold": np.float16(0.5)}, {"threshold": 0.5}, id="float16"),
        pytest.param({"threshold": Decimal("0.5")}, {"threshold": 0.5}, id="decimal"),
        pytest.param({"threshold": Fraction(1, 2)}, {"threshold": 0.5}, id="fraction"),
        pytest.param({"threshold": 1}, {"threshold": 1.0}, id="whole-number"),
        pytest.param({"model": np.str_("toy")}, {"model": "toy"}, id="numpy-text"),
        pytest.param({"top_k": None, "threshold": None, "model": None}, {}, id="none"),
    ],
)
def test_options_may_be_numbers_of_any_type(both, scripted, options, sent):
    service = scripted(answering)
    both.call(service, "classify", text="red", **options)
    both.call(service, "classify_batch", [{"text": "red"}], **options)
    one, batch = (json.loads(request.content) for request in service.seen)
    assert one == {"text": "red", **sent}
    assert batch == {"items": [{"text": "red"}], **sent}


def test_numpy_numbers_are_sent_in_a_form_too(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER))
    both.call(service, "classify", b"image", top_k=np.int64(3), threshold=np.float32(0.5))
    (request,) = service.seen
    for field in (b'name="top_k"\r\n\r\n3\r\n', b'name="threshold"\r\n\r\n0.5\r\n'):
        assert field in request.content


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": "3"}, TypeError, "top_k: str; allowed: a whole number"),
        ({"top_k": True}, TypeError, "top_k: bool; allowed: a whole number"),
        ({"top_k": np.bool_(True)}, TypeError, "top_k: bool; allowed: a whole number"),
        ({"top_k": np.array([3, 4])}, TypeError, "top_k: ndarray; allowed: a whole number"),
        ({"top_k": 10**400}, ValueError, "top_k: inf; allowed: a whole number"),
        ({"top_k": 2.5}, ValueError, "top_k: 2.5; allowed: a whole number"),
        ({"top_k": NAN}, ValueError, "top_k: nan; allowed: a whole number"),
        ({"top_k": pandas_missing("NAType")}, TypeError, "top_k: NAType; allowed: a whole number"),
        ({"threshold": "0.5"}, TypeError, "threshold: str; allowed: a number"),
        ({"threshold": NAN}, ValueError, "threshold: nan; allowed: a number"),
        ({"threshold": np.float32("inf")}, ValueError, "threshold: inf; allowed: a number"),
        ({"threshold": 0.5j}, TypeError, "threshold: complex; allowed: a number"),
        ({"threshold": [0.5]}, TypeError, "threshold: list; allowed: a number"),
        ({"model": 7}, TypeError, "model: int; allowed: a name of models"),
    ],
    ids=lambda value: str(value)[:60].partition(" object at")[0] if isinstance(value, dict) else "",
)
def test_options_of_other_types_are_explained(both, scripted, options, error, message):
    service = scripted(AssertionError("sent"))
    for call, items in (("classify", "red"), ("classify_batch", [{"text": "red"}])):
        with pytest.raises(error, match=message):
            both.call(service, call, items, **options)


@pytest.mark.parametrize("options", [{"items_per_request": np.int64(2)}, {"concurrency": np.int32(1)}])
def test_batch_options_may_be_numpy_numbers(both, scripted, options):
    answers = both.call(scripted(answering), "classify_batch", [{"text": "red"}] * 5, **options)
    assert results(answers) == ["ok"] * 5


def test_ids_names_and_timeouts_of_other_types_are_explained(both, scripted):
    service = scripted(AssertionError("sent"))
    with pytest.raises(ValueError, match="request_id: 7; allowed"):
        both.call(service, "classify", text="red", request_id=7)
    with pytest.raises(ValueError, match="model: 7; allowed"):
        both.call(service, "model", 7)
    with pytest.raises(TypeError, match="timeout: NoneType; allowed: seconds"):
        both.call(service, "classify", text="red", timeout=None)
    assert both.call(scripted(answering), "classify", text="red", timeout=np.float32(9)).best.label == "red"


# --- answers are kept when later items fail ---


def test_an_iterable_that_raises_ends_the_batch_and_keeps_the_answers(both, scripted):
    def rows():
        yield {"text": "red"}
        yield {"text": "blue"}
        raise RuntimeError("the database has gone")

    done = []
    answers = both.call(
        scripted(answering),
        "classify_batch",
        rows(),
        items_per_request=1,
        progress=lambda number, total: done.append((number, total)),
    )
    assert results(answers) == ["ok", "ok", "the database has gone"]
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert done[-1] == (3, None)
    with pytest.raises(RuntimeError, match="the database has gone"):
        answers[-1].result()


def test_a_key_that_is_revoked_meanwhile_ends_the_batch_and_keeps_the_answers(both, scripted):
    service = scripted(answering, problem(401, "unauthorized"))
    answers = both.call(service, "classify_batch", [{"text": "red"}] * 9, items_per_request=1, concurrency=1)
    assert [type(answer.error) for answer in answers] == [type(None), *[Unauthorized] * 8]
    assert len(service.seen) == 2


def test_a_service_that_fails_meanwhile_does_not_affect_other_requests(both, scripted):
    service = scripted(answering, httpx.ConnectError("refused"), httpx.Response(500), answering)
    answers = both.call(
        service,
        "classify_batch",
        [{"text": "red"}] * 4,
        items_per_request=1,
        concurrency=1,
        retries=Retries(attempts=1),
    )
    assert [answer.error is None for answer in answers] == [True, False, False, True]
    assert not isinstance(answers[1].error, InternalError)


def test_an_item_that_is_too_large_does_not_affect_others(both, scripted):
    def answer(request):
        if b"huge" in request.content:
            return problem(413, "too_many_bytes", "body: too long")
        return answering(request)

    rows = [{"text": text} for text in ("a", "b", "huge", "d", "e")]
    answers = both.call(scripted(answer), "classify_batch", rows)
    assert results(answers) == ["ok", "ok", "413 too_many_bytes: body: too long", "ok", "ok"]


def test_half_a_request_that_fails_does_not_affect_the_other_half(both, scripted):
    replies = problem(413, "too_many_bytes"), answering, problem(500, "internal_error")
    answers = both.call(scripted(*replies), "classify_batch", [{"text": "red"}] * 4)
    assert results(answers) == ["ok", "ok", *["500 internal_error: why"] * 2]
