"""Limits on requests and the bytes of their bodies."""

import asyncio
from contextlib import nullcontext

import pytest

from polymodal.app.serving.admission import Admission
from polymodal.app.serving.batching import Overloaded


@pytest.fixture
def admission():
    return Admission(requests=3, body_bytes=100, wait_s=lambda: 6.5)


def test_bodies_that_are_together_too_large_are_refused_with_the_predicted_time(admission):
    with admission.admit() as first, admission.admit() as second:
        first.hold(60)
        second.hold(40)
        with pytest.raises(
            Overloaded, match=r"60 bytes of other requests .* this one has 41; allowed: 100 bytes"
        ) as refusal:
            second.hold(41)
        assert refusal.value.retry_after_s == 7
        assert admission.bytes == 100


def test_a_body_is_never_refused_while_it_is_the_only_one(admission):
    with admission.admit() as alone:
        for size in (50, 150, 1000):  # as it arrives
            alone.hold(size)
        assert admission.bytes == 1000
        with admission.admit() as late, pytest.raises(Overloaded):
            late.hold(1)
        with admission.admit() as empty:
            empty.hold(0)
            alone.hold(1001)


def test_bytes_are_counted_once_whether_declared_or_as_they_arrive(admission):
    with admission.admit() as admitted:
        admitted.hold(80)  # as declared
        for received in (20, 50, 80):
            admitted.hold(received)
        assert (admission.bytes, admitted.bytes) == (80, 80)
        admitted.hold(90)
        assert admission.bytes == 90


def serve_request(admission, error, sizes=(100,)):
    """Admit a request, count its body as it arrives, and end it, with an error if there is one."""
    with admission.admit() as admitted:
        for size in sizes:
            admitted.hold(size)
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, ValueError(), Overloaded("a", "b", 1.0), asyncio.CancelledError()], ids=repr)
def test_requests_and_bytes_are_released_after_every_kind_of_end(admission, error):
    with pytest.raises(type(error)) if error else nullcontext():
        serve_request(admission, error)
    assert (admission.requests, admission.bytes) == (0, 0)
    with admission.admit() as first, admission.admit() as second:
        first.hold(50)
        second.hold(50)


def test_a_refused_body_releases_its_bytes(admission):
    with admission.admit() as other:
        other.hold(60)
        with pytest.raises(Overloaded, match="this one has 50"):
            serve_request(admission, None, sizes=(30, 50))
        assert (admission.requests, admission.bytes) == (1, 60)


def test_requests_beyond_the_limit_are_refused_before_their_bodies(admission):
    with admission.admit(), admission.admit(), admission.admit():
        with pytest.raises(Overloaded, match="3 requests are waiting already; allowed: 3"), admission.admit():
            pass
        assert admission.requests == 3
