"""Delimited text as spreadsheets write it. The command line and the page read it alike, as tests/tables/expected.json defines."""

import csv
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from polymodal.model.manifest import CheckResult, column_names, csv_line
from polymodal.model.manifest.delimited import delimited_rows
from polymodal.model.manifest.spreadsheets import restored

PROJECT = Path(__file__).parents[2]
TABLES = PROJECT / "tests/tables"
EXPECTED = json.loads((TABLES / "expected.json").read_text(encoding="utf-8"))
NODE = shutil.which("node")

MESSAGES = {
    "open-quote": "a quote opens a cell and nothing closes it",
    "text-after-quote": "a quoted cell ends",
    "column-twice": "are the same",
    "encoding": "allowed: UTF-8",
    "no-table": "allowed: a table as text",
}
"""Words of the command line's message by the page's code of a fault."""


def read(path):
    result = CheckResult()
    return list(delimited_rows(path, column_names(), result)), result


def test_every_table_has_an_entry_in_expected_json():
    assert {path.name for path in TABLES.iterdir() if path.suffix in (".csv", ".tsv", ".txt")} == EXPECTED.keys()


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if "fault" not in expected])
def test_the_command_line_reads_a_table_as_expected(name):
    expected = EXPECTED[name]
    rows, result = read(TABLES / name)
    whole = [row for row in expected["rows"] if row["line"] not in expected["too_many_cells"]]
    assert [{"line": int(place.removeprefix("line ")), "cells": cells} for place, cells in rows] == whole
    assert [error.partition(":")[0] for error in result.errors] == [f"line {n}" for n in expected["too_many_cells"]]
    assert list(result.columns) == [name for name in expected["columns"] if name]
    assert result.separators == {TABLES / name: expected["separator"]}
    notes = [warning for warning in result.warnings if "read as" in warning]
    usual = expected["separator"] == ("\t" if name.endswith(".tsv") else ",") and expected["encoding"] == "UTF-8"
    assert len(notes) == (not usual)
    assert all(note.startswith(f"{name}: read as {expected['encoding']}") for note in notes)


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if "fault" in expected])
def test_the_command_line_reports_a_fault_with_its_line(name):
    expected = EXPECTED[name]
    _, result = read(TABLES / name)
    (error,) = result.errors
    assert MESSAGES[expected["fault"]] in error
    if expected["line"]:
        assert error.startswith(f"line {expected['line']}: ")


READ_ALL = """
import { readFileSync, readdirSync } from "node:fs";
import { readTable } from "./csv.mjs";

const [folder] = process.argv.slice(2);
const results = {};
for (const name of readdirSync(folder).filter((file) => /\\.(csv|tsv|txt)$/.test(file))) {
  try {
    const { encoding, separator, columns, rows } = readTable(new Uint8Array(readFileSync(`${folder}/${name}`)), ["image", "text"]);
    const many = rows.filter(({ spare }) => spare).map(({ line }) => line);
    results[name] = { encoding, separator, columns, rows: rows.map(({ line, cells }) => ({ line, cells })), too_many_cells: many };
  } catch (fault) {
    results[name] = { fault: fault.code ?? String(fault), line: fault.values?.line ?? null };
  }
}
console.log(JSON.stringify(results));
"""


