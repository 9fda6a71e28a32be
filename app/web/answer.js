// Drawing an answer: the verdict, what each input adds, a bar for every label, and where the time went.

import { certaintyLine, verdictOf } from "./certainty.js";
import { bar, element, make, table } from "./dom.js";
import { exampleFor } from "./examples.js";
import { comparable, inputName, inputsOf, namesOf, setOf } from "./inputs.js";
import { brief, count, hasMessage, measure, message, messageFor, messageOr, percent } from "./messages.js";

const SHOWN = 10; // labels; a button shows the others

/**
 * @typedef {{key: string, answer?: any, problem?: Error}} Result the answer about one set of inputs, or the problem with it; neither while it is awaited
 */

/** Before the first request: describe what the answer will be. */
export function drawNothing(model) {
  const labels = model?.labels ?? [];
  const inputs = inputsOf(model);
  const set = setOf(inputs);
  const chips = labels.slice(0, 24).map((label) => make("span", { class: "chip" }, label));
  if (labels.length > chips.length) chips.push(make("span", { class: "chip" }, message("more", { count: count(labels.length - chips.length) })));
  element("verdict").replaceChildren(
    make("p", { class: "headline quietly" }, message("answer.empty")),
    make("p", { class: "reason" }, messageFor(labels.length ? "answer.labels" : model && !model.target ? leadWithoutTarget(model) : "answer.number", set)),
  );
  const terms = [];
  if (inputs.length > 1) {
    terms.push(["both", setName(set), messageFor("key.together", set)]);
    terms.push([kindOf(inputs[0].name), messageFor("key.alone-title", set), message("key.alone")]);
  }
  if (labels.length) terms.push(["unsure", message("answer.unsure"), message("key.unsure")]);
  const key = terms.map(([kind, term, meaning]) => make("div", { class: kind }, make("dt", {}, term), make("dd", {}, meaning)));
  element("scores").replaceChildren(
    make("div", { class: "chips" }, ...chips),
    make("dl", { class: "key" }, ...key),
    Object.keys(exampleFor(inputs)).length
      ? make("button", { type: "button", class: "primary", click: () => document.querySelector(".example").click() }, message("answer.show-me"))
      : "",
  );
  element("timings").hidden = true;
  element("trouble").hidden = true;
}

/** The message about what a model without labels can do. */
export const leadWithoutTarget = (model) => (comparable(model) ? "try.lead-compare" : "try.lead-vectors");

/** @param {Result[]} results that of all inputs first @param {any} model */
export function drawAnswer(results, model) {
  const [{ answer }] = results;
  element("trouble").hidden = true;
  element("verdict").replaceChildren(...verdictLines(results, model));
  element("scores").replaceChildren(
    answer.value === undefined ? scoreTable(results, model) : valueTable(results),
    answer.value === undefined ? make("p", { class: "fine" }, verdictOf(answer, model).why) : "",
  );
  drawTimings(answer);
}

export function drawProblem(problem) {
  element("trouble").replaceChildren(...problemLines(problem));
  element("trouble").hidden = false;
  for (const id of ["verdict", "scores"]) element(id).replaceChildren();
  element("timings").hidden = true;
}

/** A problem in plain words, with the service's own detail, its code and the request's id. */
export function problemLines(problem) {
  const lines = [make("strong", {}, problem.message)];
  if (problem.detail) lines.push(make("span", {}, problem.detail));
  if (problem.retryAfter) lines.push(make("span", {}, message("problem.again", { seconds: count(problem.retryAfter) })));
  if (problem.code) lines.push(make("code", {}, [problem.code, problem.instance].filter(Boolean).join(" · ")));
  return lines;
}

function verdictLines(results, model) {
  const [{ answer }] = results;
  const { kind, best, chosen } = verdictOf(answer, model);
  const reasons = [];
  let headline;
  if (kind === "number") {
    headline = make("p", { class: "headline" }, make("strong", {}, measure(answer.value)));
    reasons.push(answer.interval ? intervalWords(answer.interval) : message("answer.no-interval"));
  } else if (kind === "sure") {
    headline = make("p", { class: "headline" }, make("strong", {}, best.label), " ", make("span", {}, percent(best.score)));
  } else if (kind === "selected") {
    const chips = chosen.map(({ label, score }) => make("span", { class: "chip chosen" }, `${label} ${percent(score)}`));
    headline = make("p", { class: "headline many" }, ...chips.flatMap((chip, index) => (index ? [" ", chip] : [chip])));
  } else {
    headline = make("p", { class: "headline unsure" }, make("strong", {}, message(kind === "unsure" ? "answer.unsure" : "answer.none")));
    if (best) reasons.push(message("answer.closest", { label: best.label, score: percent(best.score) }));
  }
  reasons.push(whatEachAdds(results, kind, model));
  return [headline, ...reasons.filter(Boolean).map((text) => make("p", { class: "reason" }, text))];
}

