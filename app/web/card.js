// The model's card: its labels, how good it is and on what data, and what it was trained on, from its report.

import { certaintyLine } from "./certainty.js";
import { kindOf, setName } from "./answer.js";
import { bar, element, make, segmented, table } from "./dom.js";
import { inputName } from "./inputs.js";
import { confusionTable, reliabilityPlot } from "./plots.js";
import { count, measure, message, messageForCount, messageOr, percent } from "./messages.js";

/** Which measures a target's table shows; those from 0 to 1 as percentages. */
const FIGURES = {
  "single-label": ["accuracy", "macro_f1", "accuracy_at_90_percent_coverage", "calibration_error"],
  "multi-label": ["macro_f1", "micro_f1", "mean_average_precision", "exact_match", "calibration_error"],
  regression: ["mae", "rmse", "r2", "coverage", "mean_interval_width"],
};
const SHARES = new Set([...FIGURES["single-label"], ...FIGURES["multi-label"], "coverage"]);
const SPLITS = ["test", "unseen", "validation"];

/** @param {any} model as described by the service; null where that is not known @param {string} [why] */
export function drawCard(model, why = "") {
  if (!model) {
    element("card-lead").textContent = why;
    element("card").replaceChildren();
    return;
  }
  element("card-lead").textContent = introduction(model.card) || message("card.lead");
  element("card").replaceChildren(facts(model), ...quality(model), ...origins(model), wholeCard(model));
}

/** The first paragraph below the card's title. */
const introduction = (card) => card.split(/\n\s*\n/).find((paragraph) => paragraph.trim() && !paragraph.startsWith("#"))?.trim() ?? "";

function panel(title, ...children) {
  const id = `card-${title.replace(/\W+/g, "-")}`;
  return make("section", { class: "panel", "aria-labelledby": id }, make("h2", { id }, title), ...children);
}

function facts({ name, target, runtime, digest, labels, thresholds, inputs, report }) {
  const trained = report?.data?.split?.labels?.train ?? {};
  const chips = labels.map((label) => {
    const content = [label];
    if (trained[label] !== undefined) content.push(make("small", {}, count(trained[label])));
    if (thresholds) content.push(make("small", {}, message("card.from", { threshold: percent(thresholds[label]) })));
    return make("span", { class: "chip" }, ...content);
  });
  const terms = [
    [message("card.name"), name],
    ...(target ? [[message("card.target"), messageOr(`target.${target}`, target)]] : []),
    [message("card.runtime"), runtime],
    [message("card.digest"), make("code", { title: digest }, `${digest.slice(0, 16)}…`)],
    ...inputs.map((input) => [inputName(input.name), limitWords(input)]),
  ];
  return panel(
    message("card.facts"),
    make("dl", { class: "facts" }, ...terms.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)))),
    ...(labels.length
      ? [make("h3", {}, messageForCount("card.labels", labels.length)), make("div", { class: "chips" }, ...chips)]
      : []),
    ...(Object.keys(trained).length ? [make("p", { class: "fine" }, message("card.labels-note"))] : []),
  );
}

function limitWords({ limits }) {
  return Object.entries(limits)
    .map(([name, value]) => messageOr(`limit.${name}`, `${name} ${count(value)}`, { number: count(value) }))
    .join(" · ");
}

function quality(model) {
  const measured = model.report?.metrics ?? {};
  const splits = SPLITS.filter((split) => measured[split] && Object.keys(measured[split]).length);
  if (!splits.length) return [panel(message("card.quality"), make("p", {}, message("card.unmeasured")))];
  const body = make("div");
  const figures = make("div");
  const state = { split: splits[0], set: Object.keys(measured[splits[0]])[0] };
  const draw = () => {
    const sets = measured[state.split];
    if (!sets[state.set]) state.set = Object.keys(sets)[0];
    body.replaceChildren(figureTable(model, sets), sourceTable(sets[state.set]));
    figures.replaceChildren(...figuresOf(model, state, sets, draw));
  };
  draw();
  const choice = segmented(message("card.split"), splits.map((split) => [split, message(`split.${split}`)]), state.split, (split) => {
    state.split = split;
    draw();
  });
  return [
    panel(message("card.quality"), splits.length > 1 ? choice : "", body, make("p", { class: "fine" }, message("card.quality-note"))),
    figures,
  ];
}

function figureTable(model, sets) {
  const names = FIGURES[model.target] ?? [];
  const rows = Object.entries(sets).map(([key, measures]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, setName(key), make("small", {}, messageForCount("card.items", measures.items))),
      ...names.map((name, index) => figureCell(name, measures, index === 0 ? kindOf(key) : "")),
    ),
  );
  const heads = [message("card.given"), ...names.map((name) => message(`figure.${name}`))];
  return scrollable(message("card.quality"), table({ class: "figures" }, heads, rows));
}

