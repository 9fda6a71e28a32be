// Pairs of a picture and words: how well they match. Each pair is requested once.

import { Problem, compare } from "./api.js";
import { keyOf, sidesOf, sizeProblem } from "./inputs.js";
import { reducedOf } from "./reduce.js";

const CACHED = 2000; // pairs
const CANDIDATES = 32; // of one request; a service takes 64 unless its settings allow fewer
const BYTES = 4_000_000; // of one request, where the limit of the model's pictures is not known

/** @typedef {{cosine: number, match?: number, selected?: boolean, threshold?: number}} Pair without a match where the model has no calibrated one */

/** @type {Map<string, Pair>} */
const cache = new Map();

/** Forget all pairs, because another model or key may answer otherwise. */
export const clearPairs = () => cache.clear();

/**
 * Compare a picture with texts, or a text with pictures; returns a pair or a problem for each candidate.
 * @param {File | string} query
 * @param {(File | string)[]} candidates
 * @param {any} model as described by the service
 * @param {AbortSignal} signal
 * @returns {Promise<Map<File | string, Pair | {problem: Problem}>>}
 */
export async function pairsOf(query, candidates, model, signal) {
  const { picture, words } = sidesOf(model.inputs);
  const inputOf = (value) => (value instanceof File ? picture : words);
  const itemOf = (value) => ({ [inputOf(value).name]: value });
  const pairKey = (value) => JSON.stringify([model.name, ...(value instanceof File ? [value, query] : [query, value]).map(keyOf)]);
  const results = new Map();
  const missing = [];
  for (const value of candidates) {
    if (cache.has(pairKey(value))) {
      results.set(value, cache.get(pairKey(value)));
      continue;
    }
    const sent = await reducedOf(value); // one after the other, because a decoded picture takes much memory
    signal.throwIfAborted();
    const problem = sizeProblem(inputOf(value), sent);
    if (problem) results.set(value, { problem });
    else missing.push({ value, sent });
  }
  const sentQuery = await reducedOf(query);
  const tooLarge = sizeProblem(inputOf(query), sentQuery);
  if (tooLarge) throw tooLarge;
  for (const chunk of chunksOf(missing, picture.limits.max_bytes ?? BYTES)) {
    const { pairs, failed } = await compare(itemOf(sentQuery), chunk.map(({ sent }) => itemOf(sent)), model.name, signal);
    for (const { index, ...pair } of pairs) {
      const { value } = chunk[index];
      results.set(value, pair);
      cache.set(pairKey(value), pair);
    }
    for (const { index, problem } of failed) results.set(chunk[index].value, { problem: new Problem(problem) });
  }
  while (cache.size > CACHED) cache.delete(cache.keys().next().value);
  return results;
}

/** Split candidates into requests; a body may have at least as many bytes as one picture. */
function chunksOf(candidates, bytes) {
  const chunks = [];
  let left = 0;
  for (const candidate of candidates) {
    const { sent } = candidate;
    const needed = sent instanceof File ? Math.ceil((sent.size / 3) * 4) : 3 * sent.length;
    if (!chunks.length || needed > left || chunks.at(-1).length === CANDIDATES) {
      chunks.push([]);
      left = bytes;
    }
    chunks.at(-1).push(candidate);
    left -= needed;
  }
  return chunks;
}