/** A sentence that names the input that decided, or the missing one. strings.js has sentences for some sets of inputs. */
function whatEachAdds([whole, ...alone], kind, model) {
  const sentence = (set, key, values) => messageOr(`adds.${set}.${key}`, "", values);
  const used = whole.answer.modalities;
  if (!alone.length) {
    const names = namesOf(model?.inputs ?? []);
    const missing = names.filter((name) => !used.includes(name));
    return missing.length === 1 ? sentence(names.join("+"), `without-${missing[0]}`) : "";
  }
  if (kind === "number" || alone.length !== 2 || !alone.every(({ answer }) => answer?.labels.length)) return "";
  const [best] = whole.answer.labels;
  if (best.selected !== undefined) return "";
  const values = {};
  for (const { key, answer } of alone) {
    values[key] = answer.labels[0].label;
    values[`${key}Score`] = percent(answer.labels[0].score);
  }
  const agreeing = alone.filter(({ answer }) => answer.labels[0].label === best.label);
  if (!agreeing.length) return sentence(used.join("+"), "together", values);
  if (agreeing.length === 1) return sentence(used.join("+"), `${agreeing[0].key}-decides`, values);
  const sure = alone.filter(({ answer }) => verdictOf(answer, model).kind === "sure");
  const key = sure.length === 1 ? `${sure[0].key}-sure` : sure.length ? "agree" : "both-unsure";
  return sentence(used.join("+"), key, values);
}

export const intervalWords = ({ low, high, coverage }) =>
  message("answer.interval", { low: measure(low), high: measure(high), coverage: percent(coverage) });

function scoreTable(results, model) {
  const ranked = results[0].answer.labels;
  const line = ranked[0]?.selected === undefined ? certaintyLine(model, results[0].answer.modalities).line : null;
  const rows = (count) => ranked.slice(0, count).map((label, index) => scoreRow(label, results, model, index === 0 ? line : null));
  const heads = [message("answer.label"), ...results.map(setHeading)];
  const caption = make("caption", { class: "unseen" }, message("answer.table"));
  const scores = table({ class: `scores of-${Math.min(3, results.length)}` }, heads, rows(SHOWN), caption);
  if (ranked.length <= SHOWN) return scores;
  const more = make("button", { type: "button", class: "quiet" }, message("answer.all", { count: count(ranked.length) }));
  more.addEventListener("click", () => {
    scores.tBodies[0].replaceChildren(...rows(ranked.length));
    more.remove();
  });
  return make("div", {}, scores, more);
}

const setHeading = ({ key }) => make("th", { scope: "col", class: `set ${kindOf(key)}` }, setName(key));

/** "Picture only" */
export function setName(key) {
  if (hasMessage(`set.${key}`)) return message(`set.${key}`);
  const names = key.split("+").map(inputName);
  return names.length > 1 ? names.join(" + ") : message("set.only", { input: names[0] });
}
/** The colour that a set of inputs has everywhere. */
export const kindOf = (key) => (key.includes("+") ? "both" : `only-${key}`);

function scoreRow({ label, selected }, results, model, line) {
  const threshold = model?.thresholds?.[label] ?? null;
  const cells = results.map(({ key, answer, problem }) => {
    if (!answer) return make("td", { class: "set" }, problem ? "–" : "…");
    const { score } = answer.labels.find((entry) => entry.label === label);
    return make("td", { class: "set" }, make("span", { class: "pair" }, bar(score, kindOf(key), threshold ?? (key === results[0].key ? line : null)), make("span", { class: "amount" }, percent(score))));
  });
  const name = selected ? make("span", {}, `✓ ${label}`, make("span", { class: "unseen" }, `, ${message("answer.selected")}`)) : label;
  return make("tr", { class: selected ? "selected" : "" }, make("th", { scope: "row" }, name), ...cells);
}

/** Numbers with their intervals, one row for each set of inputs, on one scale. */
function valueTable(results) {
  const answers = results.map(({ answer }) => answer).filter(Boolean);
  const ends = answers.flatMap(({ value, interval }) => [value, interval?.low ?? value, interval?.high ?? value]);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const at = (number) => (high > low ? (number - low) / (high - low) : 0.5);
  const rows = results.map(({ key, answer }) => {
    if (!answer) return make("tr", {}, make("th", { scope: "row" }, setName(key)), make("td", { colspan: 2 }, "…"));
    const { value, interval } = answer;
    const scale = make(
      "span",
      { class: `scale ${kindOf(key)}`, "aria-hidden": "true" },
      interval ? make("span", { class: "range", "--from": at(interval.low), "--to": at(interval.high) }) : null,
      make("span", { class: "point", "--at": at(value) }),
    );
    const words = interval ? `${measure(value)} (${measure(interval.low)} – ${measure(interval.high)})` : measure(value);
    return make("tr", {}, make("th", { scope: "row" }, setName(key)), make("td", { class: "set" }, scale), make("td", { class: "amount" }, words));
  });
  return make("table", { class: "values" }, make("caption", { class: "unseen" }, message("answer.values")), make("tbody", {}, ...rows));
}

function drawTimings({ stages, total }) {
  const sum = stages.reduce((so, [, milliseconds]) => so + milliseconds, 0);
  const slices = stages.map(([, milliseconds], index) =>
    make("span", { class: `slice of-${index % 6}`, "--share": sum ? milliseconds / sum : 0 }),
  );
  const words = stages.map(([name, milliseconds], index) =>
    make("li", { class: `of-${index % 6}` }, messageOr(`stage.${name}`, name.replaceAll("_", " ")), " ", message("timing.ms", { ms: brief(milliseconds) })),
  );
  element("timings").replaceChildren(
    make("p", {}, make("strong", {}, message("timing.service", { ms: brief(sum) })), " ", message("timing.total", { ms: count(Math.round(total)) })),
    make("div", { class: "stack", "aria-hidden": "true" }, ...slices),
    make("ul", {}, ...words),
  );
  element("timings").hidden = !stages.length;
}
