// Requests to the service, with the key if there is one; problems in plain words.

import { hasMessage, message, messageFor } from "./messages.js";

const KEY = "polymodal-key"; // in sessionStorage: this tab's, gone when it is closed

/** Called when the service requires a key. */
let keyNeeded = () => {};

/** @param {() => void} listener */
export const onKeyNeeded = (listener) => (keyNeeded = listener);
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** An error instead of an answer: `code` is that of the service's problem, or one of ours: unreachable, unreadable. */
export class Problem extends Error {
  /** @param {{code: string, detail?: string, status?: number, instance?: string, input?: string, retryAfter?: number | null}} problem */
  constructor({ code, detail = "", status = 0, instance = "", input = "", retryAfter = null }) {
    super(hasMessage(`problem.${code}`) ? messageFor(`problem.${code}`, input) : message("problem.other"));
    Object.assign(this, { code, detail, status, instance, input, retryAfter });
  }
}

/** @param {import("./inputs.js").Values} values @param {string} [model] */
function formOf(values, model) {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) form.append(name, value);
  if (model) form.append("model", model);
  return form;
}

/**
 * Classify one item; returns the answer with the stages of Server-Timing and the total time in the browser, in milliseconds.
 * @param {import("./inputs.js").Values} values
 * @param {string} [model]
 * @param {AbortSignal} [signal]
 */
export async function classify(values, model, signal) {
  const started = performance.now();
  const { body, answer } = await request("v1/classify", { method: "POST", body: formOf(values, model), signal });
  return { ...body, stages: stagesOf(answer.headers.get("Server-Timing") ?? ""), total: performance.now() - started };
}

/**
 * Compare the inputs of one item with those of others; returns pairs and failed candidates, with the index of the candidate.
 * @param {import("./inputs.js").Values} query
 * @param {import("./inputs.js").Values[]} candidates
 * @param {string} model
 * @param {AbortSignal} signal
 */
export async function compare(query, candidates, model, signal) {
  const [first, ...others] = await Promise.all([query, ...candidates].map(jsonOf));
  const body = JSON.stringify({ query: first, candidates: others, model });
  return (await request("v1/similarity", { method: "POST", body, headers: { "Content-Type": "application/json" }, signal })).body;
}

/** The inputs of an item as JSON has them: files as data: URIs. */
async function jsonOf(values) {
  const entries = Object.entries(values).map(async ([name, value]) => [name, value instanceof File ? await dataUri(value) : value]);
  return Object.fromEntries(await Promise.all(entries));
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Problem({ code: "file_gone", detail: file.name })));
    reader.readAsDataURL(file);
  });
}

/** The models without card and report; `model(name)` returns one with them. */
export async function models() {
  const { body } = await request("v1/models");
  return { ...body, models: body.models.map(described) };
}
export const model = async (name) => described((await request(`v1/models/${encodeURIComponent(name)}`)).body);

/** A model; older services call its target its task. */
const described = (model) => ({ target: model.task, ...model });

async function request(address, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
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
    throw new Problem({ code: "unreadable", detail: message("problem.status", { status }), status, retryAfter: retryOf(answer) });
  }
  if (status === 401) keyNeeded();
  if (!answer.ok) throw new Problem({ ...body, code: body.code ?? "other", status, retryAfter: retryOf(answer) });
  return { body, answer };
}

/** Seconds of Retry-After; null without it. */
function retryOf(answer) {
  const field = answer.headers.get("Retry-After");
  const seconds = field === null ? Number.NaN : Number(field);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}

/** Names and milliseconds, whatever the stages are called: `read;dur=0.2, fuse;dur=1`. */
export function stagesOf(header) {
  return header
    .split(",")
    .map((stage) => [stage.split(";")[0].trim(), Number(/;\s*dur="?([\d.]+)/.exec(stage)?.[1])])
    .filter(([name, milliseconds]) => name && Number.isFinite(milliseconds));
}

/** Wait; rejects when the signal aborts. @param {number} seconds @param {AbortSignal} signal */
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
