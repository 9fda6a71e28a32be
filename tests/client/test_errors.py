import re
from pathlib import Path

import pytest

import polymodal_client
from polymodal_client import errors
from polymodal_client.errors import error_of
from tests.refusals import REFUSALS

DOCUMENTATION = Path(__file__).parents[2] / "docs/client.md"
FAMILIES = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "IndexOfAnotherModel",
    405: "InvalidRequest",
    408: "InvalidRequest",
    413: "InvalidRequest",
    415: "InvalidRequest",
    422: "InvalidRequest",
    429: "TryLater",
    431: "InvalidRequest",
    500: "InternalError",
    503: "Unavailable",
    504: "DeadlineExceeded",
}


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.code)
def test_every_problem_of_the_service_has_its_exception(kind):
    problem = {"status": kind.status, "code": kind.code, "title": kind.title, "detail": "why", "instance": "r"}
    error = error_of(problem, 3)
    if type(error) is not errors.InvalidInput:
        assert isinstance(error, getattr(errors, FAMILIES[kind.status]))
    assert (error.status, error.code, error.title, error.detail, error.request_id) == tuple(problem.values())
    assert error.retry_after == 3
    assert kind.code in str(error)


def test_an_input_problem_has_its_fields():
    error = error_of({"status": 422, "code": "too_large", "input": "image", "found": "9 px", "allowed": "8 px"})
    assert type(error) is errors.InvalidInput
    assert (error.input, error.found, error.allowed) == ("image", "9 px", "8 px")


@pytest.mark.parametrize(("status", "family"), [(499, "InvalidRequest"), (507, "InternalError"), (429, "Overloaded")])
def test_a_problem_of_a_newer_service_has_the_family_of_its_status(status, family):
    assert type(error_of({"status": status, "code": "brand_new"})).__name__ == family


@pytest.mark.parametrize("wrong", [{}, {"status": 400}, {"status": "x", "code": "y"}, [], None], ids=repr)
def test_another_body_is_not_read_as_a_problem(wrong):
    with pytest.raises((LookupError, TypeError, ValueError)):
        error_of(wrong)


def test_the_documentation_lists_every_exception():
    documented = set(re.findall(r"`(\w+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    exported = {name: getattr(polymodal_client, name) for name in polymodal_client.__all__}
    exceptions = {name for name, kind in exported.items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert exceptions <= documented
