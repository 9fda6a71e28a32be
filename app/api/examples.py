"""Examples for the OpenAPI document: of every problem, of the requests of every task, and of all answers."""

import base64
from functools import cache
from pathlib import Path
from typing import Any, Final

from polymodal.app.api import schemas
from polymodal.app.api.dialects import SCHEMAS
from polymodal.app.api.errors import MEDIA_TYPE, Refusal, headers_of, problem_of
from polymodal.app.api.schemas import (
    ModelDetail,
    ModelObject,
    ModelSummary,
    SearchBody,
    SimilarityBody,
    schemas_of,
)
from polymodal.app.problems import InternalError, Problem
from polymodal.app.serving.service import State
from polymodal.app.settings import load_settings
from polymodal.model import (
    MODALITIES,
    TASKS,
    Description,
    InputError,
    InputSpec,
    InvalidParameter,
    Modality,
    NothingGiven,
    Task,
    TooLarge,
    UnknownModality,
)

REQUEST_ID: Final = "0b1f6a52c4d84f0f9a3e5d7c2b8e6f10"
_DIGEST: Final = "9f2c41d7a0b35e88c6f1d2047b9ae3515dd0c7e6f84a2b913c605e7f18d4ab20"

_EXAMPLES: Final = {
    name: modality.example for name, modality in MODALITIES.items() if modality.example and modality.embedded
}
_FURTHER: Final = {
    f"{name}-alone": {name: modality.example}
    for name, modality in MODALITIES.items()
    if modality.example and not modality.embedded
}
"""Examples of inputs that the embedded model does not take."""
_ALL: Final = ", ".join(_EXAMPLES)
_BINARY: Final = next(modality for modality in MODALITIES.values() if not modality.textual)
_INPUT: Final = _BINARY.input.load({}, Path())


# --- problems ---


def _refused(content: bytes) -> InputError:
    """Return the error that decoding these bytes raises."""
    try:
        _INPUT.decode(content)
    except InputError as error:
        return error
    raise AssertionError("an example of a broken input was decoded")


_UNSUPPORTED: Final = _refused(b"not a picture")
_OF_MODELS: Final[dict[type[InputError], InputError]] = {
    type(example): example
    for example in (
        _UNSUPPORTED,
        _refused(b""),
        NothingGiven("request", "neither of the inputs, or only blank ones", f"at least one of {_ALL}"),
        UnknownModality(_BINARY.name, "not an input of this model", ", ".join(_EXAMPLES.keys() - {_BINARY.name})),
        TooLarge(_BINARY.name, "20,000 × 20,000 px", "at most 50,000,000 pixels in all"),
        InvalidParameter("top_k", "0", "an integer from 1 to 10"),
    )
}


