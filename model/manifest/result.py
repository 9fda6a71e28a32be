"""What the checks of a manifest found."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line for each error, which keeps a manifest from being used, and for each warning, which doesn't."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
