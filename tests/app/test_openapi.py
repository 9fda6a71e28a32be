from pathlib import Path

import pytest
from pydantic import BaseModel

from app import schemas
from app.errors import INTERNAL, KINDS
from app.main import create_app


@pytest.fixture
def document(settings):
    return create_app(settings, {}).openapi()


def operations(document):
    return [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_operation_has_an_id_a_summary_and_its_problems(document):
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) == 9
    for _, path, operation in operations(document):
        assert operation["summary"]
        if path != "/metrics":
            assert "default" in operation["responses"]


def test_every_reference_leads_somewhere(document):
    schemas_ = document["components"]["schemas"]
    assert {name.rsplit("/", 1)[1] for name in references(document)} <= set(schemas_)
    assert "HTTPValidationError" not in schemas_


def test_classify_documents_both_kinds_of_body_and_all_its_statuses(document):
    operation = document["paths"]["/v1/classify"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    statuses = {"200", "400", "404", "408", "413", "415", "422", "429", "503", "504", "default"}
    assert set(operation["responses"]) == statuses
    codes = operation["responses"]["400"]["content"]["application/problem+json"]["examples"]
    assert set(codes) == {"malformed_body", "unknown_field", "repeated_field"}


def test_the_examples_are_valid():
    documented = [
        schema
        for schema in vars(schemas).values()
        if isinstance(schema, type) and issubclass(schema, BaseModel) and schema is not BaseModel
    ]
    examples = [
        (schema, example)
        for schema in documented
        for example in (schema.model_config.get("json_schema_extra") or {}).get("examples", ())
    ]
    assert len(examples) >= 3
    for schema, example in examples:
        schema.model_validate(example)


async def test_the_examples_of_the_bodies_are_accepted(client, document):
    for path, name in (("/v1/classify", "ClassifyBody"), ("/v1/classify/batch", "BatchBody")):
        for example in document["components"]["schemas"][name]["examples"]:
            answer = await client.post(path, json=example)
            assert answer.status_code == 200, answer.json()


def test_the_documentation_lists_every_route_and_every_problem(document):
    documentation = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for path in document["paths"]:
        assert path in documentation
    for kind in [*KINDS.values(), INTERNAL]:
        assert f"| {kind.status} | `{kind.code}` |" in documentation


def test_the_documentation_lists_every_metric(settings):
    documentation = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for family in create_app(settings, {}).state.metrics.registry.collect():
        assert f"`{family.name}" in documentation


def test_codes_are_unique_and_every_kind_has_a_title():
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))
    assert all(kind.title for kind in KINDS.values())
