// Several chosen files, a folder, or whatever was dropped; and the rows that they make.

import { isBlank } from "./blank.js";
import { TableError, columnsOf, isTable, readTable } from "./csv.js";
import { isPictures, namesOf, setOf, takes } from "./inputs.js";
import { count, listed, message, messageFor } from "./messages.js";

const TEXT = /\.txt$/i; // a table if it has our columns: spreadsheets save “Unicode text” so
const WORKBOOK = /\.(xlsx|xlsm|xlsb|xls|ods|numbers)$/i;
const SEPARATOR_NAMES = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar" };

/** @typedef {{path: string, file: File}} ChosenFile a file, and its path in the chosen folder */
/** @typedef {import("./inputs.js").Input} Input */
/** @typedef {{number: number, values: import("./inputs.js").Values, cells: Record<string, string>, label: string, problem: string}} Row a path or a text in each cell, by input */

/** @param {FileList} list @returns {ChosenFile[]} */
export const filesOf = (list) => [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

/**
 * Everything that was dropped, folders opened; must be called while the event lasts.
 * @param {DataTransfer} dropped
 * @returns {Promise<ChosenFile[]>}
 */
export async function filesDropped(dropped) {
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return filesOf(dropped.files);
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // about a hundred at a time
    if (!some.length) return (await Promise.all(inside.map(filesIn))).flat();
    inside.push(...some);
  }
}

/** Those files that may be meant for an input. @param {ChosenFile[]} chosen @param {Input[]} inputs */
export const usableFiles = (chosen, inputs) => chosen.filter(({ file }) => inputs.some((input) => takes(input, file)));

/**
 * The rows that files make: those of a table, whose inputs are among the files, or else one for each file. And
 * notes about how the table was read.
 * @param {ChosenFile[]} chosen
 * @param {Input[]} inputs
 * @returns {Promise<{rows: Row[], notes: string[]}>}
 */
export async function rowsOf(chosen, inputs) {
  const files = [...chosen].sort((one, other) => one.path.localeCompare(other.path));
  const usable = usableFiles(files, inputs);
  const table = await tableOf(chosen, usable.length > 0, inputs);
  if (!table && !usable.length) {
    const workbook = chosen.find(({ file }) => WORKBOOK.test(file.name));
    if (workbook) throw new Error(message("batch.workbook", { name: workbook.path }));
  }
  if (table) return { rows: tableRows(table, files, inputs), notes: notesOf(table, inputs) };
  const rows = usable.map(({ path, file }, index) => {
    const { name } = inputs.find((input) => takes(input, file));
    return { number: index + 1, values: { [name]: file }, cells: { [name]: path }, label: "", problem: "" };
  });
  return { rows, notes: [] };
}

/** The first table among files. A .txt next to other files may be anything, so there it is one only with our columns. */
async function tableOf(chosen, lenient, inputs) {
  const table = chosen.find(({ file }) => isTable(file));
  if (table) return checkColumns(await readFile(table, inputs), inputs);
  for (const text of chosen.filter(({ file }) => TEXT.test(file.name))) {
    try {
      return checkColumns(await readFile(text, inputs), inputs);
    } catch (problem) {
      if (!lenient) throw problem;
    }
  }
  return null;
}

async function readFile({ path, file }, inputs) {
  try {
    return { name: path, ...readTable(new Uint8Array(await file.arrayBuffer()), namesOf(inputs)) };
  } catch (problem) {
    if (problem instanceof TableError) throw new Error(message(`batch.${problem.code}`, { name: path, ...problem.values }));
    throw problem;
  }
}

function checkColumns(table, inputs) {
  const names = namesOf(inputs);
  if (names.some((name) => table.columns.includes(name))) return table;
  const columns = [...table.columns.join(", ")].slice(0, 120).join("") || "–";
  const values = { name: table.name, columns, separator: separatorName(table), inputs: listed(names) };
  throw new Error(messageFor("batch.no-columns", setOf(inputs), values));
}

const separatorName = ({ separator }) => (separator in SEPARATOR_NAMES ? message(`batch.${SEPARATOR_NAMES[separator]}`) : separator);

/** What differs from plain CSV in UTF-8, and which columns are not used. */
function notesOf(table, inputs) {
  const { name, encoding, example, separator, columns } = table;
  const notes = [];
  if (encoding !== "UTF-8" || separator !== (/\.tsv$/i.test(name) ? "\t" : ",")) {
    const values = { name, encoding, separator: separatorName(table), example };
    notes.push(message(example ? "batch.read-as-guess" : "batch.read-as", values));
  }
  const ignored = columns.filter((column) => column && !columnsOf(namesOf(inputs)).includes(column));
  if (ignored.length) notes.push(message("batch.ignored", { columns: [...ignored.join(", ")].slice(0, 120).join("") }));
  return notes;
}

/** @returns {Row[]} */
function tableRows(table, files, inputs) {
  const isFor = (input, file) => (isPictures(input) ? takes(input, file) : !isTable(file)); // browsers don't have a type for every file
  const finders = new Map(inputs.map((input) => [input.name, finder(files.filter(({ file }) => isFor(input, file)))]));
  return table.rows.map(({ cells: all, spare }, index) => {
    const cells = {};
    const values = {};
    let missing = "";
    for (const input of inputs) {
      const { name, textual } = input;
      cells[name] = (all[name] ?? "").trim();
      if (isBlank(cells[name])) continue;
      const value = textual ? cells[name] : finders.get(name)(cells[name]);
      if (value) values[name] = value;
      else missing ||= message(isPictures(input) ? "batch.no-picture" : "batch.no-file", { path: cells[name] });
    }
    const nothing = Object.keys(values).length ? "" : messageFor("batch.nothing", setOf(inputs));
    const [width, separator] = [table.columns.length, separatorName(table)];
    const extra = spare ? message("batch.too-many-cells", { cells: count(width + spare), columns: count(width), separator }) : "";
    return { number: index + 1, values, cells, label: (all.label ?? "").trim(), problem: extra || missing || nothing };
  });
}

/** Finds a file by the path that a table gives it: the whole of it, the end of it, or, where that is only one, its name. */
function finder(files) {
  const byPath = new Map(files.map(({ path, file }) => [path, file]));
  const byName = new Map();
  for (const { file } of files) byName.set(file.name, byName.has(file.name) ? null : file);
  return (path) => {
    const name = path.replaceAll("\\", "/").replace(/^(\.?\/)+/, "");
    const ending = files.find((candidate) => candidate.path.endsWith(`/${name}`));
    return byPath.get(name) ?? ending?.file ?? byName.get(name.split("/").at(-1)) ?? null;
  };
}
