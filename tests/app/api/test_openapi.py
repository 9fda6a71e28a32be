from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator

from polymodal.app.access.keys import digest, make_record, write_keys
from polymodal.app.access.rates import Rate
from polymodal.app.api.examples import explained
from polymodal.app.api.schemas import schemas_of
from polymodal.app.main import create_app
from polymodal.app.probes import PROBES
from polymodal.app.problems import InternalError
from polymodal.app.settings import Settings
from polymodal.model import TASKS
from tests.refusals import REFUSALS

DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")


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
    assert len(ids) == len(set(ids)) == 16 + 2 * len(TASKS)
    for _, path, operation in operations(document):
        assert operation["summary"]
        if path != "/metrics":
            assert "default" in operation["responses"]


def test_every_reference_has_a_target(document):
    components = document["components"]
    present = {f"#/components/{kind}/{name}" for kind, entries in components.items() for name in entries}
    assert set(references(document)) <= present
    assert "HTTPValidationError" not in components["schemas"]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_documents_both_kinds_of_body_and_all_its_statuses(document, task):
    operation = document["paths"][f"/v1/{task}"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    statuses = {"200", "400", "404", "408", "413", "415", "422", "429", "503", "504", "default"}
    assert set(operation["responses"]) == statuses
    codes = operation["responses"]["400"]["content"]["application/problem+json"]["examples"]
    assert set(codes) == {"malformed_body", "unknown_field", "repeated_field"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_examples_of_answers_are_valid(task):
    examples = task.Answer.model_config["json_schema_extra"]["examples"]
    assert len(examples) == len(task.answer_names) >= 1
    for example in examples:
        task.Answer.model_validate(example)


async def test_the_examples_of_requests_are_accepted(client, document):
    served = {task for model in (await client.get("/v1/models")).json()["models"] for task in model["tasks"]}
    for task in served:
        for path in (f"/v1/{task}", f"/v1/{task}/batch"):
            examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
            assert len(examples) == (2 if path.endswith("/batch") else 3)
            for name, example in examples.items():
                answer = await client.post(path, json=example["value"])
                if name == "audio-alone":  # which this model does not take
                    assert answer.json()["code"] == "unknown_modality"
                    continue
                assert answer.status_code == 200, answer.json()
                bad = [item["id"] for item in answer.json().get("items", ()) if item["status"] != 200]
                assert bad == (["b"] if name == "one-bad-item" else [])


def media(document):
    """Yield the place, the schema and the examples by name of every body."""
    for _, path, operation in operations(document):
        request = operation.get("requestBody", {"content": {}})
        for status, answer in [("request", request), *operation["responses"].items()]:
            for kind, content in answer["content"].items():
                examples = {name: example["value"] for name, example in content.get("examples", {}).items()}
                if "example" in content:
                    examples["example"] = content["example"]
                yield f"{path} {status} {kind}", content["schema"], examples


def test_every_body_has_valid_examples(document):
    for where, schema, examples in media(document):
        assert examples, where
        resolved = {**schema, "components": document["components"]}
        for name, example in examples.items():
            problems = [error.message for error in Draft202012Validator(resolved).iter_errors(example)]
            assert not problems, f"{where}, {name}: {problems}"


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
def test_every_problem_has_an_example_of_its_own(kind):
    documented = next(iter(explained(*([] if kind is InternalError else [kind])).values()))
    ((code, example),) = documented["content"]["application/problem+json"]["examples"].items()
    assert (code, example["value"]["code"], example["value"]["status"]) == (kind.code, kind.code, kind.status)
    assert "what was found" not in example["value"]["detail"]
    assert ("Retry-After" in documented.get("headers", {})) == (kind.status in (429, 503))


def test_no_field_of_a_form_or_of_an_answer_is_null(document):
    nullable = {
        name
        for name, schema in document["components"]["schemas"].items()
        for field in schema["properties"].values()
        if {"type": "null"} in field.get("anyOf", ())
    }
    bodies = {"ClassifyBody", "BatchBody", "BatchItem", "EmbedBody", "EmbedBatchBody", "Example", "SimilarityBody"}
    bodies |= {"TranscribeBody", "TranscribeBatchBody", "TranscribeBatchItem"}
    bodies |= {"RerankBody", "SearchBody", "RerankItem"}
    assert nullable <= bodies | {"EmbeddingsBody", "EmbeddingInput", "LinkedFile", "OpenAIError"}
    form = document["components"]["schemas"]["ClassifyForm"]["properties"]
    assert {name: (field["type"], field.get("format")) for name, field in form.items()} == {
        "image": ("string", "binary"),
        "text": ("string", None),
        "audio": ("string", "binary"),
        "top_k": ("integer", None),
        "threshold": ("number", None),
        "candidate_labels": ("array", None),
        "prior": ("number", None),
        "model": ("string", None),
    }
    assert all(field["description"] for field in form.values())


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_documented_fields_of_a_form_are_those_that_the_service_reads(document, task):
    documented = document["components"]["schemas"][schemas_of(task).form.__name__]["properties"]
    assert set(documented) == {*task.inputs, *task.Options.model_fields, "model"}
    assert [name for name, field in documented.items() if "default" in field] == []


NAMES = {
    "BatchAnswer",
    "BatchAnswers",
    "BatchBody",
    "BatchItem",
    "Classification",
    "ClassifyBody",
    "ClassifyForm",
    "Health",
    "Input",
    "LabelScore",
    "ModelDetail",
    "ModelSummary",
    "Models",
    "Problem",
    "Range",
}
"""Generated clients use them as names of classes."""
OF_OPENAI = {
    "AudioUrlContent",
    "AudioText",
    "DurationUsage",
    "EmbeddingData",
    "EmbeddingInput",
    "EmbeddingList",
    "EmbeddingMessage",
    "EmbeddingUsage",
    "EmbeddingsBody",
    "ImageUrlContent",
    "LinkedFile",
    "OpenAIError",
    "OpenAIProblem",
    "TextContent",
    "TranscriptionsForm",
    "TranslationsForm",
}
"""Those of the routes of the dialect openai."""


def test_a_dialect_that_is_off_is_not_documented():
    document = create_app(Settings(workers=0, dialects=()), {}).openapi()
    assert "/v1/embeddings" not in document["paths"]
    assert not OF_OPENAI & set(document["components"]["schemas"])
    assert "openai" not in {tag["name"] for tag in document["tags"]}


async def test_the_examples_of_embeddings_are_accepted(client, document):
    content = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert (await client.post("/v1/embeddings", json=example["value"])).status_code == 200


def test_problems_of_a_dialect_are_documented_as_its_clients_get_them(document):
    answers = document["paths"]["/v1/embeddings"]["post"]["responses"]
    assert set(answers) == {"200", "400", "404", "408", "413", "415", "429", "503", "504", "default"}
    model = answers["404"]["content"]["application/problem+json"]
    assert model["schema"] == {"$ref": "#/components/schemas/OpenAIProblem"}
    assert model["examples"]["unknown_model"]["value"]["error"]["code"] == "model_not_found"


SIMILARITY = {"Example", "FailedCandidate", "Similarity", "SimilarityBody", "SimilarityForm", "SimilarityPair"}
SEARCH = {"IndexList", "IndexSummary", "SearchAnswer", "SearchBody", "SearchForm", "SearchHit"}
TRANSCRIBE = {
    *("Candidate", "TranscribedSegment", "TranscribedWord", "Transcription", "TranscribeBody", "TranscribeForm"),
    *("TranscribeBatchAnswer", "TranscribeBatchAnswers", "TranscribeBatchBody", "TranscribeBatchItem"),
}
RERANK = {
    *(
        "CohereProblem",
        "RankedDocument",
        "RankedText",
        "RerankBody",
        "RerankItem",
        "RerankUsage",
        "Reranked",
        "TEIProblem",
    ),
}


def test_the_names_of_schemas_are_stable(document):
    added = {"EmbedBatchAnswer", "EmbedBatchAnswers", "EmbedBatchBody", "EmbedBody", "EmbedForm", "Embedding"}
    added |= {"EmbeddingSpace", "ModelObject"} | SIMILARITY | SEARCH | RERANK | TRANSCRIBE
    assert set(document["components"]["schemas"]) == NAMES | added | OF_OPENAI


def test_every_operation_describes_its_200(document):
    for _, path, operation in operations(document):
        assert operation["responses"]["200"]["description"] not in ("Successful Response", "The answer."), path
        assert {"X-Request-Id"} <= set(operation["responses"]["200"]["headers"])
    tags = {*TASKS, "similarity", "search", "openai", "tei", "cohere", "models", "health", "metrics"}
    assert {tag["name"] for tag in document["tags"]} == tags


def test_keys_and_limits_are_documented_if_they_are_set(document, tmp_path):
    assert "securitySchemes" not in document["components"]
    write_keys(tmp_path / "keys.json", [make_record("a", digest("k"), ["classify"], None)])
    guarded = Settings(workers=0, api_keys_file=tmp_path / "keys.json", rate_limit_per_address=Rate(1, 60))
    document = create_app(guarded, {}).openapi()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["name"]) == ("bearer", "X-API-Key")
    for _, path, operation in operations(document):
        assert ("security" in operation) is (path not in PROBES)
        if path not in PROBES:
            responses = operation["responses"]
            assert {"401", "403", "429"} <= set(responses)
            assert responses["429"]["headers"].keys() == {"Retry-After", "X-Request-Id"}
            examples = responses["401"]["content"]["application/problem+json"]["examples"]
            assert examples["unauthorized"]["value"]["found"] == "none"
    examples = document["paths"]["/v1/classify"]["post"]["responses"]["429"]["content"]["application/problem+json"][
        "examples"
    ]
    assert set(examples) == {"overloaded", "rate_limited"}


def test_the_documentation_lists_every_route_and_every_problem(document):
    for path in document["paths"]:
        assert path in DOCUMENTATION
    for kind in REFUSALS:
        assert f"| {kind.status} | `{kind.code}` |" in DOCUMENTATION


def test_the_documentation_lists_every_metric(settings):
    for family in create_app(settings, {}).state.metrics.registry.collect():
        assert f"`{family.name}" in DOCUMENTATION


def test_codes_are_unique_and_every_refusal_has_a_title():
    assert len({kind.code for kind in REFUSALS}) == len(REFUSALS)
    assert all(kind.title for kind in REFUSALS)
