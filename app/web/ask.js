// Asking the service: with a key where one was given, and with problems in plain words.

import { known, say, sayOf } from "./say.js";

const KEY = "polymodal-key"; // in sessionStorage: this tab's, gone when it is closed

/** What the page does when the service wants a key. */
let keyWanted = () => {};

/** @param {() => void} listener */
export const onKeyWanted = (listener) => (keyWanted = listener);
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** An answer that is none: `code` is the problem's own, or one of ours: unreachable, unreadable. */
export class Problem extends Error {
  /** @param {{code: string, detail?: string, status?: number, instance?: string, input?: string, retryAfter?: number | null}} problem */
  constructor({ code, detail = "", status = 0, instance = "", input = "", retryAfter = null }) {
    super(known(`problem.${code}`) ? sayOf(`problem.${code}`, input) : say("problem.other"));
    Object.assign(this, { code, detail, status, instance, input, retryAfter });
  }
}

/** A form with what was given. @param {import("./inputs.js").Values} values @param {string} [model] */
function formOf(values, model) {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) form.append(name, value);
  if (model) form.append("model", model);
  return form;
}

/**
 * One classification, with the stages of Server-Timing and how long it took as seen from here (milliseconds).
 * @param {import("./inputs.js").Values} values
 * @param {string} [model]
 * @param {AbortSignal} [signal]
 */
export async function classify(values, model, signal) {
  const started = performance.now();
  const { body, answer } = await request("v1/classify", { method: "POST", body: formOf(values, model), signal });
  return { ...body, stages: stagesOf(answer.headers.get("Server-Timing") ?? ""), total: performance.now() - started };
}

/** What is served; the model's name adds card and report. */
export async function models() {
  const { body } = await request("v1/models");
  return { ...body, models: body.models.map(described) };
}
export const model = async (name) => described((await request(`v1/models/${encodeURIComponent(name)}`)).body);

/** A model; its target was once called its task. */
const described = (model) => ({ target: model.task, ...model });

async function request(address, options = {}) {
  const given = sessionStorage.getItem(KEY);
  const headers = given ? { Authorization: `Bearer ${given}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable" });
  }
  const status = answer.status;
  let body;
  try {
    body = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreadable", detail: say("problem.status", { status }), status, retryAfter: retryOf(answer) });
  }
  if (status === 401) keyWanted();
  if (!answer.ok) throw new Problem({ ...body, code: body.code ?? "other", status, retryAfter: retryOf(answer) });
  return { body, answer };
}

/** Seconds until it may be worth asking again; null when the service does not say. */
function retryOf(answer) {
  const given = answer.headers.get("Retry-After");
  const seconds = given === null ? Number.NaN : Number(given);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}

/** Names and milliseconds, whatever the stages are called: `read;dur=0.2, fuse;dur=1`. */
export function stagesOf(header) {
  return header
    .split(",")
    .map((part) => [part.split(";")[0].trim(), Number(/;\s*dur="?([\d.]+)/.exec(part)?.[1])])
    .filter(([name, milliseconds]) => name && Number.isFinite(milliseconds));
}

/** Wait, unless it is broken off with the rest. @param {number} seconds @param {AbortSignal} signal */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
