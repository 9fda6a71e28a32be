// From what stands in the form to the answer beside it: asked while one types, and the newest answer wins.

import { Problem, classify } from "./ask.js";
import { drawAnswer, drawNothing, drawProblem } from "./answer.js";
import { element } from "./dom.js";
import { given, inputName, inputsOf, isPictures } from "./inputs.js";
import { count, say } from "./say.js";

const REST_MS = 250; // after the last key; about the pause between two words
const KEPT = 40; // answers; going back to one costs nothing

/** @type {Map<string, Promise<any>>} */
const kept = new Map();
const files = new WeakMap(); // the number of each file, as files have no identity that a key could hold
let numbered = 0;
let current = new AbortController();
let timer = 0;

/**
 * Ask after a rest, or at once; whatever was asked before is broken off.
 * @param {any} model as described by the service; null while that is not known
 */
export function ask(model, { atOnce = false } = {}) {
  clearTimeout(timer);
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const values = given();
  if (!Object.keys(values).length) {
    settle();
    drawNothing(model);
    return;
  }
  timer = setTimeout(() => answer(values, model, signal), atOnce ? 0 : REST_MS);
}

/** Forget everything that was answered, because another model or key may answer otherwise. */
export const forgetAnswers = () => kept.clear();

async function answer(values, model, signal) {
  element("answer").setAttribute("aria-busy", "true");
  try {
    checkSizes(values, model);
    const whole = await remembered(values, model, signal);
    if (signal.aborted) return;
    settle();
    const parts = [{ key: whole.modalities.join("+"), answer: whole }];
    if (whole.modalities.length > 1) parts.push(...whole.modalities.map((key) => ({ key })));
    drawAnswer(parts, model);
    await Promise.all(parts.slice(1).map((part) => fillIn(part, values, model, signal)));
    if (!signal.aborted && parts.length > 1) drawAnswer(parts, model);
  } catch (error) {
    if (signal.aborted) return;
    settle();
    if (!(error instanceof Problem)) throw error;
    drawProblem(error);
  }
}

/** What the model says of one input alone; a refusal of it leaves the whole answer as it is. */
async function fillIn(part, values, model, signal) {
  try {
    part.answer = await remembered({ [part.key]: values[part.key] }, model, signal);
  } catch (error) {
    part.problem = error;
  }
}

/** An answer that was given before, or a new one; one that was broken off or refused is not kept. */
function remembered(values, model, signal) {
  const inputs = Object.entries(values).map(([name, value]) => [name, value instanceof File ? numberOf(value) : value.trim()]);
  const key = JSON.stringify([model?.name, inputs]);
  const known = kept.get(key);
  if (known) return known;
  const asked = classify(values, model?.name, signal).then((found) => {
    kept.set(key, Promise.resolve(found));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return found;
  });
  return asked;
}

function numberOf(file) {
  if (!files.has(file)) files.set(file, (numbered += 1));
  return files.get(file);
}

/** Before a file travels: a service that refuses it may close the connection in the middle of it. */
function checkSizes(values, model) {
  for (const input of inputsOf(model)) {
    const [value, allowed] = [values[input.name], input.limits.max_bytes];
    if (!(value instanceof File) || !allowed || value.size <= allowed) continue;
    const words = { input: inputName(input.name), bytes: count(value.size), allowed: count(allowed) };
    throw new Problem({ code: "too_many_bytes", detail: say(isPictures(input) ? "picture.too-large" : "file.too-large", words) });
  }
}

const settle = () => element("answer").removeAttribute("aria-busy");
