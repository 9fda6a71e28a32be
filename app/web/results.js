// The table of many answers: searched, narrowed, sorted, and downloaded.

import { writeCsv } from "./csv.js";
import { bar, element, make } from "./dom.js";
import { inputName, inputsOf, isPictures, namesOf } from "./inputs.js";
import { count, measure, message, messageForCount, percent } from "./messages.js";

const STEP = 200; // rows that are drawn; a button draws more
const KINDS = ["all", "unsure", "wrong", "failed"];

let source = () => ({ rows: [], results: new Map(), model: null });
let sorted = { column: "number", down: false };
let limit = STEP;
const pictures = new WeakMap(); // a file's address, made once

/** @param {() => {rows: any[], results: Map<number, any>, model: any}} results */
export function startResults(results) {
  source = results;
  element("results-show").replaceChildren(...KINDS.map((kind) => make("option", { value: kind }, message(`results.${kind}`))));
  for (const id of ["results-search", "results-show"]) {
    element(id).addEventListener("input", () => {
      limit = STEP;
      drawResults();
    });
  }
  element("download").addEventListener("click", download);
  element("results-more").addEventListener("click", () => {
    limit += STEP;
    drawResults();
  });
}

/** The columns: what they show and what they are sorted by. */
function columnsOf(inputs) {
  const fixed = (name, value, cell) => ({ key: name, title: message(`results.column-${name}`), value, cell });
  return [
    fixed("number", ({ row }) => row.number, ({ row }) => make("td", { class: "amount" }, count(row.number))),
    ...inputs.map((input) => ({
      key: `input-${input.name}`,
      kind: input.textual ? "text" : "file",
      title: inputName(input.name),
      value: ({ row }) => row.cells[input.name] ?? "",
      cell: ({ row }) => inputCell(input, row),
    })),
    fixed("label", ({ row }) => row.label, ({ row }) => make("td", {}, row.label)),
    fixed("predicted", ({ predicted }) => predicted, predictedCell),
    fixed("score", ({ score }) => score, ({ problem, score, verdict }) => (problem ? null : make("td", {}, scoreCell(score, verdict)))),
  ];
}

/** Rows with their results. */
function lines() {
  const { rows, results } = source();
  return rows
    .filter(({ number }) => results.has(number))
    .map((row) => {
      const { answer, problem = "", verdict } = results.get(row.number);
      return { row, answer, problem, verdict, ...predictedOf(answer, verdict) };
    });
}

/** The predicted labels or value as text, and a number: the score of the best label, or the value. */
function predictedOf(answer, verdict) {
  if (!answer) return { predicted: "", score: null };
  if (verdict.kind === "number") return { predicted: measure(answer.value), score: answer.value };
  const chosen = verdict.chosen ? verdict.chosen.map(({ label }) => label).join("|") : verdict.best?.label;
  return { predicted: chosen ?? "", score: verdict.best?.score ?? null };
}

const unsure = ({ verdict }) => verdict?.kind === "unsure" || verdict?.kind === "none";
/** Whether the table's own label is another one; of several labels the order does not count. */
const wrong = ({ row, answer, predicted, verdict }) =>
  Boolean(answer && row.label && verdict.kind !== "number" && labelSet(row.label) !== labelSet(predicted));
const labelSet = (cell) => cell.split("|").map((label) => label.trim()).filter(Boolean).sort().join("|");

function matching() {
  const query = element("results-search").value.trim().toLocaleLowerCase();
  const kind = element("results-show").value;
  const shown = lines().filter((line) => {
    if (kind === "unsure" && !unsure(line)) return false;
    if (kind === "failed" && !line.problem) return false;
    if (kind === "wrong" && !wrong(line)) return false;
    const { row, predicted, problem } = line;
    return !query || [...Object.values(row.cells), row.label, predicted, problem].some((text) => text.toLocaleLowerCase().includes(query));
  });
  const columns = columnsOf(inputsOf(source().model));
  const { value } = columns.find(({ key }) => key === sorted.column) ?? columns[0];
  shown.sort((one, other) => compare(value(one), value(other)) * (sorted.down ? -1 : 1));
  return shown;
}

function compare(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  return typeof one === "number" ? one - other : one.localeCompare(other);
}

