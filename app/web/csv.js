// Tables as text: read as RFC 4180 has it, and written so that no spreadsheet runs what a cell says.

/**
 * Rows of cells. Commas, semicolons or tabs part them, whichever the first line has; quotes may hold any of these and line ends.
 * @param {string} text
 * @returns {string[][]}
 */
export function parseCsv(text) {
  const table = text.replace(/^\uFEFF/, "");
  const first = table.slice(0, table.search(/[\r\n]|$/));
  const separator = [",", ";", "\t"].find((each) => first.includes(each)) ?? ",";
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let at = 0; at < table.length; at += 1) {
    const sign = table[at];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (table[at + 1] === '"') cell += table[(at += 1)];
      else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === separator) {
      row.push(cell);
      cell = "";
    } else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && table[at + 1] === "\n") at += 1;
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else cell += sign;
  }
  if (cell !== "" || row.length) rows.push([...row, cell]);
  return rows.filter((each) => each.some((content) => content.trim() !== ""));
}

/**
 * A table as CSV. Numbers stay as they are; a text that a spreadsheet would take for a formula gets an apostrophe in front
 * (the list of signs is that of OWASP's page on CSV injection).
 * @param {(string | number | null | undefined)[][]} rows
 */
export function writeCsv(rows) {
  return rows.map((row) => `${row.map(cellOf).join(",")}\r\n`).join("");
}

function cellOf(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const harmless = /^[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/.test(text) ? `'${text}` : text;
  return /[",;\t\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
