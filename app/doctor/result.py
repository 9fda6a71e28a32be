"""The result of a check: a row of the doctor's table, and an object of its JSON."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Severity of a result; only with `fail` something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    area: str
    check: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty for `ok`."""


def ok(area: str, check: str, found: str) -> CheckResult:
    """Return the result of a check that passed."""
    return CheckResult(area, check, State.OK, found)


def warn(area: str, check: str, found: str, advice: str) -> CheckResult:
    """Return the result of a check of something that works, but probably not as intended."""
    return CheckResult(area, check, State.WARN, found, advice)


def fail(area: str, check: str, found: str, advice: str) -> CheckResult:
    """Return the result of a check of something that does not work."""
    return CheckResult(area, check, State.FAIL, found, advice)
