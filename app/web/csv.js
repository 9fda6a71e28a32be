// Tables as text: read as spreadsheets and programs write them, and written so that no spreadsheet runs a cell.
// model/manifest/delimited.py reads by the same rules; tests/tables/ has files that both must read alike.

/** The columns of a manifest after those of its inputs. Their names decide between separators, and so do "id" and those of the inputs. */
const LAST_COLUMNS = ["label", "group", "split", "source", "licence"];
const SEPARATORS = [",", ";", "\t", "|"]; // of equally good ones, the first is taken
const SAMPLE = 65_536; // characters that decide the separator
const SAMPLE_ROWS = 200;
// How files begin that have a table's suffix but are something else: zip (workbooks), old Excel, gzip, Parquet, PDF, UTF-32.
const NO_TABLES = ["504b0304", "d0cf11e0", "1f8b", "50415231", "25504446", "fffe0000", "0000feff"];

/** Whether this is a table rather than an input. @param {File} file */
export const isTable = (file) => /\.(csv|tsv|tab)$/i.test(file.name) || file.type === "text/csv";
/** @param {string[]} inputs their names */
export const columnsOf = (inputs) => ["id", ...inputs, ...LAST_COLUMNS];

/** Why a table can't be read: a code, and values for its message. */
export class TableError extends Error {
  /** @param {string} code @param {Record<string, string | number>} values */
  constructor(code, values = {}) {
    super(code);
    this.code = code;
    this.values = values;
  }
}

/**
 * @typedef {{line: number, cells: Record<string, string>, spare: number}} TableRow by plain column name; how many cells are too many
 * @typedef {{encoding: string, example: string, line: number, separator: string, columns: string[], rows: TableRow[]}} Table
 */

/**
 * A table with all its rows that are not blank. Raises TableError.
 * @param {Uint8Array} bytes
 * @param {string[]} inputs their columns' names
 * @returns {Table}
 */
export function readTable(bytes, inputs) {
  const { text, ...encoded } = decoded(bytes);
  const { separator, padded, start } = formOf(text, columnsOf(inputs));
  const rows = parse(text, separator, padded, start);
  const columns = (rows.next().value?.cells ?? []).map(plainName);
  const twice = columns.find((name, index) => name && columns.indexOf(name) < index);
  if (twice) throw new TableError("column-twice", { column: twice });
  const ours = columns[0] === "id" && columns.slice(-LAST_COLUMNS.length).join() === LAST_COLUMNS.join(); // a manifest of any inputs
  const named = [...rows].map(({ line, cells }) => {
    while (cells.length > columns.length && !shows(cells.at(-1))) cells.pop();
    const entries = columns.map((name, index) => [name, ours ? restored(cells[index] ?? "") : (cells[index] ?? "")]);
    return { line, cells: Object.fromEntries(entries.filter(([name]) => name)), spare: Math.max(0, cells.length - columns.length) };
  });
  return { ...encoded, separator, columns, rows: named };
}

/** A column's name without blanks, byte order marks and zero-width spaces around it, in lower case. */
const plainName = (name) => name.replace(/^[ \t\r\n\v\f\u00A0\uFEFF\u200B]+|[ \t\r\n\v\f\u00A0\uFEFF\u200B]+$/g, "").toLowerCase();
/** Whether a cell shows something. */
const shows = (cell) => /[^ \t\r\n\v\f\u00A0\uFEFF\u200B]/.test(cell);

/** UTF-8 if all of it is; UTF-16 with a byte order mark or where that is obvious; else Windows-1252, unless more lines are UTF-8 than not. */
function decoded(bytes) {
  const start = [...bytes.subarray(0, 4)];
  const hex = start.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (NO_TABLES.some((signature) => hex.startsWith(signature))) throw new TableError("no-table");
  const zeros = start.map((byte) => Number(byte === 0)).join("");
  const wide = hex.startsWith("fffe") || zeros === "0101" ? "utf-16le" : hex.startsWith("feff") || zeros === "1010" ? "utf-16be" : "";
  if (wide) return { text: decode(wide, bytes), encoding: "UTF-16", example: "", line: 0 };
  try {
    return { text: decode("utf-8", bytes), encoding: "UTF-8", example: "", line: 0 };
  } catch {
    return { text: decode("windows-1252", bytes), encoding: "Windows-1252", ...exampleOfWindows1252(bytes) };
  }
}

function decode(encoding, bytes) {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new TableError("encoding", { line: "–" });
  }
}

