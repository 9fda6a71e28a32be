// From what stands in the form to the answer beside it: asked while one types, and the newest answer wins.

import { Problem, classify } from "./ask.js";
import { drawAnswer, drawNothing, drawProblem } from "./answer.js";
import { isBlank } from "./blank.js";
import { element } from "./dom.js";
import { picture } from "./picture.js";
import { count, say } from "./say.js";

const REST_MS = 250; // after the last key; about the pause between two words
const KEPT = 40; // answers; going back to one costs nothing

/** @type {Map<string, Promise<any>>} */
const kept = new Map();
const pictures = new WeakMap(); // each picture's number, as files have no identity that a key could hold
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
  const question = { image: picture(), text: element("text").value, model: model?.name };
  if (!question.image && isBlank(question.text)) {
    settle();
    drawNothing(model);
    return;
  }
  timer = setTimeout(() => answer(question, model, signal), atOnce ? 0 : REST_MS);
}

/** Forget everything that was answered, because another model or key may answer otherwise. */
export const forgetAnswers = () => kept.clear();

async function answer(question, model, signal) {
  element("answer").setAttribute("aria-busy", "true");
  try {
    checkSize(question.image, model);
    const whole = await remembered(question, signal);
    if (signal.aborted) return;
    settle();
    const parts = [{ key: whole.modalities.join("+"), answer: whole }];
    if (whole.modalities.length > 1) parts.push(...whole.modalities.map((key) => ({ key })));
    drawAnswer(parts, model);
    await Promise.all(parts.slice(1).map((part) => fillIn(part, question, signal)));
    if (!signal.aborted && parts.length > 1) drawAnswer(parts, model);
  } catch (error) {
    if (signal.aborted) return;
    settle();
    if (!(error instanceof Problem)) throw error;
    drawProblem(error);
  }
}

/** What the model says of one input alone; a refusal of it leaves the whole answer as it is. */
async function fillIn(part, question, signal) {
  const alone = { model: question.model, [part.key]: question[part.key] };
  try {
    part.answer = await remembered(alone, signal);
  } catch (error) {
    part.problem = error;
  }
}

/** An answer that was given before, or a new one; one that was broken off or refused is not kept. */
function remembered(question, signal) {
  const key = JSON.stringify([question.model, numberOf(question.image), question.text?.trim() ?? ""]);
  const known = kept.get(key);
  if (known) return known;
  const asked = classify(question, signal).then((found) => {
    kept.set(key, Promise.resolve(found));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return found;
  });
  return asked;
}

function numberOf(image) {
  if (!image) return 0;
  if (!pictures.has(image)) pictures.set(image, (numbered += 1));
  return pictures.get(image);
}

/** Said before the picture travels: a service that refuses it may close the connection in the middle of it. */
function checkSize(image, model) {
  const allowed = model?.inputs?.find(({ name }) => name === "image")?.limits.max_bytes;
  if (image && allowed && image.size > allowed) {
    const detail = say("picture.too-large", { bytes: count(image.size), allowed: count(allowed) });
    throw new Problem({ code: "too_many_bytes", detail });
  }
}

const settle = () => element("answer").removeAttribute("aria-busy");
