"""The service behaves as its OpenAPI document describes: schemathesis generates requests, and all of its checks pass."""

import os
import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    NotAServerErrorConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.config._checks import NegativeDataRejectionConfig  # the only one that the package does not export
from schemathesis.specs.openapi.checks import negative_data_rejection

from polymodal.app.main import create_app
from polymodal.app.settings import Settings
from tests.app.conftest import make_predictor, write_toy_index

EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "40"))
"""Requests per operation; `make contract` sends more, and different ones each time."""
GENERATION = GenerationConfig(max_examples=EXAMPLES, deterministic="CONTRACT_EXAMPLES" not in os.environ)
# A schema cannot describe which bytes are an image, or that an image or a text that is not blank is required.
REFUSED = PositiveDataAcceptanceConfig(expected_statuses=["2xx", "400", "404", "415", "422", "429", "504"])
# A timeout of a millisecond is valid, and is exceeded.
FAILED = NotAServerErrorConfig(expected_statuses=["2xx", "3xx", "4xx", "504"])
REJECTED = NegativeDataRejectionConfig(expected_statuses=["400", "404", "405", "413", "415", "422", "429", "504"])
CHECKS = ChecksConfig(positive_data_acceptance=REFUSED, negative_data_rejection=REJECTED, not_a_server_error=FAILED)
PROJECT = ProjectConfig(generation=GENERATION, checks=CHECKS)


INDEXES = tempfile.TemporaryDirectory()  # until the end of the process
INDEX = write_toy_index(Path(INDEXES.name) / "things")


class Service:
    """Creates a new application at each start; the requests of each operation start and stop it."""

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            self.app = create_app(Settings(workers=0, indexes=(INDEX,)), {"toy": make_predictor(aligned=True)})
        await self.app(scope, receive, send)


schema = schemathesis.openapi.from_dict(
    create_app(Settings(workers=0), {}).openapi(), config=SchemathesisConfig(projects=ProjectsConfig(default=PROJECT))
)
schema.app = Service()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_behaves_as_its_document_describes(case):
    response = case.call()
    answered = response.status_code == 200
    # An invalid item of a batch or candidate fails alone, and every value of a form is text.
    body = response.json() if answered and case.method == "POST" else {}
    alone = isinstance(body, dict) and any("problem" in item for item in body.get("items", body.get("failed", ())))
    text = answered and case.media_type == "multipart/form-data"
    case.validate_response(response, excluded_checks=[negative_data_rejection] if alone or text else [])
    if case.method == "GET":
        case.method = "HEAD"
        head = case.call()
        assert (head.status_code, head.content) == (response.status_code, b"")
    elif case.media_type == "application/json" and isinstance(case.body, dict):
        case.headers = {}  # without a timeout, which may be exceeded by either request
        one, same = (call_with_top_k(case, number) for number in (1, 1.0))
        assert (same.status_code, labels_of(same)) == (one.status_code, labels_of(one))


def call_with_top_k(case, number):
    """Send the case with this number as top_k; JSON writes 1.0 with its fraction."""
    case.body = {**case.body, "top_k": number}
    return case.call()


def labels_of(response):
    body = response.json()
    return (
        [item.get("classification", {}).get("labels") for item in body["items"]]
        if "items" in body
        else body.get("labels")
    )
