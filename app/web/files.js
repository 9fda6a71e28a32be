// Files that come in many at a time: several chosen, a folder, or whatever was dropped; and the rows that they make.

import { isBlank } from "./blank.js";
import { parseCsv } from "./csv.js";
import { count, say } from "./say.js";

const PICTURE = /\.(jpe?g|png|webp|gif|bmp|tiff?)$/i;
const TABLE = /\.(csv|tsv)$/i;
const COLUMNS = ["image", "text"];

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
  return (await Promise.all(entries.map(opened))).flat();
}

async function opened(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // about a hundred at a time
    if (!some.length) return (await Promise.all(inside.map(opened))).flat();
    inside.push(...some);
  }
}

/** Whether this is a table rather than a picture. */
export const isTable = (file) => TABLE.test(file.name) || file.type === "text/csv";
export const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);

/**
 * The rows that files make: those of a table, whose pictures are among the files, or else one for each picture.
 * @param {Found[]} found
 * @returns {Promise<Row[]>}
 */
export async function rowsOf(found) {
  const table = found.find(({ file }) => isTable(file));
  const pictures = found.filter(({ file }) => isPicture(file)).sort((one, other) => one.path.localeCompare(other.path));
  if (!table) {
    return pictures.map(({ path, file }, index) => ({ number: index + 1, name: path, text: "", label: "", image: file, problem: "" }));
  }
  return tableRows(await readText(table.file), pictures, table.path);
}

async function readText(file) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(say("batch.not-utf8", { name: file.name }));
  }
}

/** @returns {Row[]} */
function tableRows(text, pictures, name) {
  const [header = [], ...lines] = parseCsv(text);
  const columns = header.map((cell) => cell.trim().toLowerCase());
  if (!COLUMNS.some((column) => columns.includes(column))) {
    throw new Error(say("batch.no-columns", { name, columns: [...header.join(", ")].slice(0, 120).join("") || "–" }));
  }
  const find = finder(pictures);
  return lines.map((cells, index) => {
    const cell = (column) => (columns.includes(column) ? (cells[columns.indexOf(column)] ?? "").trim() : "");
    const [path, words] = [cell("image"), cell("text")];
    const image = path ? find(path) : null;
    const missing = path && !image ? say("batch.no-picture", { path }) : "";
    const nothing = !path && isBlank(words) ? say("batch.nothing") : "";
    const extra = cells.length > columns.length ? say("batch.too-many-cells", { cells: count(cells.length), columns: count(columns.length) }) : "";
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
