"""Base class and registry of all refusals; imports nothing of this project, so that every module can import it.

A new refusal is one class: it states its status, code and title, and its `example` documents it. `app.api.errors` turns it into a
response.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Self

PROBLEMS: Final[dict[str, type["Problem"]]] = {}
"""Every class that states a code, by its code."""


class Problem(Exception):
    """A refusal whose message a client may see.

    A class that states nothing is an internal error, whose message no client sees.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    """Stays the same from release to release, because programs rely on it."""
    title: ClassVar[str] = "Something went wrong here"
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Header fields of the response, in addition to Retry-After."""
    retry_after_s: int | None = None
    """Whole seconds for Retry-After; None where a later attempt would fail alike."""
    input: str | None = None
    """The input at fault, if there is one."""
    found: str | None = None
    allowed: str | None = None

    def __init_subclass__(cls) -> None:
        """Register a class that states a code. Raises TypeError for an incomplete statement, and for a code that is taken."""
        super().__init_subclass__()
        stated = {"status", "code", "title"} & vars(cls).keys()
        if not stated:
            return
        if len(stated) < 3:
            raise TypeError(
                f"{cls.__name__}: states {', '.join(sorted(stated))}; allowed: status, code and title together"
            )
        if cls.code in PROBLEMS:
            raise TypeError(f"{cls.__name__}: the code {cls.code} of {PROBLEMS[cls.code].__name__}; allowed: its own")
        PROBLEMS[cls.code] = cls

    @classmethod
    def example(cls) -> Self:
        """Return an instance for the documentation, made as the code that raises it does."""
        return cls()


class InternalError(Problem):
    """Replaces any exception that is no refusal: its message may name paths and secrets, and is only logged."""

    def __init__(self) -> None:
        super().__init__("The request failed for a reason that is not yours; the log has it under this request's id.")


class RequestError(Problem):
    """The client can succeed by sending something else; has the same three attributes as `model.InputError`."""

    def __init__(self, input: str, found: str, allowed: str) -> None:
        super().__init__(f"{input}: {found}; allowed: {allowed}")
        self.input, self.found, self.allowed = input, found, allowed
