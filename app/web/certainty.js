// Whether an answer is sure enough to show its label, and the reason that the page shows.

import { count, message, percent } from "./messages.js";

const HALF = 0.5; // without a measured line: below it a calibrated answer is likelier wrong than right

/**
 * The score below which the page shows “not sure”, and where that line comes from: the least sure tenth of the
 * validation split is below it.
 * @param {{report?: any} | null} model as /v1/models/{name} describes it; null where that is not known
 * @param {string[]} used the inputs that the answer comes from
 * @returns {{line: number, why: string}}
 */
export function certaintyLine(model, used) {
  const measures = measuresOf(model, "validation", used);
  const line = measures?.confidence_at_90_percent_coverage;
  if (typeof line !== "number") return { line: HALF, why: message("line.half", { line: percent(HALF) }) };
  const values = { line: percent(line), items: count(measures.items), right: percent(leastSureAccuracy(measures)) };
  return { line, why: message("line.measured", values) };
}

/** The report's measures for one split and one set of inputs, in any order of the inputs; null without them. */
export function measuresOf(model, split, used) {
  const sets = model?.report?.metrics?.[split];
  const name = [...used].sort().join("+");
  const key = Object.keys(sets ?? {}).find((set) => set.split("+").sort().join("+") === name);
  return key === undefined ? null : sets[key];
}

/** Accuracy on the tenth that is left out of accuracy_at_90_percent_coverage. */
function leastSureAccuracy({ items, accuracy, accuracy_at_90_percent_coverage: surest }) {
  const kept = Math.ceil(Number((0.9 * items).toFixed(6)));
  if (kept === items) return accuracy;
  return Math.min(1, Math.max(0, (accuracy * items - surest * kept) / (items - kept)));
}

/**
 * How an answer is shown.
 * @returns {{kind: "sure" | "unsure" | "selected" | "none" | "number", why: string, best?: any, chosen?: any[]}}
 */
export function verdictOf(answer, model) {
  if (answer.value !== undefined) return { kind: "number", why: "" };
  const [best] = answer.labels;
  if (best?.selected !== undefined) {
    const chosen = answer.labels.filter(({ selected }) => selected);
    return { kind: chosen.length ? "selected" : "none", why: message("line.thresholds"), best, chosen };
  }
  const { line, why } = certaintyLine(model, answer.modalities);
  return { kind: best && best.score >= line ? "sure" : "unsure", why, best };
}
