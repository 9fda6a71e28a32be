// The inputs of the model, as /v1/models describes them: a widget for each, and its value.

import { Problem } from "./api.js";
import { isBlank } from "./blank.js";
import { isTable } from "./csv.js";
import { element, make } from "./dom.js";
import { count, message, messageFor, messageOr } from "./messages.js";

/** @typedef {{name: string, textual: boolean, media_types: string[], limits: Record<string, number>}} Input */
/** @typedef {Record<string, File | string>} Values by the input's name */

/** Where the service does not describe its models, because the key may not read them. @type {Input[]} */
const ASSUMED = [
  { name: "image", textual: false, media_types: ["image/*"], limits: {} },
  { name: "text", textual: true, media_types: ["text/plain"], limits: {} },
];
/** Files that a field for pictures offers. */
export const PICTURES = "image/*,.avif,.heic,.heif,.hif,.jfif";
const PICTURE = /\.(jpe?g|jpe|jfif|jif|pjpe?g|pjp|a?png|webp|gif|bmp|dib|tiff?|avifs?|heic|heif|hif)$/i;
const SOUND = /\.(wav|wave|flac|ogg|oga|opus|mp3|m4a|m4b|aac|weba)$/i;
const SOUNDS = "audio/*,.flac,.m4a,.m4b,.oga,.opus,.weba,.webm";

/** @returns {Input[]} of a model, or those of most models while it is not known */
export const inputsOf = (model) => model?.inputs ?? ASSUMED;
export const namesOf = (inputs) => inputs.map(({ name }) => name);
/** The key of a set of inputs, as reports have it. */
export const setOf = (inputs) => namesOf(inputs).join("+");
export const inputName = (name) => messageOr(`input.${name}`, name);
/** Whether an input is something that browsers show. @param {Input} input */
export const isPictures = ({ textual, media_types: types }) => !textual && types.length > 0 && types.every((type) => type.startsWith("image/"));
/** Whether an input is something that browsers play. @param {Input} input */
const isSounds = ({ textual, media_types: types }) => !textual && types.length > 0 && types.every((type) => type.startsWith("audio/"));

/** The first input that is a picture, and the first that is a text; undefined where there is none. @param {Input[]} inputs */
export const sidesOf = (inputs) => ({ picture: inputs.find(isPictures), words: inputs.find(({ textual }) => textual) });

/** Whether the vectors of a model's pictures and texts can be compared. @param {any} model as described by the service; null where that is not known */
export function comparable(model) {
  const { picture, words } = sidesOf(inputsOf(model));
  return Boolean(model?.embeddings?.aligned && picture && words);
}

const numbers = new WeakMap(); // of files
let numbered = 0;

/** What a cache calls a value: a number for a file, or the text. @param {File | string} value */
export function keyOf(value) {
  if (!(value instanceof File)) return value.trim();
  if (!numbers.has(value)) numbers.set(value, (numbered += 1));
  return numbers.get(value);
}

/**
 * The problem of a file that is too large, or null: a service that rejects it may close the connection in the middle of it.
 * @param {Input} input
 * @param {File | string | undefined} value
 */
export function sizeProblem(input, value) {
  const allowed = input.limits.max_bytes;
  if (!(value instanceof File) || !allowed || value.size <= allowed) return null;
  const words = { input: inputName(input.name), bytes: count(value.size), allowed: count(allowed) };
  return new Problem({ code: "too_many_bytes", detail: message(isPictures(input) ? "picture.too-large" : "file.too-large", words) });
}

/** Whether a file is probably meant for an input, by its type in the browser. */
export function takes(input, file) {
  if (input.textual || isTable(file)) return false;
  if (isPictures(input)) return file.type.startsWith("image/") || PICTURE.test(file.name);
  if (isSounds(input) && SOUND.test(file.name)) return true;
  return input.media_types.some((type) => type.split("/")[0] === file.type.split("/")[0]);
}

/** An example of a file's name. @param {Input} input */
export function sampleFile(input) {
  if (isPictures(input)) return "picture.png";
  return `${input.name}.${input.media_types[0]?.split("/")[1]?.replace("x-", "") ?? "bin"}`;
}

/** Values, also of inputs that only another model has. @type {Values} */
const values = {};
/** @type {Input[]} */
let inputs = [];
/** @type {Map<string, {node: HTMLElement, draw: (value: any) => void}>} */
let widgets = new Map();
let drawn = "";
let changed = () => {};

/** @param {(atOnce: boolean) => void} listener called when an input changes; `atOnce` is false where more typing may follow */
export const onInputChange = (listener) => (changed = listener);

/** The values of the inputs that are shown, without blank ones. @returns {Values} */
export const currentValues = () =>
  Object.fromEntries(namesOf(inputs).map((name) => [name, values[name]]).filter(([, value]) => value && (value instanceof File || !isBlank(value))));

