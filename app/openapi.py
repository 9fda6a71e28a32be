"""The OpenAPI document: FastAPI's own, and the schemas of the bodies that `app.body` and `app.errors` handle themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.schemas import BatchBody, ClassifyBody, ClassifyForm, Problem


def install(app: FastAPI) -> None:
    """Let `app.openapi()` answer the completed document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
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
