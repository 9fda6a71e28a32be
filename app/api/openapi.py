"""The OpenAPI document: FastAPI's own with bodies, problems and examples, and with the keys and limits of the settings.

tests/generated/ generates clients from it, compiles and uses them.
"""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from polymodal.app.access.keys import Unauthorized
from polymodal.app.access.rates import RateLimited
from polymodal.app.access.scopes import OPEN, Forbidden
from polymodal.app.api import examples
from polymodal.app.api.body.audio import TRANSCRIPTIONS, TRANSLATIONS
from polymodal.app.api.body.openai import EmbeddingInput, EmbeddingsBody, LinkedFile
from polymodal.app.api.body.rerank import RerankBody, RerankItem
from polymodal.app.api.dialects import COHERE, IGNORED, OPENAI, SCHEMAS, TEI, OpenAIError
from polymodal.app.api.errors import MEDIA_TYPE
from polymodal.app.api.examples import REQUEST_ID, explained
from polymodal.app.api.routing import Routes
from polymodal.app.api.schemas import (
    BatchItem,
    Example,
    Problem,
    SearchBody,
    SearchForm,
    SimilarityBody,
    SimilarityForm,
    form_of,
    schemas_of,
)
from polymodal.app.settings import Settings
from polymodal.model import TASKS, Schema

Document = dict[str, Any]

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key that `polymodal keys add` printed."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}
_HEADERS: Final = {
    "X-Request-Id": {
        "description": "The request's id, as in the log and in problems. It is the client's own id, if the client sent one.",
        "schema": {"type": "string"},
        "example": REQUEST_ID,
    },
    "Server-Timing": {
        "description": "Milliseconds of each stage. Browsers show them with the request.",
        "schema": {"type": "string"},
        "example": "read;dur=0.4, queue;dur=1.2",
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request is sent again.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 2,
    },
    IGNORED: {
        "description": "The fields of the request that were accepted without effect.",
        "schema": {"type": "string"},
        "example": "user",
    },
}
_TAGS: Final = {
    **{task.name: task.about for task in TASKS.values()},
    "similarity": "Comparisons of pictures and texts, as probabilities that they belong together.",
    "search": "Items of an index that are similar to a query.",
    OPENAI: "For the clients of OpenAI's API.",
    TEI: "For the clients of Text Embeddings Inference.",
    COHERE: "For the clients of Cohere's API and of Jina's.",
    "models": "The served models, their inputs and their quality.",
    "health": "Probes for operators.",
    "metrics": "Measurements for Prometheus.",
}
_SENT_AS_JSON: Final = frozenset(
    {
        *(
            schema.__name__
            for task in TASKS.values()
            for schema in (schemas_of(task).body, schemas_of(task).batch_body)
        ),
        *(
            schema.__name__
            for schema in (
                *(BatchItem, Example, SimilarityBody, SearchBody, RerankBody, RerankItem),
                *(EmbeddingsBody, EmbeddingInput, LinkedFile, OpenAIError),
            )
        ),
    }
)
"""Schemas whose fields may be null, like those of OpenAI's errors. Forms have no null, and our answers leave out missing fields,
so that the types of generated clients are simpler."""


def install(app: FastAPI, settings: Settings, routes: Routes) -> None:
    """Make `app.openapi()` return the completed document."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routes)
            _guard(app.openapi_schema, settings, routes)
            for operation in _operations(app.openapi_schema):
                _illustrate(operation)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as in FastAPI's documentation


def _document(app: FastAPI, routes: Routes) -> Document:
    dialects = set(routes.dialects.values())
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=[*routes.described, *app.routes],
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": ".", "description": "The service that returned this document."}],
    )
    sent: list[type[Schema]] = [
        schema
        for task in TASKS.values()
        for schema in (schemas_of(task).batch_body, schemas_of(task).body, schemas_of(task).form)
    ] + [SimilarityBody, SimilarityForm, SearchBody, SearchForm]
    if OPENAI in dialects:
        sent += [EmbeddingsBody, form_of(TRANSCRIPTIONS, ""), form_of(TRANSLATIONS, "")]
    if dialects & {TEI, COHERE}:
        sent.append(RerankBody)
    problems: list[type[Problem]] = [Problem, *(SCHEMAS[dialect] for dialect in sorted(dialects))]
    validated: list[type[BaseModel]] = [*sent, *problems]
    _, bodies = models_json_schema(
        [(schema, "validation") for schema in validated],
        ref_template="#/components/schemas/{model}",
    )
    components = document.setdefault("components", {})
    schemas = components["schemas"] = {**bodies["$defs"], **components.get("schemas", {})}
    for name, schema in schemas.items():
        _normalise(schema, nullable=name in _SENT_AS_JSON)
    components["headers"] = _HEADERS
    used = {tag for operation in _operations(document) for tag in operation["tags"]}
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    return document


def _operations(document: Document) -> Iterator[Document]:
    return (operation for item in document["paths"].values() for operation in item.values())


def _normalise(schema: Document, *, nullable: bool) -> None:
    """Remove titles of fields, which repeat their names, null from the types of fields that are never null, and null as a default.

    Some generators of clients treat a field with a default as always present.
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
    """Add the description of an operation's 200, examples of its bodies, and the header fields of its responses."""
    description, answers = examples.answers().get(operation["operationId"], ("The answer.", {}))
    for status, answer in operation["responses"].items():
        headers = answer.setdefault("headers", {})
        headers["X-Request-Id"] = {"$ref": "#/components/headers/X-Request-Id"}
        if status == "200":
            answer["description"] = description
            for content in answer["content"].values():
                content["examples"] = {name: {"value": value} for name, value in answers.items()}
            if SCHEMAS.keys() & set(operation["tags"]):
                headers[IGNORED] = {"$ref": f"#/components/headers/{IGNORED}"}
            if "requestBody" in operation:
                headers["Server-Timing"] = {"$ref": "#/components/headers/Server-Timing"}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        requests = examples.requests().get(content["schema"]["$ref"].rpartition("/")[2], {})
        if requests:
            content["examples"] = {name: {"value": value} for name, value in requests.items()}


def _guard(document: Document, settings: Settings, routes: Routes) -> None:
    """Add the keys and rate limits of the settings to the operations."""
    keys = settings.api_keys_file is not None
    limits = settings.rate_limit_per_key is not None or settings.rate_limit_per_address is not None
    if keys:
        document["components"]["securitySchemes"] = _SCHEMES
    kinds = (*((Unauthorized, Forbidden) if keys else ()), *((RateLimited,) if limits else ()))
    for path, item in document["paths"].items():
        if routes.needs[path] == OPEN:
            continue
        problems = explained(*kinds, dialect=routes.dialects.get(path))
        del problems["default"]
        for operation in item.values():
            if keys:
                operation["security"] = [{name: []} for name in _SCHEMES]
            for status, answer in problems.items():
                present = operation["responses"].setdefault(str(status), answer)
                present["content"][MEDIA_TYPE]["examples"] |= answer["content"][MEDIA_TYPE]["examples"]
