// Classifies the inputs of the form while one types, and draws the answer. A newer request aborts an older one.

import { Problem, classify } from "./api.js";
import { drawAnswer, drawNothing, drawProblem } from "./answer.js";
import { element } from "./dom.js";
import { currentValues, inputsOf, keyOf, sizeProblem } from "./inputs.js";

/** After the last key; about the pause between two words. */
export const DELAY_MS = 250;
const CACHED = 40; // answers; going back to one sends no request

/** @type {Map<string, any>} */
const cache = new Map();
let current = new AbortController();
let timer = 0;

/**
 * Send the current inputs after a delay, or at once; an earlier request is aborted.
 * @param {any} model as described by the service; null while that is not known
 */
export function submit(model, { atOnce = false } = {}) {
  clearTimeout(timer);
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const values = currentValues();
  if (!Object.keys(values).length || !(model?.tasks ?? ["classify"]).includes("classify")) {
    settle();
    drawNothing(model);
    return;
  }
  timer = setTimeout(() => answer(values, model, signal), atOnce ? 0 : DELAY_MS);
}

/** Forget all answers, because another model or key may answer otherwise. */
export const clearAnswers = () => cache.clear();

async function answer(values, model, signal) {
  element("answer").setAttribute("aria-busy", "true");
  try {
    for (const input of inputsOf(model)) {
      const problem = sizeProblem(input, values[input.name]);
      if (problem) throw problem;
    }
    const whole = await cached(values, model, signal);
    if (signal.aborted) return;
    settle();
    const results = [{ key: whole.modalities.join("+"), answer: whole }];
    if (whole.modalities.length > 1) results.push(...whole.modalities.map((key) => ({ key })));
    drawAnswer(results, model);
    await Promise.all(results.slice(1).map((result) => classifyAlone(result, values, model, signal)));
    if (!signal.aborted && results.length > 1) drawAnswer(results, model);
  } catch (error) {
    if (signal.aborted) return;
    settle();
    if (!(error instanceof Problem)) throw error;
    drawProblem(error);
  }
}

/** Classify one input alone; a problem with it leaves the answer about all inputs as it is. */
async function classifyAlone(result, values, model, signal) {
  try {
    result.answer = await cached({ [result.key]: values[result.key] }, model, signal);
  } catch (error) {
    result.problem = error;
  }
}

/** Return a cached answer, or request one; aborted and failed requests are not cached. */
async function cached(values, model, signal) {
  const inputs = Object.entries(values).map(([name, value]) => [name, keyOf(value)]);
  const key = JSON.stringify([model?.name, inputs]);
  if (cache.has(key)) return cache.get(key);
  const result = await classify(values, model?.name, signal);
  cache.set(key, result);
  if (cache.size > CACHED) cache.delete(cache.keys().next().value);
  return result;
}

const settle = () => element("answer").removeAttribute("aria-busy");
