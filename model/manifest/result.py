"""Check results of manifests."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Errors, which make a manifest unusable, and warnings; a line for each."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    """Columns: the name as the table writes it, by normalised name."""
    separators: dict[Path, str] = field(default_factory=dict)
    """Separators of the delimited files that were read."""
    cut_off: list[Path] = field(default_factory=list)
    """Files with an error that stopped the reading: missing columns and splits may be in the rest."""
