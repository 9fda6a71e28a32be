// The model's card: what it knows, how good it is and on what, and what it was trained on, as its report tells it.

import { certaintyLine } from "./certainty.js";
import { kindOf, setName } from "./answer.js";
import { bar, element, make, segmented } from "./dom.js";
import { inputName } from "./inputs.js";
import { confusionTable, reliabilityPlot } from "./plots.js";
import { count, known, measure, percent, say, sayCount } from "./say.js";

/** Which measures a target's table shows; those from 0 to 1 as percentages. */
const FIGURES = {
  "single-label": ["accuracy", "macro_f1", "accuracy_at_90_percent_coverage", "calibration_error"],
  "multi-label": ["macro_f1", "micro_f1", "mean_average_precision", "exact_match", "calibration_error"],
  regression: ["mae", "rmse", "r2", "coverage", "mean_interval_width"],
};
const SHARES = new Set([...FIGURES["single-label"], ...FIGURES["multi-label"], "coverage"]);
const PARTS = ["test", "unseen", "validation"];

/** @param {any} model as described by the service; null where that is not known @param {string} [why] */
export function drawCard(model, why = "") {
  if (!model) {
    element("card-lead").textContent = why;
    element("card").replaceChildren();
    return;
  }
  element("card-lead").textContent = introduction(model.card) || say("card.lead");
  element("card").replaceChildren(facts(model), ...quality(model), ...origins(model), wholeCard(model));
}

/** The first paragraph below the card's title. */
const introduction = (card) => card.split(/\n\s*\n/).find((part) => part.trim() && !part.startsWith("#"))?.trim() ?? "";

function panel(title, ...children) {
  const id = `card-${title.replace(/\W+/g, "-")}`;
  return make("section", { class: "panel", "aria-labelledby": id }, make("h2", { id }, title), ...children);
}

function facts({ name, target, runtime, digest, labels, thresholds, inputs, report }) {
  const trained = report?.data?.split?.labels?.train ?? {};
  const chips = labels.map((label) => {
    const content = [label];
    if (trained[label] !== undefined) content.push(make("small", {}, count(trained[label])));
    if (thresholds) content.push(make("small", {}, say("card.from", { threshold: percent(thresholds[label]) })));
    return make("span", { class: "chip" }, ...content);
  });
  const terms = [
    [say("card.name"), name],
    [say("card.target"), known(`target.${target}`) ? say(`target.${target}`) : target],
    [say("card.runtime"), runtime],
    [say("card.digest"), make("code", { title: digest }, `${digest.slice(0, 16)}…`)],
    ...inputs.map((input) => [inputName(input.name), limitWords(input)]),
  ];
  return panel(
    say("card.facts"),
    make("dl", { class: "facts" }, ...terms.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)))),
    ...(labels.length
      ? [make("h3", {}, sayCount("card.labels", labels.length)), make("div", { class: "chips" }, ...chips)]
      : []),
    ...(Object.keys(trained).length ? [make("p", { class: "fine" }, say("card.labels-note"))] : []),
  );
}

function limitWords({ limits }) {
  return Object.entries(limits)
    .map(([name, value]) => (known(`limit.${name}`) ? say(`limit.${name}`, { number: count(value) }) : `${name} ${count(value)}`))
    .join(" · ");
}

function quality(model) {
  const measured = model.report?.metrics ?? {};
  const parts = PARTS.filter((part) => measured[part] && Object.keys(measured[part]).length);
  if (!parts.length) return [panel(say("card.quality"), make("p", {}, say("card.unmeasured")))];
  const body = make("div");
  const figures = make("div");
  const state = { part: parts[0], set: Object.keys(measured[parts[0]])[0] };
  const draw = () => {
    const sets = measured[state.part];
    if (!sets[state.set]) state.set = Object.keys(sets)[0];
    body.replaceChildren(figureTable(model, sets), sourceTable(sets[state.set]));
    figures.replaceChildren(...figuresOf(model, state, sets, draw));
  };
  draw();
  const choice = segmented(say("card.part"), parts.map((part) => [part, say(`part.${part}`)]), state.part, (part) => {
    state.part = part;
    draw();
  });
  return [
    panel(say("card.quality"), parts.length > 1 ? choice : "", body, make("p", { class: "fine" }, say("card.quality-note"))),
    figures,
  ];
}

