"""The OpenAPI document: FastAPI's own, and what it can't know: the bodies that `app.body` and `app.errors` handle themselves, what
answers look like, and what these settings ask of clients. A client that is generated from it compiles and works
(tests/generated/)."""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.access import Forbidden, Unauthorized, is_open
from app.errors import MEDIA_TYPE, explained
from app.examples import ANSWERS, REQUEST_ID, REQUESTS
from app.rate_limits import RateLimited
from app.schemas import BatchBody, ClassifyBody, ClassifyForm, Problem
from app.settings import Settings

Document = dict[str, Any]

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `polymodal keys add`."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}
_HEADERS: Final = {
    "X-Request-Id": {
        "description": "The request's id, as in the log and in problems; the client's own, if it sent one.",
        "schema": {"type": "string"},
        "example": REQUEST_ID,
    },
    "Server-Timing": {
        "description": "Milliseconds of each stage; browsers show them beside the request.",
        "schema": {"type": "string"},
        "example": "read;dur=0.4, queue;dur=1.2",
    },
    "Retry-After": {
        "description": "Seconds after which the same request is worth another attempt.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 2,
    },
}
_TAGS: Final = {
    "classify": "Scores for pictures with their texts; either may be missing.",
    "models": "What is served, what it accepts, and how good it is.",
    "health": "Probes, for whoever runs the service.",
    "metrics": "Measurements, for Prometheus.",
}
_SENT_AS_JSON: Final = frozenset({"ClassifyBody", "BatchBody", "BatchItem"})
"""Their fields may be null. A form has no null, and answers leave out what is not there: alternatives that never come
would only burden the types of generated clients."""


def install(app: FastAPI, settings: Settings) -> None:
    """Let `app.openapi()` answer the completed document."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
            _guard(app.openapi_schema, settings)
            for operation in _operations(app.openapi_schema):
                _illustrate(operation)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI's own documentation shows


def _document(app: FastAPI) -> Document:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        servers=[
            {
                "url": ".",
                "description": "The service that this document comes from, relative to the document's address.",
            }
        ],
    )
    _, bodies = models_json_schema(
        [(schema, "validation") for schema in (BatchBody, ClassifyBody, ClassifyForm, Problem)],
        ref_template="#/components/schemas/{model}",
    )
    components = document.setdefault("components", {})
    schemas = components["schemas"] = {**bodies["$defs"], **components.get("schemas", {})}
    for name, schema in schemas.items():
        _plain(schema, nullable=name in _SENT_AS_JSON)
    components["headers"] = _HEADERS
    used = {tag for operation in _operations(document) for tag in operation["tags"]}
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    return document


def _operations(document: Document) -> Iterator[Document]:
    return (operation for item in document["paths"].values() for operation in item.values())


def _plain(schema: Document, *, nullable: bool) -> None:
    """Fields without titles that only repeat their names, and without null where it never comes.

    Nor with a default of null: what has a default is, to some generators, always there.
    """
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
        if "default" in field and field["default"] is None:
            del field["default"]
        choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
        if not nullable and len(choices) == 1:
            del field["anyOf"]
            described = field.pop("description", None)
            field.update(choices[0] if described is None else {**choices[0], "description": described})


def _illustrate(operation: Document) -> None:
    """Say what an operation's 200 means, with examples; show what it is asked with; name the headers of its answers."""
    description, answers = ANSWERS.get(operation["operationId"], ("The answer.", {}))
    for status, answer in operation["responses"].items():
        headers = answer.setdefault("headers", {})
        headers["X-Request-Id"] = {"$ref": "#/components/headers/X-Request-Id"}
        if status == "200":
            answer["description"] = description
            for content in answer["content"].values():
                content["examples"] = {name: {"value": value} for name, value in answers.items()}
            if "requestBody" in operation:
                headers["Server-Timing"] = {"$ref": "#/components/headers/Server-Timing"}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        requests = REQUESTS.get(content["schema"]["$ref"].rpartition("/")[2], {})
        if requests:
            content["examples"] = {name: {"value": value} for name, value in requests.items()}


def _guard(document: Document, settings: Settings) -> None:
    """Say of each operation what these settings ask of it: a key, and not too often."""
    keys = settings.api_keys_file is not None
    limits = settings.rate_limit_per_key is not None or settings.rate_limit_per_address is not None
    if keys:
        document["components"]["securitySchemes"] = _SCHEMES
    problems = explained(*((Unauthorized, Forbidden) if keys else ()), *((RateLimited,) if limits else ()))
    del problems["default"]
    for path, item in document["paths"].items():
        if is_open(path):
            continue
        for operation in item.values():
            if keys:
                operation["security"] = [{name: []} for name in _SCHEMES]
            for status, answer in problems.items():
                present = operation["responses"].setdefault(str(status), answer)
                present["content"][MEDIA_TYPE]["examples"] |= answer["content"][MEDIA_TYPE]["examples"]
