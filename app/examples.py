"""The examples of the OpenAPI document: of every problem, made of the exception itself, and of every answer."""

from datetime import UTC, datetime
from typing import Any, Final

from app.access import Forbidden, Unauthorized
from app.batching import DeadlineExceeded, Overloaded, Stopped
from app.body import (
    BodyTooSlow,
    InvalidParameter,
    MalformedBody,
    RepeatedField,
    TooManyBytes,
    TooManyItems,
    UnknownField,
    UnsupportedMediaType,
)
from app.connections import HeadTooLarge, HeadTooSlow, NotHttp, TooFarAhead, TooManyConnections
from app.keys import Key
from app.rate_limits import Rate, RateLimited
from app.schemas import Classification
from app.service import NotReady, Stalled, State, UnknownModel
from model import InputError, NothingGiven, TooLarge, Undecodable, UnknownModality, UnsupportedFormat

REQUEST_ID: Final = "0b1f6a52c4d84f0f9a3e5d7c2b8e6f10"
DIGEST: Final = "9f2c41d7a0b35e88c6f1d2047b9ae3515dd0c7e6f84a2b913c605e7f18d4ab20"
_SHOP: Final = Key(
    name="shop", sha256="0" * 64, scopes=frozenset({"models"}), created=datetime(2026, 11, 24, tzinfo=UTC)
)
_FORMATS: Final = "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, image/avif"

PROBLEMS: Final[dict[type[Exception], Exception]] = {
    type(example): example
    for example in (
        NotHttp("what arrived is no HTTP/1.1 request; allowed: HTTP/1.1"),
        TooFarAhead("33 requests on one connection before the answers to earlier ones; allowed: 32"),
        MalformedBody("body", "Expecting ',' delimiter at character 27", "a JSON object"),
        UnknownField("body", "field 'txt'", "image, text, top_k, threshold, model"),
        RepeatedField("text", "the field twice", "once"),
        Unauthorized("none"),
        Forbidden(_SHOP, "classify"),
        UnknownModel("illustration", ["illustrations"]),
        HeadTooSlow("the request's head did not arrive; allowed: within 10,000 ms"),
        BodyTooSlow("body", "1,048,576 bytes and then nothing", "a body that arrives within 30000 ms"),
        TooManyBytes("image", "more than 10485760 bytes", "up to 10485760 bytes"),
        UnsupportedMediaType("Content-Type", "text/plain", "multipart/form-data or application/json"),
        UnsupportedFormat("image", "bytes of no known picture format", _FORMATS),
        NothingGiven("request", "neither of the inputs, or only blank ones", "at least one of image, text"),
        UnknownModality("image", "not an input of this model", "text"),
        Undecodable("image", "0 bytes", f"a whole picture ({_FORMATS})"),
        TooLarge("image", "20,000 × 20,000 px", "at most 50,000,000 pixels in all"),
        TooManyItems("items", "65 items", "at most 64"),
        InvalidParameter("top_k", "0", "an integer from 1 to 10"),
        InputError("image", "a picture that can't be used", "another one"),
        Overloaded("64 examples are waiting already", "64", wait_s=2),
        HeadTooLarge("a request line and header fields of more than 32,768 bytes; allowed: at most that"),
        TooManyConnections("1,000 connections are open, and each has a request; allowed: 1,000"),
        RateLimited("key", Rate(600, 60), retry_after_s=12),
        NotReady(State.DRAINING, retry_after_s=20),
        Stopped("the service stopped before this request was computed"),
        Stalled("one batch takes longer than 10000 ms"),
        DeadlineExceeded(
            "no result before the request's deadline; it was in the queue for 9.62 s and with a worker for 0.38 s"
        ),
    )
}

_ONE, _SEVERAL, _NUMBER = Classification.model_json_schema()["examples"]
_MODEL: Final[dict[str, Any]] = {
    "name": "illustrations",
    "digest": DIGEST,
    "task": "single-label",
    "labels": ["animals", "places", "transport"],
    "inputs": [
        {
            "name": "image",
            "media_types": _FORMATS.split(", "),
            "limits": {"max_pixels": 50_000_000, "max_side": 16_384, "max_bytes": 10_485_760},
        },
        {
            "name": "text",
            "media_types": ["text/plain"],
            "limits": {"max_characters": 20_000, "max_tokens": 32, "max_bytes": 262_144},
        },
    ],
    "runtime": "onnx-int8",
}


def _health(state: State) -> dict[str, Any]:
    return {"status": "ok", "state": state.value, "models": ["illustrations"]}


ANSWERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "classify": (
        "Scores per label, best first; or a number, of a regression.",
        {"single-label": _ONE, "multi-label": _SEVERAL, "regression": _NUMBER},
    ),
    "classifyBatch": (
        "One answer for each item, in their order, whatever became of it.",
        {
            "one-bad-item": {
                "items": [
                    {"index": 0, "id": "a", "status": 200, "classification": _ONE},
                    {
                        "index": 1,
                        "id": "b",
                        "status": 415,
                        "problem": {
                            "type": "urn:polymodal:problem:unsupported_format",
                            "title": "A file format that the model does not read",
                            "status": 415,
                            "detail": f"image: bytes of no known picture format; allowed: {_FORMATS}",
                            "instance": REQUEST_ID,
                            "code": "unsupported_format",
                            "input": "image",
                            "found": "bytes of no known picture format",
                            "allowed": _FORMATS,
                        },
                    },
                ]
            }
        },
    ),
    "listModels": (
        "All served models, the default one first.",
        {"one": {"default": "illustrations", "models": [_MODEL]}},
    ),
    "getModel": (
        "The model, with its card and its measured quality.",
        {"one": {**_MODEL, "card": "# illustrations\n\nSays what a drawing shows.", "report": {"metrics": {}}}},
    ),
    "livez": ("It lives.", {"ready": _health(State.READY)}),
    "startupz": ("It has started.", {"draining": _health(State.DRAINING)}),
    "readyz": ("Requests may come.", {"ready": _health(State.READY)}),
    "healthz": ("Requests may come.", {"ready": _health(State.READY)}),
    "metrics": (
        "The measurements.",
        {
            "a-gauge": "# HELP polymodal_workers Workers that answer\n# TYPE polymodal_workers gauge\npolymodal_workers 2.0\n"
        },
    ),
}
"""By operation: what a 200 means, and examples of its body by name."""

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "ClassifyBody": {
        "text-alone": {"text": "a small boat on a lake", "top_k": 2},
        "picture-and-text": {
            "image": (
                "data:image/png;base64,"
                "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
            ),
            "text": "a small boat on a lake",
            "top_k": 3,
        },
    },
    "BatchBody": {
        "two-texts": {
            "top_k": 1,
            "items": [{"id": "a", "text": "a small boat on a lake"}, {"id": "b", "text": "a cat"}],
        },
        "one-bad-item": {"items": [{"id": "a", "text": "a small boat"}, {"id": "b", "image": "bm90IGFuIGltYWdl"}]},
    },
}
"""By the schema of a JSON body."""
