"""Cells that a spreadsheet would run as formulas: escaped in written CSV files, restored when these are read.

`app/web/csv.js` writes by the same rule.
"""

import re
from collections.abc import Iterable
from typing import Final

# First characters of formulas, by https://owasp.org/www-community/attacks/CSV_Injection. A text that already has apostrophes in
# front of one gets one more, so that `restored` is exact.
_FORMULA: Final = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
_QUOTED: Final = re.compile('[",;\t\r\n]')


def csv_line(cells: Iterable[str | float | None]) -> str:
    r"""Return one line of CSV, ended by \n; a text that would be a formula gets an apostrophe in front of it."""
    return ",".join(map(_escaped, cells)) + "\n"


def restored(cell: str) -> str:
    """Return a cell without the apostrophe that `csv_line` added."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _escaped(cell: str | float | None) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return str(cell)
    text = f"'{cell}" if _FORMULA.match(cell) else cell
    # A semicolon or a tab needs no quotes, but a spreadsheet that separates by it would read a further cell after it.
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
