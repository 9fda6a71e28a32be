// Many items at once: a table with its pictures, or a folder of them; a few requests at a time, results in a table.

import { Problem, classify, pause } from "./api.js";
import { verdictOf } from "./certainty.js";
import { writeCsv } from "./csv.js";
import { element } from "./dom.js";
import { EXAMPLES, exampleFor, openExample } from "./examples.js";
import { filesDropped, filesOf, rowsOf, usableFiles } from "./files.js";
import { inputsOf, isPictures, namesOf, sampleFile, setOf } from "./inputs.js";
import { drawResults, startResults } from "./results.js";
import { count, message, messageFor, messageForCount } from "./messages.js";

const AT_ONCE = 4; // enough to fill the service's batches, few enough to leave room for others
const ATTEMPTS = 5; // of one row, where a busy service sends no Retry-After
const SHOW_MS = 200;
const WAIT_S = 1; // where a busy service sends no Retry-After

/** @type {import("./files.js").ChosenFile[]} */
let chosen = [];
/** @type {import("./files.js").Row[]} */
let rows = [];
/** Notes about how the table was read. @type {string[]} */
let notes = [];
/** @type {Map<number, {answer?: any, problem?: string, verdict?: any}>} by the row's number */
let results = new Map();
let running = null;
/** Time until which all rows wait, because the service was too busy for one of them. */
let restUntil = 0;
let currentModel = () => null;
/** The inputs that the rows were made for. */
let rowsFor = "";

/** @param {() => any} model returns the chosen model */
export function startBatch(model) {
  currentModel = model;
  startResults(() => ({ rows, results, model: currentModel() }));
  for (const id of ["batch-files", "batch-folder"]) {
    element(id).addEventListener("change", ({ target }) => {
      add(filesOf(target.files));
      target.value = "";
    });
  }
  element("batch-examples").addEventListener("click", takeExamples);
  element("batch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  element("batch-cancel").addEventListener("click", () => running?.abort());
  element("batch-clear").addEventListener("click", clear);
  clear();
}

/** Take what was dropped anywhere on the page. @param {DataTransfer} dropped */
export const dropBatch = async (dropped) => add(await filesDropped(dropped));

/** Another model was chosen: the answers of the other one are no longer shown, nor rows for other inputs. */
export function clearResults() {
  if (setOf(inputsOf(currentModel())) !== rowsFor) {
    clear();
    return;
  }
  running?.abort();
  results = new Map();
  show();
}

function clear() {
  running?.abort();
  chosen = [];
  rows = [];
  notes = [];
  results = new Map();
  rowsFor = setOf(inputsOf(currentModel()));
  showProblem("");
  show();
}

async function takeExamples() {
  if (running) return;
  clear();
  let pictures;
  try {
    pictures = await Promise.all(EXAMPLES.map(({ file }) => openExample(file)));
  } catch (problem) {
    showProblem(problem.message);
    return;
  }
  const inputs = inputsOf(currentModel());
  chosen = pictures.map((file) => ({ path: file.name, file }));
  rows = EXAMPLES.map(({ file, text }, index) => ({
    number: index + 1,
    values: exampleFor(inputs, pictures[index], text),
    cells: exampleFor(inputs, file, text),
    label: "",
    problem: "",
  }));
  show();
  run();
}

/** More files: a table and its pictures may come one after the other. */
async function add(more) {
  if (running) return;
  chosen = [...chosen, ...more];
  results = new Map();
  try {
    ({ rows, notes } = await rowsOf(chosen, inputsOf(currentModel())));
    showProblem(rows.length ? "" : messageFor("batch.no-rows", setOf(inputsOf(currentModel()))));
  } catch (problem) {
    chosen = chosen.filter((file) => !more.includes(file));
    showProblem(problem.message);
  }
  show();
}

async function run() {
  const pending = rows.filter((row) => !results.get(row.number)?.answer);
  if (!pending.length || running) return;
  running = new AbortController();
  const { signal } = running;
  const model = currentModel();
  restUntil = 0;
  results = new Map([...results].filter(([, result]) => result.answer));
  showProblem("");
  show();
  const queue = pending[Symbol.iterator](); // shared by the loops below
  await Promise.all(Array.from({ length: AT_ONCE }, () => work(queue, model, signal)));
  running = null;
  show();
}

async function work(queue, model, signal) {
  for (const row of queue) {
    try {
      results.set(row.number, await answerRow(row, model, signal));
    } catch (error) {
      if (signal.aborted) return;
      results.set(row.number, { problem: error.message });
      if (error instanceof Problem && ["unauthorized", "forbidden", "unreachable"].includes(error.code)) {
        showProblem(error.message);
        running?.abort(); // every other row would fail, too
        return;
      }
    }
    scheduleShow();
  }
}

async function answerRow(row, model, signal) {
  if (row.problem) return { problem: row.problem };
  for (let attempt = 1; ; attempt += 1) {
    while (restUntil > performance.now()) await pause((restUntil - performance.now()) / 1000, signal);
    signal.throwIfAborted();
    try {
      const answer = await classify(row.values, model?.name, signal);
      return { answer, verdict: verdictOf(answer, model) };
    } catch (error) {
      const later = error instanceof Problem && (error.status === 429 || error.status === 503);
      const hopeless = error.retryAfter === null && attempt === ATTEMPTS;
      if (!later || hopeless) throw error instanceof Problem && error.detail ? new RowProblem(error) : error;
      restUntil = Math.max(restUntil, performance.now() + 1000 * (error.retryAfter ?? WAIT_S));
      scheduleShow();
    }
  }
}

/** A problem with its detail in its message, as a table has room for one sentence. */
class RowProblem extends Problem {
  constructor(problem) {
    super(problem);
    this.message = `${problem.message} ${problem.detail}`;
  }
}

let scheduled = false;
/** Draw a few times a second at most, however fast answers come. */
function scheduleShow() {
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    show();
  }, SHOW_MS);
}

