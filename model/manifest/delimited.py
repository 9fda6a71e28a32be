"""Delimited text (CSV, TSV) as spreadsheets and programs write it: encoding, separator and cells.

`app/web/csv.js` reads by the same rules; `tests/tables/` holds files that both must read alike.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from polymodal.model.manifest.result import CheckResult
from polymodal.model.manifest.spreadsheets import restored
from polymodal.model.modalities import MODALITIES

MAX_CELL: Final = 10_000_000  # characters in one cell; Python's own limit (131,072) is short for a long text
SAMPLE: Final = 65_536  # characters that decide the separator
SAMPLE_ROWS: Final = 200
SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators and their names in messages; of equally good ones, the first is used."""
LATER: Final = frozenset(name for name, modality in MODALITIES.items() if not modality.always_digested)
"""Columns that tables of older releases lack."""
BLANKS: Final = " \t\r\n\v\f\u00a0\ufeff\u200b"
"""Blank characters of a cell."""
SAVE_AS: Final = "allowed: UTF-8 (in a spreadsheet: save as «CSV UTF-8»)"

UTF_8: Final = "utf-8-sig"
ENCODING_NAMES: Final = {
    UTF_8: "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp1252": "Windows-1252",
}
SIGNATURES: Final = {
    b"PK\x03\x04": "a workbook or another zip file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF document",
    codecs.BOM_UTF32_LE: "UTF-32 text",
    codecs.BOM_UTF32_BE: "UTF-32 text",
}
"""First bytes of files that are not delimited text, whatever their suffix."""

_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^"\r\n]?)"?(?:\r\n?|\n|$)', re.IGNORECASE)
_NOT_ASCII: Final = re.compile(r"""[^\s,;|"]*[^\x00-\x7f][^\s,;|"]*""")


def normalised_name(name: str) -> str:
    """Normalise a column's name: lower case, without blanks, byte order marks and zero-width spaces around it."""
    return name.strip(BLANKS).lower()


def same_columns(names: Sequence[str]) -> Iterator[str]:
    """Yield a problem for each set of columns with one normalised name; columns without a name don't count."""
    normalised = [normalised_name(name) for name in names]
    for name in sorted({name for name in normalised if name and normalised.count(name) > 1}):
        written = [original for original, other in zip(names, normalised, strict=True) if other == name]
        if len(set(written)) == 1:
            yield f"column {written[0]!r} occurs {len(written)} times; allowed: once"
        else:
            yield f"columns {' and '.join(map(repr, written))} are the same; allowed: one of them"


def separator_name(separator: str) -> str:
    """Return the name of a separator in messages."""
    return SEPARATORS.get(separator, repr(separator))