/** A word of a file that is Windows-1252, and its line; raises TableError when it is UTF-8 with faults, or neither. */
function exampleOfWindows1252(bytes) {
  const lines = new TextDecoder("utf-8").decode(bytes).split("\n");
  const invalid = lines.filter((line) => line.includes("\uFFFD")).length;
  const valid = lines.filter((line) => /[^\0-\x7F]/.test(line) && !line.includes("\uFFFD")).length;
  const line = 1 + lines.findIndex((text) => text.includes("\uFFFD"));
  const undefinedBytes = bytes.some((byte) => [0x81, 0x8d, 0x8f, 0x90, 0x9d].includes(byte));
  if (valid >= invalid || undefinedBytes) throw new TableError("encoding", { line });
  const words = decode("windows-1252", bytes).split("\n")[line - 1];
  return { example: words.match(/[^\s,;|"]*[^\0-\x7F][^\s,;|"]*/)?.[0].slice(0, 40) ?? "", line };
}

/** The separator that Excel's first line names, or else the one that fits the sample best; and where the table starts. */
function formOf(text, known) {
  const named = text.match(/^"?sep=([^"\r\n]?)"?(?:\r\n?|\n|$)/i);
  const start = named ? named[0].length : 0;
  const sample = text.slice(start, SAMPLE);
  let separator = named?.[1] || ",";
  if (!named) {
    const fits = SEPARATORS.map((candidate) => fit(sample, candidate, known));
    separator = SEPARATORS[fits.reduce((best, candidate, index) => (better(candidate, fits[best]) ? index : best), 0)];
  }
  const header = sampleRows(sample, separator)[0] ?? [];
  return { separator, padded: header.slice(1).some((name) => name.startsWith(" ")), start };
}

/** How well a separator fits, compared in this order: known columns, rows as wide as the header, columns. */
function fit(sample, separator, names) {
  const rows = sampleRows(sample, separator);
  if (!rows.length) return [0, 0, 0];
  const width = rows[0].length;
  const alike = width > 1 ? rows.filter((row) => row.length === width).length / rows.length : 0;
  const known = new Set(rows[0].map(plainName).filter((name) => names.includes(name)));
  return [known.size, alike, width];
}

function better(one, other) {
  const index = one.findIndex((value, at) => value !== other[at]);
  return index >= 0 && one[index] > other[index];
}

function sampleRows(sample, separator) {
  const rows = [];
  try {
    for (const { cells } of parse(sample, separator, false)) if (rows.push(cells) === SAMPLE_ROWS) break;
  } catch {
    // A quote that the end of the sample left open, or a fault that is reported when it is read.
  }
  return rows;
}

/** Rows that are not blank, with the line that each begins in. Raises TableError for a misplaced quote, with the line of that quote. */
function* parse(text, separator, padded, start = 0) {
  let line = start ? 2 : 1;
  let first = line;
  let opened = line;
  let cells = [];
  let cell = "";
  let state = "start"; // of a cell; then in a "bare" or "quoted" one, or "closed" behind its quote
  for (let at = start; at < text.length; at += 1) {
    const sign = text[at];
    const end = sign === "\n" || (sign === "\r" && text[at + 1] !== "\n");
    if (end) line += 1;
    if (state === "quoted") {
      if (sign !== '"') cell += sign;
      else if (text[at + 1] === '"') cell += text[(at += 1)];
      else state = "closed";
    } else if (end) {
      cells.push(cell);
      if (cells.some(shows)) yield { line: first, cells };
      [first, cells, cell, state] = [line, [], "", "start"];
    } else if (sign === "\r") continue; // its line feed follows
    else if (sign === separator) {
      cells.push(cell);
      [cell, state] = ["", "start"];
    } else if (state === "closed") throw new TableError("text-after-quote", { line: opened });
    else if (state === "start" && sign === '"') [opened, state] = [line, "quoted"];
    else if (state === "bare" || sign !== " " || !padded) {
      cell += sign;
      state = "bare";
    }
  }
  if (state === "quoted") throw new TableError("open-quote", { line: opened });
  cells.push(cell);
  if (cells.some(shows)) yield { line: first, cells };
}

/**
 * A table as CSV. Numbers stay as they are; a text that a spreadsheet would take for a formula gets an apostrophe in front
 * (the list of signs is that of OWASP's page on CSV injection), and so does one that has apostrophes in front of it already.
 * @param {(string | number | null | undefined)[][]} rows
 */
export function writeCsv(rows) {
  return rows.map((row) => `${row.map(cellOf).join(",")}\r\n`).join("");
}

const FORMULA = /^'*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/;

function cellOf(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const harmless = FORMULA.test(text) ? `'${text}` : text;
  return /[",;\t\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/** A cell without the apostrophe that was put in front when it was written. */
const restored = (cell) => (cell.startsWith("'") && FORMULA.test(cell) ? cell.slice(1) : cell);
