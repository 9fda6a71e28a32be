"""What the checks of a manifest found."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line for each error, which keeps a manifest from being used, and for each warning, which doesn't."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    """Every column that was found: its plain name, and the name as the table writes it."""
    separators: dict[Path, str] = field(default_factory=dict)
    """What separates the cells of each delimited file that was read."""
    cut_off: list[Path] = field(default_factory=list)
    """Files with an error behind which nothing could be read: what their rows lack may be in the rest."""
