"""What a check says: a small frozen object, for the table as well as for JSON."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is. Only `fail` keeps something from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table."""

    area: str
    check: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""

    def as_json(self) -> dict[str, str]:
        """The same for a program."""
        return asdict(self)


def ok(area: str, check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(area, check, State.OK, found)


def warn(area: str, check: str, found: str, advice: str) -> Finding:
    """It works, but perhaps not as wanted."""
    return Finding(area, check, State.WARN, found, advice)


def fail(area: str, check: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(area, check, State.FAIL, found, advice)
