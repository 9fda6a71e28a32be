// Pictures for words, and words for a picture: the view that ranks them by their match, while one types.

import { Problem } from "./api.js";
import { problemLines } from "./answer.js";
import { isBlank } from "./blank.js";
import { bar, element, make } from "./dom.js";
import { EXAMPLES, offerExamples, openExample } from "./examples.js";
import { PICTURES, comparable, fileField, sidesOf, takes } from "./inputs.js";
import { count, measure, message, percent } from "./messages.js";
import { clearPairs, pairsOf } from "./pairs.js";
import { DELAY_MS } from "./request.js";
import { thumbnail } from "./results.js";

const LIMIT = 96; // candidates of a list
const SUGGESTIONS = ["animal", "food", "device"];

/** @typedef {{value: File | string, name: string, remove?: () => void}} Candidate */

let model = null;
/** Pictures to rank: those that were added, and the examples, which are loaded when the view is first shown. @type {Candidate[]} */
let added = [];
/** @type {Candidate[]} */
let examples = [];
/** The picture to find words for. @type {File | null} */
let picture = null;
let pictureField = { draw: () => {} };
let rankPictures = () => {};
let rankWords = () => {};

export function startCompare() {
  rankPictures = startRanking("by-words", () => element("query-words").value.trim(), () => [...added, ...examples]);
  rankWords = startRanking("by-picture", () => picture, wordsToRank);
  element("query-words").addEventListener("input", () => rankPictures());
  element("by-words-form").addEventListener("submit", (event) => {
    event.preventDefault();
    rankPictures({ atOnce: true });
  });
  element("more-words").addEventListener("input", () => rankWords());
  element("suggestions").append(...SUGGESTIONS.map((name) => suggestion(message(`suggestion.${name}`))));
  element("gallery-files").accept = PICTURES;
  element("gallery-files").addEventListener("change", ({ target }) => {
    addPictures([...target.files]);
    target.value = "";
  });
  offerExamples(element("query-examples"), choosePicture, rankWords.fail);
}

/** Show the view for this model; another one's pairs are forgotten. @param {any} chosen null where none can be compared */
export function compareWith(chosen) {
  model = comparable(chosen) ? chosen : null;
  clearPairs();
  if (!model) {
    rankPictures(); // aborts what was sent for the other model
    rankWords();
    return;
  }
  pictureField = fileField(sidesOf(model.inputs).picture, "query-file", choosePicture);
  element("query-picture").replaceChildren(pictureField.node);
  pictureField.draw(picture);
}

/** Rank again; pairs that are cached are not requested. Called when the view is shown. */
export async function showCompare() {
  if (!model) return;
  rankWords({ atOnce: true });
  try {
    if (!examples.length) examples = await Promise.all(EXAMPLES.map(async ({ file, text }) => ({ value: await openExample(file), name: text })));
    rankPictures({ atOnce: true });
  } catch (problem) {
    rankPictures.fail(problem);
  }
}

/**
 * Take files that were dropped or pasted, if all are pictures: one to find words for, several or those over the list to rank.
 * @param {File[]} files @param {Node} target @returns {boolean} whether they were taken
 */
export function takePictures(files, target) {
  const input = model && sidesOf(model.inputs).picture;
  if (!input || !files.length || !files.every((file) => takes(input, file))) return false;
  if (files.length > 1 || element("by-words").contains(target)) addPictures(files);
  else choosePicture(files[0]);
  return true;
}

function choosePicture(file) {
  picture = file;
  pictureField.draw(file);
  rankWords({ atOnce: true });
}

function addPictures(files) {
  added = [...files.map((file) => ({ value: file, name: file.name, remove: () => removePicture(file) })), ...added];
  rankPictures({ atOnce: true });
}

function removePicture(file) {
  added = added.filter(({ value }) => value !== file);
  rankPictures({ atOnce: true });
  element("gallery-files").focus();
}

function suggestion(words) {
  const take = () => {
    element("query-words").value = words;
    rankPictures({ atOnce: true });
  };
  return make("button", { type: "button", click: take }, words);
}

