// The picture of the question: dropped, pasted, chosen, or one of the examples; shown, named, and taken away again.

import { element } from "./dom.js";
import { count, say } from "./say.js";

/** @type {File | null} */
let chosen = null;
let changed = () => {};

/** The picture, if there is one. */
export const picture = () => chosen;

/** Make this file the picture, or none. @param {File | null} file */
export function setPicture(file) {
  const preview = element("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  chosen = file;
  if (file) preview.src = URL.createObjectURL(file);
  else preview.removeAttribute("src");
  preview.alt = file ? say("picture.chosen", { name: file.name }) : "";
  preview.hidden = element("chosen").hidden = !file;
  element("hint").hidden = Boolean(file);
  element("picture-name").textContent = file ? say("picture.size", { name: file.name, size: size(file.size) }) : "";
  element("image").value = "";
  changed();
}

/** @param {() => void} onChange */
export function watchPicture(onChange) {
  changed = onChange;
  const input = element("image");
  input.addEventListener("change", () => input.files.length && setPicture(input.files[0]));
  element("remove").addEventListener("click", () => {
    setPicture(null);
    input.focus();
  });
  element("preview").addEventListener("error", () => {
    if (chosen) element("preview").hidden = true; // a format that browsers don't show; the service may read it all the same
    element("hint").hidden = !element("preview").hidden;
  });
}

function size(bytes) {
  if (bytes < 1000) return say("size.bytes", { number: count(bytes) });
  if (bytes < 1_000_000) return say("size.kilobytes", { number: count(Math.round(bytes / 1000)) });
  return say("size.megabytes", { number: count(Math.round(bytes / 100_000) / 10) });
}
