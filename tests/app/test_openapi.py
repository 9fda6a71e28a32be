from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import BaseModel

from app import schemas
from app.errors import INTERNAL, KINDS, explained
from app.keys import digest, make_record, write_keys
from app.main import create_app
from app.rate_limits import Rate
from app.schemas import ClassifyForm
from app.settings import Settings


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
    components = document["components"]
    present = {f"#/components/{kind}/{name}" for kind, parts in components.items() for name in parts}
    assert set(references(document)) <= present
    assert "HTTPValidationError" not in components["schemas"]


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


def media(document):
    """Every body of the document: where it stands, its schema, its examples by name."""
    for _, path, operation in operations(document):
        request = operation.get("requestBody", {"content": {}})
        for status, answer in [("request", request), *operation["responses"].items()]:
            for kind, content in answer["content"].items():
                examples = {name: each["value"] for name, each in content.get("examples", {}).items()}
                if "example" in content:
                    examples["example"] = content["example"]
                yield f"{path} {status} {kind}", content["schema"], examples


def test_every_body_has_examples_and_they_fit_its_schema(document):
    for where, schema, examples in media(document):
        assert examples, where
        resolved = {**schema, "components": document["components"]}
        for name, example in examples.items():
            problems = [error.message for error in Draft202012Validator(resolved).iter_errors(example)]
            assert not problems, f"{where}, {name}: {problems}"


@pytest.mark.parametrize("kind", [*KINDS, Exception], ids=lambda kind: kind.__name__)
def test_every_problem_has_an_example_of_its_own(kind):
    documented = next(iter(explained(*([] if kind is Exception else [kind])).values()))
    ((code, example),) = documented["content"]["application/problem+json"]["examples"].items()
    expected = KINDS.get(kind, INTERNAL)
    assert (code, example["value"]["code"], example["value"]["status"]) == (
        expected.code,
        expected.code,
        expected.status,
    )
    assert "what was found" not in example["value"]["detail"]
    assert ("Retry-After" in documented.get("headers", {})) == (expected.status in (429, 503))


def test_no_field_of_a_form_or_of_an_answer_is_null(document):
    nullable = {
        name
        for name, schema in document["components"]["schemas"].items()
        for field in schema["properties"].values()
        if {"type": "null"} in field.get("anyOf", ())
    }
    assert nullable <= {"ClassifyBody", "BatchBody", "BatchItem"}
    form = document["components"]["schemas"]["ClassifyForm"]["properties"]
    assert {name: (field["type"], field.get("format")) for name, field in form.items()} == {
        "image": ("string", "binary"),
        "text": ("string", None),
        "top_k": ("integer", None),
        "threshold": ("number", None),
        "model": ("string", None),
    }
    assert all(field["description"] for field in form.values())


def test_what_a_form_says_of_its_fields_is_what_the_service_reads(document):
    assert set(document["components"]["schemas"]["ClassifyForm"]["properties"]) == set(ClassifyForm.model_fields)
    for name, field in document["components"]["schemas"]["ClassifyForm"]["properties"].items():
        assert "default" not in field, name


def test_every_operation_says_what_its_200_means(document):
    for _, path, operation in operations(document):
        assert operation["responses"]["200"]["description"] not in ("Successful Response", "The answer."), path
        assert {"X-Request-Id"} <= set(operation["responses"]["200"]["headers"])
    assert {tag["name"] for tag in document["tags"]} == {"classify", "models", "health", "metrics"}


def test_limits_and_keys_are_told_with_examples_and_headers(tmp_path):
    write_keys(tmp_path / "keys.json", [make_record("a", digest("k"), ["classify"], None)])
    guarded = Settings(workers=0, api_keys_file=tmp_path / "keys.json", rate_limit_per_address=Rate(1, 60))
    document = create_app(guarded, {}).openapi()
    for path in ("/v1/classify", "/v1/models", "/metrics"):
        (operation,) = document["paths"][path].values()
        assert {"401", "403", "429"} <= set(operation["responses"])
        assert operation["responses"]["429"]["headers"].keys() == {"Retry-After", "X-Request-Id"}
        found = operation["responses"]["401"]["content"]["application/problem+json"]["examples"]["unauthorized"]
        assert found["value"]["found"] == "none"


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