/** The lines that were typed, then the captions of the examples; each once. @returns {Candidate[]} */
function wordsToRank() {
  const lines = element("more-words").value.split("\n").map((line) => line.trim());
  const texts = new Set([...lines, ...EXAMPLES.map(({ text }) => text)].filter((text) => !isBlank(text)));
  return [...texts].map((text) => ({ value: text, name: text }));
}

/**
 * Return a function that ranks the candidates of one list after a pause, or at once; an earlier request is aborted.
 * Its `fail(problem)` shows a problem instead.
 * @param {string} id of the panel
 * @param {() => File | string | null} queryOf
 * @param {() => Candidate[]} candidatesOf
 */
function startRanking(id, queryOf, candidatesOf) {
  const [status, trouble, list] = ["status", "trouble", "list"].map((name) => element(`${id}-${name}`));
  let current = new AbortController();
  let timer = 0;
  function refresh({ atOnce = false } = {}) {
    clearTimeout(timer);
    current.abort();
    current = new AbortController();
    const { signal } = current;
    const query = queryOf();
    if (!model || !query || (typeof query === "string" && isBlank(query))) show([], "");
    else timer = setTimeout(() => rank(query, signal), atOnce ? 0 : DELAY_MS);
  }
  async function rank(query, signal) {
    list.setAttribute("aria-busy", "true");
    const candidates = candidatesOf();
    try {
      const pairs = await pairsOf(query, candidates.slice(0, LIMIT).map(({ value }) => value), model, signal);
      if (signal.aborted) return;
      const ranked = candidates.slice(0, LIMIT).map((candidate) => ({ ...candidate, ...pairs.get(candidate.value) }));
      ranked.sort(bestFirst);
      const cut = candidates.length > LIMIT ? message("compare.limit", { count: count(LIMIT), all: count(candidates.length) }) : "";
      show(ranked, [summary(ranked[0]), cut].filter(Boolean).join(" "));
    } catch (problem) {
      if (signal.aborted) return;
      refresh.fail(problem);
    }
  }
  function show(ranked, words) {
    const lines = ranked.length ? ranked : candidatesOf().slice(0, LIMIT);
    list.removeAttribute("aria-busy");
    list.replaceChildren(...lines.map(row));
    status.textContent = words;
    trouble.hidden = true;
  }
  refresh.fail = (problem) => {
    if (!(problem instanceof Problem)) throw problem;
    show([], "");
    trouble.replaceChildren(...problemLines(problem));
    trouble.hidden = false;
  };
  return refresh;
}

/** By match, or by cosine where the model has no match; problems last. */
const bestFirst = (one, other) => (other.match ?? other.cosine ?? -2) - (one.match ?? one.cosine ?? -2);

function summary({ name, match, cosine, selected } = {}) {
  if (cosine === undefined) return "";
  if (match === undefined) return message("compare.closest", { name, cosine: measure(cosine) });
  return message(selected ? "compare.best" : "compare.none", { name, match: percent(match) });
}

/** A candidate with its match; before it is ranked, alone. */
function row({ value, name, remove, match, cosine, selected, threshold, problem }) {
  const words = selected ? [`✓ ${name}`, make("span", { class: "unseen" }, `, ${message("compare.fits")}`)] : [name];
  const amount = (text) => make("span", { class: "amount" }, text);
  return make(
    "li",
    { class: selected ? "selected" : "" },
    value instanceof File ? thumbnail(value) : null,
    make(
      "span",
      { class: "candidate" },
      make("span", { class: "name" }, ...words),
      match === undefined ? null : make("span", { class: "pair" }, bar(match, "both", threshold), amount(percent(match))),
      match === undefined && cosine !== undefined ? amount(measure(cosine)) : null,
      problem ? make("span", { class: "failed" }, problem.detail || problem.message) : null,
    ),
    remove ? make("button", { type: "button", class: "quiet", "aria-label": message("compare.remove", { name }), click: remove }, message("picture.remove")) : null,
  );
}