function figureCell(name, measures, kind) {
  const value = measures[name];
  if (typeof value !== "number") return make("td", {}, "–");
  const words = SHARES.has(name) ? percent : measure;
  const interval = measures.intervals?.[name];
  return make(
    "td",
    {},
    make("strong", {}, words(value)),
    interval ? make("small", {}, `${words(interval[0])} – ${words(interval[1])}`) : null,
    kind && SHARES.has(name) ? bar(value, kind) : null,
  );
}

function sourceTable(measures) {
  const sources = Object.entries(measures.sources ?? {});
  if (sources.length < 2) return "";
  const chips = sources.map(([source, { items, accuracy, macro_f1: f1, mae }]) =>
    make("span", { class: "chip" }, source, make("small", {}, mae === undefined ? percent(accuracy ?? f1) : measure(mae), " · ", messageForCount("card.items", items))),
  );
  return make("div", { class: "sources" }, make("h3", {}, message("card.sources")), make("div", { class: "chips" }, ...chips));
}

function figuresOf(model, state, sets, draw) {
  const measures = sets[state.set];
  const choice = Object.keys(sets).length > 1 ? segmented(message("card.given"), Object.keys(sets).map((key) => [key, setName(key)]), state.set, (key) => {
    state.set = key;
    draw();
    document.querySelector(".figure-choice [aria-pressed=true]")?.focus();
  }) : "";
  const shown = [];
  if (measures.reliability?.length) {
    const single = model.target === "single-label";
    const { line, why } = certaintyLine(model, state.set.split("+"));
    const caption = [message("plot.reliability-note"), ...(single ? [message("plot.line-note")] : [])].join(" ");
    const plot = reliabilityPlot(measures.reliability, single ? line : null);
    shown.push(figure(message("plot.reliability-title"), caption, plot, single ? make("p", { class: "fine" }, why) : null));
  }
  if (measures.confusion) {
    const title = message("plot.confusion-title");
    shown.push(figure(title, message("plot.confusion-note"), scrollable(title, confusionTable(measures.confusion, model.labels))));
  }
  const panels = [];
  if (shown.length) panels.push(panel(message("card.figures"), make("div", { class: "figure-choice" }, choice), make("div", { class: "plots" }, ...shown)));
  if (measures.labels) panels.push(panel(message("card.by-label"), shown.length ? "" : make("div", { class: "figure-choice" }, choice), labelTable(measures.labels)));
  if (panels.length && model.target !== "regression" && !shown.length) panels[0].append(make("p", { class: "fine" }, message("card.no-figures")));
  return panels;
}

const figure = (title, caption, ...children) => make("figure", {}, make("figcaption", {}, make("strong", {}, title), " ", caption), ...children);

function labelTable(labels) {
  const rows = Object.entries(labels).map(([label, { items, precision, recall, f1 }]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, label),
      make("td", { class: "amount" }, count(items)),
      make("td", { class: "amount" }, percent(precision)),
      make("td", { class: "amount" }, percent(recall)),
      make("td", {}, make("span", { class: "pair" }, bar(f1, "both"), make("span", { class: "amount" }, percent(f1)))),
    ),
  );
  const heads = ["label", "items", "precision", "recall", "f1"].map((name) => message(`by-label.${name}`));
  return scrollable(message("card.by-label"), table({ class: "by-label" }, heads, rows));
}

function origins({ report }) {
  const items = report?.data?.items;
  if (!items) return [];
  const splits = ["train", ...SPLITS].filter((split) => items[split]);
  const sources = [...new Set(splits.flatMap((split) => Object.keys(items[split])))];
  const rows = sources.map((source) => {
    const [, name, licence] = /^(.*) \((.*)\)$/.exec(source) ?? [null, source, ""];
    const amounts = splits.map((split) => make("td", { class: "amount" }, items[split][source] ? count(items[split][source]) : "–"));
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, licence), ...amounts);
  });
  const heads = [message("data.source"), message("data.licence"), ...splits.map((split) => message(`split.${split}`))];
  const { code = {}, preset = "", added } = report;
  return [
    panel(
      message("card.data"),
      scrollable(message("card.data"), table({ class: "data" }, heads, rows)),
      make("p", { class: "fine" }, message("data.note", { preset, revision: (code.revision ?? "–").slice(0, 12), digest: (report.data.digest ?? "–").slice(0, 12) })),
      ...(added ? [make("p", { class: "fine" }, message("data.added", { runtime: added.runtime }))] : []),
    ),
  ];
}

function wholeCard({ card }) {
  return make("details", { class: "panel" }, make("summary", {}, message("card.whole")), make("pre", { class: "prose", tabindex: 0, role: "group", "aria-label": message("card.whole") }, card));
}

/** Wide tables scroll by themselves, by keys too, and leave the page where it is. */
const scrollable = (label, table) => make("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label }, table);
