// Messages and numbers in the page's language. All messages are in strings.js.

import { language, strings } from "./strings.js";

const plurals = new Intl.PluralRules(language);
const counts = new Intl.NumberFormat(language);
const shares = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const lists = new Intl.ListFormat(language, { type: "disjunction" });
const measures = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 });

/**
 * The message with this key, its {names} replaced.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function message(key, values = {}) {
  const text = strings[key];
  if (text === undefined) throw new Error(`strings.js has no ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The message for one input or one set of inputs where strings.js has it, or else the one for any. */
export const messageFor = (key, variant, values) => message(hasMessage(`${key}.${variant}`) ? `${key}.${variant}` : key, values);

/** Whether there is a message with this key. @param {string} key */
export const hasMessage = (key) => Object.hasOwn(strings, key);

/** The message with this key where strings.js has it, or else the fallback. */
export const messageOr = (key, fallback, values) => (hasMessage(key) ? message(key, values) : fallback);

/** The message for a number: `key.one`, `key.other`, …, by the language's plural categories. */
export function messageForCount(key, number, values = {}) {
  const form = `${key}.${plurals.select(number)}`;
  return message(hasMessage(form) ? form : `${key}.other`, { count: count(number), ...values });
}

/** "1,471" */
export const count = (number) => counts.format(number);

/** A share from 0 to 1 as a percentage, which is never rounded to 0 % or 100 %. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return message("percent.less", { number: shares.format(0.1) });
  if (share < 1 && share >= 0.9995) return message("percent.more", { number: shares.format(99.9) });
  return message("percent", { number: shares.format(100 * share) });
}

/** "image or text" */
export const listed = (names) => lists.format(names);

/** A number of no known unit, to four digits. */
export const measure = (number) => measures.format(number);

/** Milliseconds, to a tenth. */
export const brief = (number) => tenths.format(number);

/** Fill the messages of the page's HTML. @param {string} set the inputs of the model */
export function fill(set) {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-message]")) node.textContent = messageFor(node.dataset.message, set);
  for (const node of document.querySelectorAll("[data-message-label]")) node.setAttribute("aria-label", message(node.dataset.messageLabel));
}