/** Show the widgets of these inputs. @param {Input[]} shown */
export function showInputs(shown) {
  inputs = shown;
  const key = JSON.stringify(inputs.map((input) => [input.name, input.textual, isPictures(input) || input.media_types]));
  if (key === drawn) return; // the focus stays where it is
  drawn = key;
  widgets = new Map(inputs.map((input) => [input.name, input.textual ? textWidget(input) : fileWidget(input)]));
  element("inputs").replaceChildren(...[...widgets.values()].map(({ node }) => node));
  for (const { name, textual } of inputs) {
    if (textual === values[name] instanceof File) delete values[name];
    widgets.get(name).draw(values[name]);
  }
}

/** Set these values; null removes one. @param {Record<string, File | string | null>} changes */
export function setValues(changes) {
  for (const [name, value] of Object.entries(changes)) {
    values[name] = value;
    widgets.get(name).draw(value);
  }
  changed(true);
}

/** The input that a file is for: the one below the pointer, or the first that takes it. @param {File} file @param {Node} [target] */
export function inputFor(file, target = null) {
  const below = inputs.find(({ name }) => widgets.get(name).node.contains(target));
  if (below && !below.textual && !isTable(file) && (!file.type || takes(below, file))) return below;
  return inputs.find((input) => takes(input, file));
}

function textWidget({ name }) {
  const id = `input-${name}`;
  const area = make("textarea", { id, rows: 2, placeholder: messageFor("text.placeholder", name) });
  area.addEventListener("input", () => {
    values[name] = area.value;
    changed(false);
  });
  const node = make("div", { class: "caption" }, make("label", { for: id }, messageFor("text.label", name, { input: inputName(name) })), area);
  return { node, draw: (value) => (area.value = value ?? "") };
}

const fileWidget = (input) => fileField(input, `input-${input.name}`, (file) => setValues({ [input.name]: file }));

/**
 * A field for a file of this input. Its function `draw` shows a file, or none.
 * @param {Input} input
 * @param {string} id
 * @param {(file: File | null) => void} choose called with a new file, or null where it is removed
 */
export function fileField(input, id, choose) {
  const { name } = input;
  let shown = null;
  const pictures = isPictures(input);
  const sounds = isSounds(input);
  const preview = make("img", { alt: "", hidden: true });
  const hint = make(
    "span",
    { class: "hint" },
    make("strong", {}, pictures ? message("picture.choose") : message(sounds ? "sound.choose" : "file.choose", { input: inputName(name) })),
    make("small", {}, pictures ? message("picture.how") : sounds ? message("sound.how") : input.media_types.join(", ")),
  );
  const file = make("input", { id, type: "file", accept: pictures ? PICTURES : sounds ? SOUNDS : input.media_types.join(",") });
  const player = sounds ? make("audio", { controls: true, preload: "metadata", hidden: true, "aria-label": message("sound.player") }) : null;
  const words = make("span");
  const remove = make("button", { type: "button", class: "quiet" }, message("picture.remove"));
  const under = make("div", { class: "under", hidden: true }, words, remove);
  file.addEventListener("change", () => file.files.length && choose(file.files[0]));
  remove.addEventListener("click", () => {
    choose(null);
    file.focus();
  });
  preview.addEventListener("error", () => {
    if (shown) preview.hidden = true; // a format that browsers don't show; the service may read it all the same
    hint.hidden = !preview.hidden;
  });
  player?.addEventListener("error", () => (player.hidden = true)); // a format that this browser does not play
  const draw = (value) => {
    shown = value;
    for (const media of player ? [preview, player] : [preview]) {
      if (media.src) URL.revokeObjectURL(media.src);
      media.removeAttribute("src");
    }
    if (value && pictures) preview.src = URL.createObjectURL(value);
    if (player) {
      if (value) player.src = URL.createObjectURL(value);
      else player.load(); // stops it
      player.hidden = !value;
    }
    preview.alt = value ? message("picture.chosen", { name: value.name }) : "";
    preview.hidden = !(value && pictures);
    hint.hidden = !preview.hidden;
    under.hidden = !value;
    words.textContent = value ? message("picture.size", { name: value.name, size: size(value.size) }) : "";
    file.value = "";
  };
  const label = make("label", { class: pictures ? "drop" : "drop plain", for: id }, preview, hint, file);
  return { node: make("div", {}, label, player, under), draw };
}

function size(bytes) {
  if (bytes < 1000) return message("size.bytes", { number: count(bytes) });
  if (bytes < 1_000_000) return message("size.kilobytes", { number: count(Math.round(bytes / 1000)) });
  return message("size.megabytes", { number: count(Math.round(bytes / 100_000) / 10) });
}
