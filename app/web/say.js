// Words and numbers as people read them. The words stand in strings.js, and nowhere else.

import { language, strings } from "./strings.js";

const plurals = new Intl.PluralRules(language);
const counts = new Intl.NumberFormat(language);
const shares = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const lists = new Intl.ListFormat(language, { type: "disjunction" });
const measures = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 });

/**
 * A sentence of strings.js, its {names} replaced.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function say(key, values = {}) {
  const text = strings[key];
  if (text === undefined) throw new Error(`strings.js has no ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The sentence for one input or one set of inputs where strings.js has it, or else the one for any. */
export const sayOf = (key, variant, values) => say(known(`${key}.${variant}`) ? `${key}.${variant}` : key, values);

/** Whether there is a sentence of that name. @param {string} key */
export const known = (key) => Object.hasOwn(strings, key);

/** The sentence for so many: `key.one`, `key.other`, … as the language has them. */
export function sayCount(key, number, values = {}) {
  const form = `${key}.${plurals.select(number)}`;
  return say(known(form) ? form : `${key}.other`, { count: count(number), ...values });
}

/** "1,471" */
export const count = (number) => counts.format(number);

/** A share from 0 to 1 as a percentage that never claims a certainty that is not there. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return say("percent.less", { number: shares.format(0.1) });
  if (share < 1 && share >= 0.9995) return say("percent.more", { number: shares.format(99.9) });
  return say("percent", { number: shares.format(100 * share) });
}

/** "image or text" */
export const listed = (names) => lists.format(names);

/** A number of no known unit, to four digits. */
export const measure = (number) => measures.format(number);

/** Milliseconds, to a tenth. */
export const brief = (number) => tenths.format(number);

/** Fill what the page's HTML leaves to say. @param {string} set the inputs of the model */
export function fill(set) {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = sayOf(node.dataset.say, set);
  for (const node of document.querySelectorAll("[data-say-label]")) node.setAttribute("aria-label", say(node.dataset.sayLabel));
}