def explained(*kinds: type[Refusal], dialect: str | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems for OpenAPI, by status; 'default' is the internal error."""
    by_status: dict[int | str, list[Refusal]] = {}
    for kind in kinds:
        example = example_of(kind)
        by_status.setdefault(problem_of(example, REQUEST_ID, dialect).status, []).append(example)
    by_status["default"] = [InternalError()]
    return {status: _documented(examples, dialect) for status, examples in by_status.items()}


def example_of(kind: type[Refusal]) -> Refusal:
    """Return an example of a kind of refusal."""
    if issubclass(kind, Problem):
        return kind.example()
    return _OF_MODELS.get(kind) or kind(_BINARY.name, "an input that cannot be used", "another one")


def _documented(examples: list[Refusal], dialect: str | None) -> dict[str, Any]:
    shown = {}
    for error in examples:
        problem = problem_of(error, REQUEST_ID, dialect)
        shown[problem.code] = {"summary": problem.title, "value": problem.document()}
    schema = SCHEMAS[dialect] if dialect else schemas.Problem
    content = {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}, "examples": shown}
    documented = {"description": "; ".join(error.title for error in examples), "content": {MEDIA_TYPE: content}}
    if any("Retry-After" in headers_of(error) for error in examples):
        documented["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return documented


# --- models ---


def _spec(modality: Modality) -> InputSpec:
    """Return an input of a model. Limits that only the files of a bundle state are left out."""
    return _INPUT.describe() if modality is _BINARY else InputSpec(modality.name, (modality.media_range,), {})


_MODEL: Final = Description(
    name="illustrations",
    digest=_DIGEST,
    target="single-label",
    labels=("animals", "places", "transport"),
    inputs=tuple(_spec(MODALITIES[name]) for name in _EXAMPLES),
    runtime="onnx-int8",
    card="# illustrations\n\nClassifies drawings.",
    report={"metrics": {}},
    capabilities=frozenset(task.needs for task in TASKS.values()),
    spaces={"aligned": 256, "classifier": 256},
)


_SUMMARY: Final = ModelSummary.of(_MODEL, load_settings({})).model_dump(exclude_none=True)
_OBJECT: Final = ModelObject(id=_MODEL.name, created=1_795_820_400)
_DETAIL: Final = ModelDetail.served(_MODEL, load_settings({}), _OBJECT.created).model_dump(exclude_none=True)


# --- tasks ---


def _answers(task: Task) -> dict[str, Any]:
    """Return examples of a task's answers, by name."""
    return dict(zip(task.answer_names, task.Answer.model_json_schema()["examples"], strict=True))


def _items(task: Task) -> list[dict[str, Any]]:
    """Return examples of the items in the answer for a batch: a good one and a bad one."""
    answer, problem = next(iter(_answers(task).values())), problem_of(_UNSUPPORTED, REQUEST_ID)
    return [
        {"index": 0, "id": "a", "status": 200, task.result: answer},
        {"index": 1, "id": "b", "status": problem.status, "problem": problem.document()},
    ]


def _requests(task: Task) -> dict[str, dict[str, Any]]:
    """Return examples of a task's JSON bodies by the name of the schema."""
    schemas = schemas_of(task)
    if task.inputs is MODALITIES:
        inputs = _EXAMPLES
        further = {name: {**other, **task.example} for name, other in _FURTHER.items()}
    else:
        inputs, further = {name: modality.example for name, modality in task.inputs.items()}, {}
    texts = {name: example for name, example in inputs.items() if task.inputs[name].textual} or inputs
    binary = next(name for name in inputs if not task.inputs[name].textual)
    bad = {"id": "b", binary: base64.b64encode(b"not a file of this kind").decode()}
    bodies = {"text-alone": {**texts, **task.example}} if texts != inputs else {}
    return {
        schemas.body.__name__: {**bodies, "all-inputs": {**inputs, **task.example}, **further},
        schemas.batch_body.__name__: {
            "two-items": {**task.example, "items": [{"id": "a", **texts}, {"id": "b", **inputs}]},
            "one-bad-item": {"items": [{"id": "a", **texts}, bad]},
        },
    }


# --- similarity ---


def _similarity() -> dict[str, Any]:
    """Return an answer about two good candidates and a bad one."""
    calibrated = {"match": 0.94, "threshold": 0.62, "selected": True}
    problem = problem_of(_UNSUPPORTED, REQUEST_ID)
    return {
        "model": "illustrations",
        "digest": _DIGEST,
        "modalities": ["text"],
        "prior": 0.5,
        "pairs": [
            {"index": 2, "id": "c", "cosine": 0.41, **calibrated, "modalities": ["image"]},
            {"index": 0, "id": "a", "cosine": 0.83, "modalities": ["image", "text"]},
        ],
        "failed": [{"index": 1, "id": "b", "status": problem.status, "problem": problem.document()}],
    }


def _comparisons() -> dict[str, Any]:
    """Return JSON bodies of POST /v1/similarity."""
    inputs = _EXAMPLES
    texts = {name: example for name, example in inputs.items() if MODALITIES[name].textual}
    bad = {"id": "b", _BINARY.name: base64.b64encode(b"not an image").decode()}
    return {
        "two-candidates": {"query": texts, "candidates": [{"id": "a", **inputs}, {"id": "b", **texts}], "top_k": 1},
        "one-bad-candidate": {"query": texts, "candidates": [{"id": "a", **inputs}, bad], "prior": 0.1},
    }


# --- search ---


def _search() -> dict[str, Any]:
    """Return an answer with two hits, of which one has no match."""
    return {
        "index": "things",
        "model": "illustrations",
        "digest": _DIGEST,
        "modalities": ["text"],
        "prior": 0.5,
        "hits": [
            {
                "id": "boat",
                "cosine": 0.41,
                "match": 0.94,
                "modalities": ["image"],
                "metadata": {"image": "boat.png", "label": "transport", "price": 3},
            },
            {"id": "lake", "cosine": 0.83, "modalities": ["image", "text"], "metadata": {"text": "a lake"}},
        ],
    }


def _index() -> dict[str, Any]:
    return {
        "name": "things",
        "items": 2,
        "dimensions": 256,
        "modalities": {"image": 1, "image+text": 1},
        "filters": ["image", "text", "label", "price", "modalities"],
        "digest": _DIGEST,
        "model": "illustrations",
        "usable": True,
    }


def _searches() -> dict[str, Any]:
    """Return JSON bodies of POST /v1/search."""
    inputs = _EXAMPLES
    texts = {name: example for name, example in inputs.items() if MODALITIES[name].textual}
    return {
        "words": {"query": texts, "top_k": 3},
        "all-inputs": {"index": "things", "query": inputs, "filter": {"label": "transport"}, "prior": 0.01},
    }


# --- operations ---

_RERANKED: Final = {
    "texts": [
        {"index": 1, "score": 0.94, "text": "a small boat on a lake"},
        {"index": 0, "score": 0.02, "text": "a tiger"},
    ],
    "documents": {
        "id": REQUEST_ID,
        "model": _MODEL.name,
        "digest": _DIGEST,
        "results": [{"index": 1, "relevance_score": 0.94}, {"index": 0, "relevance_score": 0.02}],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    },
}
_VECTOR: Final = {"object": "embedding", "index": 0, "embedding": [0.6, -0.8, 0.0], "modalities": ["text"]}
_EMBEDDINGS: Final = {
    "object": "list",
    "data": [_VECTOR, {**_VECTOR, "index": 1, "embedding": [0.0, -0.6, 0.8]}],
    "model": _MODEL.name,
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
    "digest": _DIGEST,
}


def _health(state: State) -> dict[str, Any]:
    return {"status": "ok", "state": state.value, "models": ["illustrations"]}


@cache
def answers() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return by operation the description of a 200, and examples of its body by name."""
    return {
        **{task.name: (task.answers, _answers(task)) for task in TASKS.values()},
        **{
            f"{task.name}Batch": (
                "The answer or the problem of every item, in the order of the items.",
                {"one-bad-item": {"items": _items(task)}},
            )
            for task in TASKS.values()
        },
        **dict.fromkeys(
            ("rerank", "rerankV1", "rerankV2"), ("The documents with their scores, best first.", _RERANKED)
        ),
        "similarity": ("The pairs of the query with the candidates, best first.", {"three-candidates": _similarity()}),
        "createEmbedding": (
            "A vector for each item, in the order of the items.",
            {
                "two-texts": _EMBEDDINGS,
                "base64": {**_EMBEDDINGS, "data": [{**_VECTOR, "embedding": "mpkZP83MTL8AAAAA"}]},
            },
        ),
        **dict.fromkeys(
            ("createTranscription", "createTranslation"),
            (
                "The words of the recording, as response_format has them.",
                {"json": {"text": "Good morning.", "usage": {"type": "duration", "seconds": 1.115}}},
            ),
        ),
        "search": ("The items that are most similar to the query, best first.", {"two-hits": _search()}),
        "listIndexes": ("All indexes.", {"one": {"indexes": [_index()]}}),
        "listModels": (
            "All served models, the default one first.",
            {"one": {"default": _MODEL.name, "models": [_SUMMARY], "object": "list", "data": [_OBJECT.model_dump()]}},
        ),
        "getModel": ("The model, with its card and its measured quality.", {"one": _DETAIL}),
        "livez": ("The process works.", {"ready": _health(State.READY)}),
        "startupz": ("The service has started.", {"draining": _health(State.DRAINING)}),
        **dict.fromkeys(("readyz", "healthz"), ("Requests are accepted.", {"ready": _health(State.READY)})),
        "metrics": (
            "The measurements.",
            {
                "a-gauge": "# HELP polymodal_workers Workers that answer\n# TYPE polymodal_workers gauge\npolymodal_workers 2.0\n"
            },
        ),
    }


@cache
def requests() -> dict[str, dict[str, Any]]:
    """Return examples of JSON bodies by the name of the schema."""
    tasks = {name: examples for task in TASKS.values() for name, examples in _requests(task).items()}
    inputs = _EXAMPLES
    texts = [example for name, example in inputs.items() if MODALITIES[name].textual]
    embeddings = {
        "texts": {"input": texts, "user": "u"},
        "an-image": {"input": [{_BINARY.name: _BINARY.example}]},
    }
    rerank = {
        "texts": {"query": "a boat", "texts": texts, "return_text": True},
        "documents": {"query": "a boat", "documents": texts, "top_n": 1},
    }
    return {
        **tasks,
        SimilarityBody.__name__: _comparisons(),
        SearchBody.__name__: _searches(),
        "EmbeddingsBody": embeddings,
        "RerankBody": rerank,
    }
