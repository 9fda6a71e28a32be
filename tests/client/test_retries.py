from datetime import UTC, datetime

import pytest

from polymodal_client import Retries
from polymodal_client.retries import JITTER, retry_after_s

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="now"),
        pytest.param("Tue, 24 Nov 2026 12:00:30 GMT", 30.0, id="date"),
        pytest.param("Tuesday, 24-Nov-26 12:00:30 GMT", 30.0, id="old-date"),
        pytest.param("Tue, 24 Nov 2026 12:00:30 -0000", 30.0, id="date-without-zone"),
        pytest.param("Tue, 24 Nov 2026 11:00:00 GMT", 0.0, id="date-in-the-past"),
        pytest.param("9" * 400, 999_999_999.0, id="for-ever"),
        *(pytest.param(text, None, id=f"rubbish-{text}") for text in ("soon", "-3", "1.5e3", "٣", "", "1, 2")),
    ],
)
def test_a_retry_after_field_is_seconds_or_a_date(field, seconds):
    assert retry_after_s(field, now=lambda: NOON) == seconds


def test_the_pause_is_retry_after_and_a_random_addition():
    retries = Retries()
    assert retries.wait_s(1, 4.0, chance=lambda: 0.0) == 4.0
    assert retries.wait_s(1, 4.0, chance=lambda: 1.0) == 4.0 * (1 + JITTER)


def test_without_retry_after_the_pause_grows_up_to_a_bound():
    retries = Retries(attempts=100, first_wait_s=0.5, longest_wait_s=3)
    assert [retries.wait_s(attempt, None, chance=lambda: 1.0) for attempt in (1, 2, 3, 4, 50)] == [0.5, 1, 2, 3, 3]
    assert retries.wait_s(3, None, chance=lambda: 0.0) == 0


def test_no_retry_after_the_last_attempt_or_with_a_longer_retry_after():
    retries = Retries(attempts=2, longest_wait_s=10)
    assert retries.wait_s(2, None) is None
    assert retries.wait_s(1, 10.1) is None
    assert Retries(attempts=1).wait_s(1, 0.0) is None


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_wait_s": -1}, {"longest_wait_s": -1}])
def test_impossible_retries_are_rejected(wrong):
    with pytest.raises(ValueError, match="allowed: at least one attempt"):
        Retries(**wrong)