function showProblem(text) {
  element("batch-trouble").textContent = text;
  element("batch-trouble").hidden = !text;
}

function show() {
  const done = results.size;
  const busy = Boolean(running);
  const left = rows.filter((row) => !results.get(row.number)?.answer).length;
  element("batch-state").textContent = rows.length ? stateWords() : "";
  element("batch-form-of").hidden = rows.length > 0;
  element("batch-sample").textContent = sampleTable(inputsOf(currentModel()));
  element("batch-run").hidden = !rows.length;
  element("batch-start").hidden = busy || !left;
  element("batch-start").textContent = message(done ? "batch.go-on" : "batch.start");
  element("batch-cancel").hidden = !busy;
  element("batch-clear").hidden = busy;
  element("batch-progress").hidden = !busy;
  element("batch-progress").value = rows.length ? done / rows.length : 0;
  element("batch-count").textContent = countWords(done, busy);
  element("batch-results").hidden = !done;
  if (done) drawResults();
}

function countWords(done, busy) {
  const words = done ? [message("batch.count", { done: count(done), all: count(rows.length) })] : [];
  const rest = Math.ceil((restUntil - performance.now()) / 1000);
  if (busy && rest > 0) words.push(messageForCount("batch.rest", rest));
  return words.join(" · ");
}

function sampleTable(inputs) {
  const row = ({ file, text }, folder) =>
    inputs.map((input) => (input.textual ? text : isPictures(input) ? folder + file : sampleFile(input)));
  const rows = [namesOf(inputs), row(EXAMPLES[0], ""), row(EXAMPLES[1], "pictures/")];
  const textual = inputs.filter((input) => input.textual);
  if (textual.length && textual.length < inputs.length) {
    const words = messageFor("batch.only-words", setOf(inputs));
    rows.push(inputs.map((input) => (input === textual[0] ? words : "")));
  }
  return writeCsv(rows).replaceAll("\r\n", "\n").trimEnd();
}

function stateWords() {
  const inputs = inputsOf(currentModel());
  const kind = inputs.every((input) => input.textual || isPictures(input)) ? "pictures" : "files";
  const used = rows.flatMap(({ values }) => Object.values(values)).filter((value) => value instanceof File).length;
  const words = [messageForCount("batch.rows", rows.length), messageForCount(`batch.used-${kind}`, used)];
  const bad = rows.filter(({ problem }) => problem).length;
  if (bad) words.push(messageForCount("batch.bad", bad));
  const spare = usableFiles(chosen, inputs).length - used;
  if (spare > 0) words.push(messageForCount(`batch.spare-${kind}`, spare));
  return [...words, ...notes].join(" · ");
}
