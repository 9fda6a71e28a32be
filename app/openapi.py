"""The OpenAPI document: FastAPI's own, and the schemas of the bodies that `app.body` and `app.errors` handle themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.access import Forbidden, Unauthorized, is_open
from app.errors import MEDIA_TYPE, explained
from app.rate_limits import RateLimited
from app.schemas import BatchBody, ClassifyBody, ClassifyForm, Problem
from app.settings import Settings

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `polymodal keys add`."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def install(app: FastAPI, settings: Settings) -> None:
    """Let `app.openapi()` answer the completed document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
            _guard(app.openapi_schema, settings)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI's own documentation shows


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, bodies = models_json_schema(
        [(schema, "validation") for schema in (BatchBody, ClassifyBody, ClassifyForm, Problem)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document["components"]["schemas"] = {**bodies["$defs"], **schemas}
    return document


def _guard(document: dict[str, Any], settings: Settings) -> None:
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
