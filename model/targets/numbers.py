"""Numbers in texts, as people write them."""

import math
from typing import Final

NUMBER: Final = "a finite number such as 12.5"


def is_number(cell: str) -> bool:
    """Return whether a cell is a finite number as people write it (Python also reads 1_000)."""
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False