def delimited_rows(path: Path, known: Sequence[str], result: CheckResult) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and cells, by normalised column name, of each row of a delimited file that is not blank.

    `known` are the columns whose names decide between separators. A table with exactly these, perhaps without LATER, was written
    by polymodal, so its cells are restored.

    Adds errors to the result, and a warning with encoding and separator if they are unusual.
    """
    previous_limit = csv.field_size_limit(MAX_CELL)
    try:
        with path.open("rb") as file:
            encoding, example = _encoding_of(file)
        with path.open(encoding=encoding, newline="") as text:
            dialect = _dialect_of(text.read(SAMPLE), known)
        result.separators[path] = dialect.separator
        if encoding != UTF_8 or dialect.separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
            read_as = f"read as {ENCODING_NAMES[encoding]}{example}, separated by {separator_name(dialect.separator)}"
            result.warnings.append(f"{path.name}: {read_as}")
        with path.open(encoding=encoding, newline="") as text:
            yield from _named_rows(_Rows(text, dialect), known, result)
    except _Unreadable as problem:
        result.errors.append(str(problem))
        result.cut_off.append(path)
    except UnicodeDecodeError as error:
        result.cut_off.append(path)
        result.errors.append(f"broken {ENCODING_NAMES.get(error.encoding, error.encoding)} ({error.reason}); {SAVE_AS}")
    finally:
        csv.field_size_limit(previous_limit)


def _named_rows(rows: "_Rows", known: Sequence[str], result: CheckResult) -> Iterator[tuple[str, dict[str, str]]]:
    line, header = next(rows, (1, []))
    result.errors.extend(f"line {line}: {problem}" for problem in same_columns(header))
    names = [normalised_name(name) for name in header]
    result.columns.update((name, title.strip()) for name, title in zip(names, header, strict=True) if name)
    ours = tuple(names) == tuple(name for name in known if name in names or name not in LATER)
    nameless = [number for number, name in enumerate(names) if not name]
    for line, row in rows:
        # Spreadsheets omit empty cells at the end of a row, or write more of them than there are columns.
        while len(row) > len(names) and not row[-1].strip(BLANKS):
            row.pop()
        if len(row) > len(names):
            separator = separator_name(rows.dialect.separator)
            allowed = (
                f"{len(names)}, as many as columns, separated by {separator}; a cell with these needs quotes around it"
            )
            result.errors.append(f"line {line}: {len(row)} cells; allowed: {allowed}")
            continue
        cells = [*(map(restored, row) if ours else row), *[""] * (len(names) - len(row))]
        for number in [number for number in nameless if cells[number].strip(BLANKS)]:
            nameless.remove(number)
            result.warnings.append(
                f"column {number + 1} has no name and is ignored (line {line}: {cells[number][:40]!r})"
            )
        if rows.looks_like_rows(len(names)):
            result.warnings.append(
                f"line {line}: a quoted cell goes on over lines that look like rows; is a quote missing?"
            )
        yield f"line {line}", {name: cell for name, cell in zip(names, cells, strict=True) if name}


# --- encodings ---


class _Unreadable(Exception):
    """Reason why a file, or the rest of it, can't be read."""


def _encoding_of(file: io.BufferedReader) -> tuple[str, str]:
    """Return the encoding of a file, and an example for messages if it was guessed. Raises _Unreadable.

    It is UTF-8 if the whole file is valid; UTF-16 with a byte order mark or zeros in the first characters; else Windows-1252,
    unless most lines are UTF-8.
    """
    start = file.read(4)
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            raise _Unreadable(f"{kind}; allowed: a table as text, which a spreadsheet saves as «CSV UTF-8»")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ""
    if len(start) == 4 and (zeros := [byte == 0 for byte in start]) in ([False, True] * 2, [True, False] * 2):
        return ("utf-16-be" if zeros[0] else "utf-16-le"), ""
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := file.read(1 << 20):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252", _example_of_windows_1252(file)
    return UTF_8, ""


def _example_of_windows_1252(file: io.BufferedReader) -> str:
    """Return a word of a file that is Windows-1252. Raises _Unreadable when it is UTF-8 with faults, or neither."""
    file.seek(0)
    valid = invalid = 0  # lines that are UTF-8 beyond ASCII, and lines that are no UTF-8
    first, undefined = (0, 0, b""), ""
    for number, line in enumerate(file, start=1):
        try:
            valid += not line.decode("utf-8").isascii()
        except UnicodeDecodeError as error:
            invalid += 1
            first = first if first[0] else (number, line[error.start], line)
        try:
            line.decode("cp1252")
        except UnicodeDecodeError as error:
            undefined = undefined or f"line {number}: byte {line[error.start]:#04x} is neither UTF-8 nor Windows-1252"
    number, byte, line = first
    if valid >= invalid:
        raise _Unreadable(f"line {number}: byte {byte:#04x} is not UTF-8, though other lines are; {SAVE_AS}")
    if undefined:
        raise _Unreadable(f"{undefined}; {SAVE_AS}")
    word = _NOT_ASCII.search(line.decode("cp1252"))
    return f" (line {number}: {word[0][:40]!r})" if word else ""


# --- separators ---


@dataclass(frozen=True, slots=True)
class _Dialect:
    separator: str
    padded: bool = False
    """Whether a blank follows each separator, as in «image, text, label»; it belongs to no cell."""
    skipped: int = 0
    """Lines before the table: 1 where the first one is Excel's «sep=;»."""