function figureTable(model, sets) {
  const names = FIGURES[model.target] ?? [];
  const rows = Object.entries(sets).map(([key, measures]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, setName(key), make("small", {}, sayCount("card.items", measures.items))),
      ...names.map((name, index) => figureCell(name, measures, index === 0 ? kindOf(key) : "")),
    ),
  );
  return scrollable(
    say("card.quality"),
    make(
      "table",
      { class: "figures" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, say("card.given")), ...names.map((name) => make("th", { scope: "col" }, say(`figure.${name}`))))),
      make("tbody", {}, ...rows),
    ),
  );
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
    make("span", { class: "chip" }, source, make("small", {}, mae === undefined ? percent(accuracy ?? f1) : measure(mae), " · ", sayCount("card.items", items))),
  );
  return make("div", { class: "sources" }, make("h3", {}, say("card.sources")), make("div", { class: "chips" }, ...chips));
}

function figuresOf(model, state, sets, draw) {
  const measures = sets[state.set];
  const choice = Object.keys(sets).length > 1 ? segmented(say("card.given"), Object.keys(sets).map((key) => [key, setName(key)]), state.set, (key) => {
    state.set = key;
    draw();
    for (const each of document.querySelectorAll(".figure-choice [aria-pressed=true]")) each.focus();
  }) : "";
  const shown = [];
  if (measures.reliability?.length) {
    const single = model.target === "single-label";
    const { line, why } = certaintyLine(model, state.set.split("+"));
    shown.push(
      make(
        "figure",
        {},
        make("figcaption", {}, make("strong", {}, say("plot.reliability-title")), " ", say("plot.reliability-note"), single ? ` ${say("plot.line-note")}` : ""),
        reliabilityPlot(measures.reliability, single ? line : null),
        single ? make("p", { class: "fine" }, why) : null,
      ),
    );
  }
  if (measures.confusion) {
    shown.push(
      make(
        "figure",
        {},
        make("figcaption", {}, make("strong", {}, say("plot.confusion-title")), " ", say("plot.confusion-note")),
        scrollable(say("plot.confusion-title"), confusionTable(measures.confusion, model.labels)),
      ),
    );
  }
  const panels = [];
  if (shown.length) panels.push(panel(say("card.figures"), make("div", { class: "figure-choice" }, choice), make("div", { class: "plots" }, ...shown)));
  if (measures.labels) panels.push(panel(say("card.by-label"), shown.length ? "" : make("div", { class: "figure-choice" }, choice), labelTable(measures.labels)));
  if (panels.length && model.target !== "regression" && !shown.length) panels[0].append(make("p", { class: "fine" }, say("card.no-figures")));
  return panels;
}

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
  const heads = ["label", "items", "precision", "recall", "f1"].map((name) => make("th", { scope: "col" }, say(`by-label.${name}`)));
  return scrollable(say("card.by-label"), make("table", { class: "by-label" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)));
}

function origins({ report }) {
  const items = report?.data?.items;
  if (!items) return [];
  const parts = ["train", ...PARTS].filter((part) => items[part]);
  const sources = [...new Set(parts.flatMap((part) => Object.keys(items[part])))];
  const rows = sources.map((source) => {
    const [, name, licence] = /^(.*) \((.*)\)$/.exec(source) ?? [null, source, ""];
    const amounts = parts.map((part) => make("td", { class: "amount" }, items[part][source] ? count(items[part][source]) : "–"));
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, licence), ...amounts);
  });
  const heads = [say("data.source"), say("data.licence"), ...parts.map((part) => say(`part.${part}`))];
  const { code = {}, preset = "", added } = report;
  return [
    panel(
      say("card.data"),
      scrollable(
        say("card.data"),
        make("table", { class: "data" }, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody", {}, ...rows)),
      ),
      make("p", { class: "fine" }, say("data.note", { preset, revision: (code.revision ?? "–").slice(0, 12), digest: (report.data.digest ?? "–").slice(0, 12) })),
      ...(added ? [make("p", { class: "fine" }, say("data.added", { runtime: added.runtime }))] : []),
    ),
  ];
}

function wholeCard({ card }) {
  return make("details", { class: "panel" }, make("summary", {}, say("card.whole")), make("pre", { class: "prose", tabindex: 0, role: "group", "aria-label": say("card.whole") }, card));
}

/** Wide tables scroll by themselves, by keys too, and leave the page where it is. */
const scrollable = (label, table) => make("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label }, table);