export function drawResults() {
  const all = lines();
  const shown = matching();
  const labelled = all.filter(({ row, answer, verdict }) => row.label && answer && verdict.kind !== "number");
  const columns = columnsOf(inputsOf(source().model)).filter(({ key }) => key !== "label" || all.some(({ row }) => row.label));
  element("results").replaceChildren(
    make("thead", {}, make("tr", {}, ...columns.map(heading))),
    make("tbody", {}, ...shown.slice(0, limit).map((line) => make("tr", {}, ...columns.map(({ cell }) => cell(line))))),
  );
  const words = [messageForCount("results.shown", shown.length, { all: count(all.length) })];
  words.push(messageForCount("results.unsure-count", all.filter(unsure).length));
  const failed = all.filter(({ problem }) => problem).length;
  if (failed) words.push(messageForCount("results.failed-count", failed));
  if (labelled.length) {
    const right = labelled.filter((line) => !wrong(line)).length;
    words.push(message("results.right", { right: count(right), labelled: count(labelled.length), share: percent(right / labelled.length) }));
  }
  element("results-count").textContent = words.join(" · ");
  element("results-more").hidden = shown.length <= limit;
  element("results-more").textContent = message("results.more", { count: count(Math.min(STEP, shown.length - limit)) });
}

function heading({ key, kind = key, title }) {
  const order = sorted.column === key ? (sorted.down ? "descending" : "ascending") : "none";
  const sort = () => {
    sorted = { column: key, down: sorted.column === key ? !sorted.down : key === "score" };
    drawResults();
    element("results").querySelector(`[data-column="${key}"]`).focus();
  };
  const button = make("button", { type: "button", "data-column": key, click: sort }, title);
  return make("th", { scope: "col", "aria-sort": order, class: `column-${kind}` }, button);
}

function inputCell(input, { cells, values }) {
  const words = cells[input.name] || "–";
  if (input.textual) return make("td", { class: "words" }, words);
  return make("td", {}, make("span", { class: "file" }, isPictures(input) ? thumbnail(values[input.name]) : null, make("span", {}, words)));
}

function predictedCell(line) {
  if (line.problem) return make("td", { colspan: 2, class: "failed" }, line.problem);
  return make("td", {}, ...predictedWords(line, line.predicted, line.verdict));
}

function predictedWords(line, predicted, verdict) {
  const words = [make("strong", {}, predicted || message("answer.none"))];
  if (verdict.kind === "unsure") words.push(" ", make("span", { class: "chip unsure" }, message("results.not-sure")));
  if (wrong(line)) words.push(" ", make("span", { class: "chip wrong" }, message("results.differs")));
  return words;
}

function scoreCell(score, verdict) {
  if (score === null || verdict.kind === "number") return "";
  return make("span", { class: "pair" }, bar(score, verdict.kind === "unsure" ? "unsure" : "both"), make("span", { class: "amount" }, percent(score)));
}

/** A small picture of a file; an empty frame without one. */
export function thumbnail(image) {
  if (!image) return make("span", { class: "no-picture" });
  if (!pictures.has(image)) pictures.set(image, URL.createObjectURL(image));
  return make("img", { src: pictures.get(image), alt: "", width: 36, height: 36, loading: "lazy" });
}

/** Download the rows that are shown, in their order. */
function download() {
  const { model } = source();
  const labels = model?.labels ?? [];
  const names = namesOf(inputsOf(model));
  const head = [...names, "label", "prediction", "score", "unsure", "low", "high", "problem", "model", "digest"];
  const rows = matching().map((line) => {
    const { row, answer, problem, predicted, score } = line;
    const scores = new Map((answer?.labels ?? []).map(({ label, score: value }) => [label, value]));
    return [
      ...[...names.map((name) => row.cells[name]), row.label, answer?.value ?? predicted, score, answer ? String(unsure(line)) : ""],
      ...[answer?.interval?.low, answer?.interval?.high, problem, answer?.model, answer?.digest],
      ...labels.map((label) => scores.get(label)),
    ];
  });
  const content = writeCsv([[...head, ...labels.map((label) => `score: ${label}`)], ...rows]);
  const address = URL.createObjectURL(new Blob(["\uFEFF", content], { type: "text/csv" }));
  make("a", { href: address, download: "polymodal-results.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
