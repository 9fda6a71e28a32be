"""Faults of a data set: one sentence each; faults with the same cause are reported as one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from polymodal.model.errors import InputError

NAMED: Final = 3
"""Most places that a line of equal faults names; the rest is counted."""
PLACES: Final = ("line ", "row ")
"""Beginnings of sentences that name their place."""


class Fault(str):
    """The sentence `place: found; allowed: …`. Faults of one kind differ only in their place and their own value.

    It is a string, so that it can be listed and stored like other sentences.
    """

    place: str
    found: str
    value: str
    allowed: str
    kind: str
    """Text that faults of one kind have in common, with "…" in place of the value."""

    def __new__(cls, found: str, value: str = "", *, allowed: str = "", kind: str = "", place: str = "") -> Self:
        """Build the sentence. Without a `kind`, "{}" in `found` is replaced by the value."""
        if not kind:
            kind, found = found.replace("{}", "…"), found.replace("{}", value)
        sentence = f"{place}: {found}" if place else found
        fault = super().__new__(cls, f"{sentence}; allowed: {allowed}" if allowed else sentence)
        fault.place, fault.found, fault.value, fault.allowed, fault.kind = place, found, value, allowed, kind
        return fault

    def at(self, place: str) -> "Fault":
        """Return the same fault at a place."""
        return Fault(self.found, self.value, allowed=self.allowed, kind=self.kind, place=place)


def fault_of(sentence: str) -> Fault:
    """Return a sentence as a Fault: "line 3: 2 cells; allowed: 3" is at line 3."""
    if isinstance(sentence, Fault):
        return sentence
    place, _, rest = sentence.partition(": ")
    if not rest or not place.startswith(PLACES):
        place, rest = "", sentence
    found, _, allowed = rest.partition("; allowed: ")
    return Fault(found, allowed=allowed, kind=found, place=place)


def fault_of_input(problem: InputError, name: str = "") -> Fault:
    """Return the fault of an input; its kind leaves out measured numbers and the input's name."""
    general = " ".join("…" if any(map(str.isdigit, word)) else word for word in problem.found.split())
    measured = "" if general == problem.found else problem.found
    sentence = f"{problem.input} {name}: {problem.found}" if name else f"{problem.input}: {problem.found}"
    value = f"{name}: {measured}" if name and measured else name or measured
    return Fault(sentence, value, allowed=problem.allowed, kind=f"{problem.input}: {general}")


def joined(faults: Iterable[str]) -> str:
    """Return the faults of one place as one sentence, whose kind joins their kinds."""
    parsed = [fault_of(fault) for fault in faults]
    kind = "; ".join(fault.kind for fault in parsed)
    return parsed[0] if len(parsed) == 1 else Fault("; ".join(parsed), kind=kind)


@dataclass(slots=True)
class _Kind:
    """Equal faults: their number, the first of them, and whether all have the same value."""

    count: int
    first: list[Fault]
    same: bool

    def line(self) -> str:
        example = self.first[0]
        if self.count == 1:
            return example
        places = [fault.place if self.same or not fault.value else _named(fault) for fault in self.first]
        more = f" and {self.count - len(places):,} more" if self.count > len(places) else ""
        where = f": {', '.join(places)}{more}" if all(places) else ""
        allowed = f"; allowed: {example.allowed}" if example.allowed else ""
        return f"{self.count:,} × {example.found if self.same else example.kind}{where}{allowed}"


def _named(fault: Fault) -> str:
    return f"{fault.place} ({fault.value})" if fault.place else fault.value


class Faults:
    """Counts sentences by kind and keeps the first of each kind."""

    def __init__(self, sentences: Iterable[str] = ()) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        for sentence in sentences:
            self.add(fault_of(sentence))

    def add(self, fault: Fault) -> None:
        """Count one more."""
        kind = self._kinds.setdefault((fault.kind, fault.allowed), _Kind(0, [], same=True))
        kind.count += 1
        if len(kind.first) < NAMED:
            kind.first.append(fault)
        kind.same = kind.same and fault.found == kind.first[0].found

    def lines(self) -> list[str]:
        """Return one line for each kind, in the order of their first faults; equal ones with number and first places."""
        return [kind.line() for kind in self._kinds.values()]