def _dialect_of(sample: str, known: Sequence[str]) -> _Dialect:
    """Return the separator that Excel's line names, or else the one that fits the sample best."""
    named = _SEPARATOR_LINE.match(sample)
    table = sample[named.end() :] if named else sample
    separator = named[1] or "," if named else max(SEPARATORS, key=lambda candidate: _fit(table, candidate, known))
    header = next(_sample_rows(table, separator), [])
    return _Dialect(separator, any(name.startswith(" ") for name in header[1:]), 1 if named else 0)


def _fit(sample: str, separator: str, known: Sequence[str]) -> tuple[int, float, int]:
    """Return the fit of a separator: known columns, share of rows as wide as the header, columns; compared in this order."""
    rows = list(_sample_rows(sample, separator))
    if not rows:
        return 0, 0.0, 0
    width = len(rows[0])
    alike = sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0.0
    return len({normalised_name(name) for name in rows[0]}.intersection(known)), alike, width


def _sample_rows(sample: str, separator: str) -> Iterator[list[str]]:
    try:
        rows = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, strict=True)
        yield from islice((row for row in rows if not _is_blank(row)), SAMPLE_ROWS)
    except csv.Error:  # a quote that the end of the sample left open, or a fault that is reported when it is read
        return


# --- rows ---


def _is_blank(row: Sequence[str]) -> bool:
    return not any(cell.strip(BLANKS) for cell in row)


class _Rows:
    """Iterates over rows with their line numbers, without blank rows. Raises _Unreadable for a misplaced quote."""

    def __init__(self, file: io.TextIOWrapper, dialect: _Dialect) -> None:
        self.dialect = dialect
        self._file = file
        self._lines: list[str] = []  # of the current row, to locate a fault
        for _ in range(dialect.skipped):
            next(file, None)
        self._reader = csv.reader(
            self._recorded_lines(), delimiter=dialect.separator, skipinitialspace=dialect.padded, strict=True
        )

    def _recorded_lines(self) -> Iterator[str]:
        for line in self._file:
            self._lines.append(line)
            yield line

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._lines.clear()
            line = self._reader.line_num + self.dialect.skipped + 1
            try:
                row = next(self._reader)
            except csv.Error as error:
                raise _Unreadable(
                    _quote_fault(self._lines, line, self.dialect) or f"line {line}: broken CSV ({error})"
                ) from error
            if not _is_blank(row):
                return line, row

    def looks_like_rows(self, width: int) -> bool:
        """Return whether the row has a quoted cell whose lines all look like rows of this width, as a stray quote causes."""
        if len(self._lines) < 4 or width < 2:
            return False
        rows = csv.reader(self._lines[1:-1], delimiter=self.dialect.separator)
        return all(len(row) == width for row in rows)


def _quote_fault(lines: Sequence[str], first: int, dialect: _Dialect) -> str:
    """Return the message about the misplaced quote of a row, whose lines begin with number `first`; "" if there is none."""
    allowed = 'allowed: quotes around a whole cell, and "" for a quote within it'
    # States: at the "start" of a cell, in an "unquoted" or "quoted" one, or "closed" after its closing quote.
    opened, state = first, "start"
    for number, line in enumerate(lines, start=first):
        at = 0
        while at < len(line):
            character = line[at]
            if state == "quoted":
                if line.startswith('""', at):
                    at += 1
                elif character == '"':
                    state = "closed"
            elif character == dialect.separator:
                state = "start"
            elif state == "closed" and character not in "\r\n":
                end = "" if number == opened else f" in line {number}"
                return f"line {opened}: broken CSV (a quoted cell ends{end} before {line[at : at + 20].strip()!r}); {allowed}"
            elif state == "start" and character == '"':
                opened, state = number, "quoted"
            elif not (state == "start" and character == " " and dialect.padded):
                state = "unquoted" if state != "closed" else state
            at += 1
    return (
        f"line {opened}: broken CSV (a quote opens a cell and nothing closes it); {allowed}"
        if state == "quoted"
        else ""
    )
