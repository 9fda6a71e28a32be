// Files that come in many at a time: several chosen, a folder, or whatever was dropped; and the rows that they make.

import { isBlank } from "./blank.js";
import { COLUMNS, TableFault, readTable } from "./csv.js";
import { count, say } from "./say.js";

const PICTURE = /\.(jpe?g|jpe|jfif|jif|pjpe?g|pjp|a?png|webp|gif|bmp|dib|tiff?|avifs?|heic|heif|hif)$/i;
const TABLE = /\.(csv|tsv|tab)$/i;
const TEXT = /\.txt$/i; // a table if it has our columns: spreadsheets save “Unicode text” so
const WORKBOOK = /\.(xlsx|xlsm|xlsb|xls|ods|numbers)$/i;
const SEPARATOR_NAMES = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar" };

/** @typedef {{path: string, file: File}} Found a file, and where it lies in what was chosen */
/** @typedef {{number: number, name: string, text: string, label: string, image: File | null, problem: string}} Row */

/** @param {FileList} list @returns {Found[]} */
export const filesOf = (list) => [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

/**
 * Everything that was dropped, folders opened; must be called while the event lasts.
 * @param {DataTransfer} dropped
 * @returns {Promise<Found[]>}
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

/** Whether this is a table rather than a picture. */
export const isTable = (file) => TABLE.test(file.name) || file.type === "text/csv";
export const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);

/**
 * The rows that files make: those of a table, whose pictures are among the files, or else one for each picture. And what is to be
 * said of how the table was read.
 * @param {Found[]} found
 * @returns {Promise<{rows: Row[], notes: string[]}>}
 */
export async function rowsOf(found) {
  const pictures = found.filter(({ file }) => isPicture(file)).sort((one, other) => one.path.localeCompare(other.path));
  const table = await tableOf(found, pictures.length > 0);
  if (!table && !pictures.length) {
    const workbook = found.find(({ file }) => WORKBOOK.test(file.name));
    if (workbook) throw new Error(say("batch.workbook", { name: workbook.path }));
  }
  if (table) return { rows: tableRows(table, pictures), notes: notesOf(table) };
  const rows = pictures.map(({ path, file }, index) => ({ number: index + 1, name: path, text: "", label: "", image: file, problem: "" }));
  return { rows, notes: [] };
}

/** The first table among files. A .txt next to pictures may be anything, so there it is one only with our columns. */
async function tableOf(found, lenient) {
  const table = found.find(({ file }) => isTable(file));
  if (table) return checked(await opened(table));
  for (const text of found.filter(({ file }) => TEXT.test(file.name))) {
    try {
      return checked(await opened(text));
    } catch (problem) {
      if (!lenient) throw problem;
    }
  }
  return null;
}

async function opened({ path, file }) {
  try {
    return { name: path, ...readTable(new Uint8Array(await file.arrayBuffer())) };
  } catch (problem) {
    if (problem instanceof TableFault) throw new Error(say(`batch.${problem.code}`, { name: path, ...problem.values }));
    throw problem;
  }
}

function checked(table) {
  if (table.columns.includes("image") || table.columns.includes("text")) return table;
  const columns = [...table.columns.join(", ")].slice(0, 120).join("") || "–";
  throw new Error(say("batch.no-columns", { name: table.name, columns, separator: separatorName(table) }));
}

const separatorName = ({ separator }) => (separator in SEPARATOR_NAMES ? say(`batch.${SEPARATOR_NAMES[separator]}`) : separator);

/** What differs from plain CSV in UTF-8, and which columns are not used. */
function notesOf(table) {
  const { name, encoding, example, separator, columns } = table;
  const notes = [];
  if (encoding !== "UTF-8" || separator !== (/\.tsv$/i.test(name) ? "\t" : ",")) {
    const values = { name, encoding, separator: separatorName(table), example };
    notes.push(say(example ? "batch.read-as-guess" : "batch.read-as", values));
  }
  const ignored = columns.filter((column) => column && !COLUMNS.includes(column));
  if (ignored.length) notes.push(say("batch.ignored", { columns: [...ignored.join(", ")].slice(0, 120).join("") }));
  return notes;
}

/** @returns {Row[]} */
function tableRows(table, pictures) {
  const find = finder(pictures);
  return table.rows.map(({ cells, spare }, index) => {
    const cell = (column) => (cells[column] ?? "").trim();
    const [path, words] = [cell("image"), cell("text")];
    const image = path ? find(path) : null;
    const missing = path && !image ? say("batch.no-picture", { path }) : "";
    const nothing = !path && isBlank(words) ? say("batch.nothing") : "";
    const [width, separator] = [table.columns.length, separatorName(table)];
    const extra = spare ? say("batch.too-many-cells", { cells: count(width + spare), columns: count(width), separator }) : "";
    return { number: index + 1, name: path, text: words, label: cell("label"), image, problem: extra || missing || nothing };
  });
}

/** Finds a picture by the path that a table gives it: the whole of it, the end of it, or, where that is only one, its name. */
function finder(pictures) {
  const byPath = new Map(pictures.map(({ path, file }) => [path, file]));
  const byName = new Map();
  for (const { file } of pictures) byName.set(file.name, byName.has(file.name) ? null : file);
  return (path) => {
    const wanted = path.replaceAll("\\", "/").replace(/^(\.?\/)+/, "");
    const ending = pictures.find((each) => each.path.endsWith(`/${wanted}`));
    return byPath.get(wanted) ?? ending?.file ?? byName.get(wanted.split("/").at(-1)) ?? null;
  };
}