def page_program(folder, program, *arguments):
    """Return the JSON that a program prints; it imports a copy of app/web/csv.js whose suffix node loads as a module."""
    (folder / "csv.mjs").write_text((PROJECT / "app/web/csv.js").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "program.mjs").write_text(program, encoding="utf-8")
    command = [NODE, folder / "program.mjs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def page_reads(tmp_path_factory):
    """Results of app/web/csv.js by table."""
    return page_program(tmp_path_factory.mktemp("page"), READ_ALL, TABLES)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("name", EXPECTED)
def test_the_page_reads_a_table_as_the_command_line_does(page_reads, name):
    page, expected = page_reads[name], EXPECTED[name]
    if "fault" in expected and (expected["line"] is None or expected["fault"] == "column-twice"):
        expected = {
            **expected,
            "line": page["line"],
        }  # of a column that occurs twice, the page returns the name instead
    assert page == expected


HEADERS = [
    "text,label",
    "text;label",
    "Text\tLABEL",
    "text|label",
    "text, label",
    "caption;category,x",
    "sep=;\ntext;label",
    '"text"',
    "",
]
SIGNS = [*'aaa,,;;\t|"" \n\n\r\'=', "\r\n", "ü", "\ufeff", "\u200b", '""', '","', "\x85", "\u2028", "text"]


def drawn_tables(count):
    """Yield tables of random signs in random encodings, the same on every run."""
    chance = random.Random(18)  # noqa: S311
    for _ in range(count):
        text = f"{chance.choice(HEADERS)}\n{''.join(chance.choices(SIGNS, k=chance.randrange(30)))}"
        yield text.encode(chance.choice(["utf-8", "utf-8", "utf-16", "cp1252"]), "replace")


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_both_readers_agree_on_any_table(tmp_path):
    """They agree on rows, columns and separator, or on a fault and its line."""
    tables = tmp_path / "tables"
    tables.mkdir()
    for number, content in enumerate(drawn_tables(500)):
        (tables / f"{number}.csv").write_bytes(content)
    pages = page_program(tmp_path, READ_ALL, tables)
    for name, page in pages.items():
        rows, result = read(tables / name)
        whole = [error for error in result.errors if not re.match(r"line \d+: \d+ cells", error)]
        if "fault" in page:
            assert whole, (name, page)
            assert MESSAGES[page["fault"]] in whole[0] or page["fault"] == "column-twice", (name, page, whole)
            if isinstance(page["line"], int):
                assert whole[0].startswith(f"line {page['line']}: "), (name, page, whole)
            continue
        assert not whole, (name, page, whole)
        good = [row for row in page["rows"] if row["line"] not in page["too_many_cells"]]
        assert [{"line": int(place.removeprefix("line ")), "cells": cells} for place, cells in rows] == good, name
        assert list(result.columns) == list(filter(None, page["columns"])), name
        assert result.separators == {tables / name: page["separator"]}, name


# --- long and odd files ---


def test_a_late_byte_decides_the_encoding_of_the_whole_file(tmp_path):
    lines = ["text,label", *("plain words,x" for _ in range(20_000))]
    (tmp_path / "long.csv").write_bytes("\n".join([*lines, "Stühle,x"]).encode("cp1252"))
    rows, result = read(tmp_path / "long.csv")
    assert rows[-1] == ("line 20002", {"text": "Stühle", "label": "x"})
    assert result.warnings == ["long.csv: read as Windows-1252 (line 20002: 'Stühle'), separated by commas"]


def test_a_quote_that_is_never_closed_is_reported_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr("polymodal.model.manifest.delimited.MAX_CELL", 100_000)
    path = tmp_path / "long.csv"
    path.write_text('text,label\na,x\n"5 inch,x\n' + "plain words,x\n" * 20_000, encoding="utf-8")
    _, result = read(path)
    assert result.errors[0].startswith("line 3: broken CSV (a quote opens a cell and nothing closes it)")


def test_a_column_without_a_name_is_reported_once_if_it_has_cells(tmp_path):
    path = tmp_path / "pandas.csv"
    path.write_text(",text,label,\n0,a,x,\n1,b,y,\n", encoding="utf-8")
    assert read(path)[1].warnings == ["column 1 has no name and is ignored (line 2: '0')"]


def test_lines_between_two_stray_quotes_get_a_warning(tmp_path):
    path = tmp_path / "stray.csv"
    path.write_text('text,label\n"12 inch,x\nb,y\nc,y\nwide 14",z\n', encoding="utf-8")
    rows, result = read(path)
    assert len(rows) == 1
    assert result.warnings == ["line 2: a quoted cell goes on over lines that look like rows; is a quote missing?"]


def test_truncated_utf_16_is_reported(tmp_path):
    (tmp_path / "odd.csv").write_bytes("text,label\na,x\n".encode("utf-16") + b"\0")
    assert read(tmp_path / "odd.csv")[1].errors[0].startswith("broken UTF-16 (truncated data); allowed: UTF-8")


# --- writing ---

WRITTEN = {
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": '"\'\t=1"',
    "\r=1": '"\'\r=1"',
    "\n=1": '"\'\n=1"',
    "＝1+1": "'＝1+1",
    "'=1": "''=1",
    "'tis": "'tis",
    "a;=1": '"a;=1"',
    "a\t=1": '"a\t=1"',
    'say "hi", please': '"say ""hi"", please"',
    "two\nlines": '"two\nlines"',
    "harmless = 1": "harmless = 1",
    "": "",
}


@pytest.mark.parametrize(("cell", "written"), WRITTEN.items(), ids=repr)
def test_a_formula_gets_an_apostrophe(cell, written):
    assert csv_line(["id", cell]) == f"id,{written}\n"


@pytest.mark.parametrize("cell", WRITTEN, ids=repr)
def test_an_escaped_cell_is_restored(cell):
    (written,) = next(csv.reader(csv_line([cell]).splitlines(keepends=True))) or [""]
    assert restored(written) == cell


def test_numbers_and_missing_cells_are_not_escaped():
    assert csv_line(["=a", -0.5, 3, None]) == "'=a,-0.5,3,\n"


WRITE = 'import { writeCsv } from "./csv.mjs"; console.log(JSON.stringify(writeCsv(JSON.parse(process.argv[2]))));'


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_writes_cells_as_the_command_line_does(tmp_path):
    rows = [[cell, -0.5, None] for cell in WRITTEN]
    written = page_program(tmp_path, WRITE, json.dumps(rows))
    assert written == "".join(csv_line(row).removesuffix("\n") + "\r\n" for row in rows)
