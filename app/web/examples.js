// A few examples from the test split of the default data, which the model has never seen.

import { Problem } from "./api.js";
import { make } from "./dom.js";
import { sidesOf } from "./inputs.js";
import { message } from "./messages.js";

/** Pictures of the Open Clip Art Library, in the public domain; the captions are ours. See examples/README.md. */
export const EXAMPLES = [
  { file: "boat.png", text: "a sailing dinghy has capsized" },
  { file: "tiger.png", text: "a tiger on the prowl" },
  { file: "camera.png", text: "a pocket camera" },
  { file: "karate.png", text: "a karate kick" },
  { file: "lime.png", text: "a slice of lime" },
];

const addressOf = (file) => `web/examples/${file}`;

/** An example's picture, as if it had been chosen. @param {string} file */
export async function openExample(file) {
  try {
    return new File([await (await fetch(addressOf(file))).blob()], file, { type: "image/png" });
  } catch {
    throw new Problem({ code: "unreachable" });
  }
}

/** An example for these inputs: the picture for the first that shows pictures, the words for the first that is a text. */
export function exampleFor(inputs, picture, text) {
  const sides = sidesOf(inputs);
  return { ...(sides.picture && { [sides.picture.name]: picture }), ...(sides.words && { [sides.words.name]: text }) };
}

/**
 * Fill a list with a button for each example.
 * @param {HTMLElement} list
 * @param {(picture: File, text: string) => void} choose
 * @param {(problem: Problem) => void} fail
 */
export function offerExamples(list, choose, fail) {
  const buttons = EXAMPLES.map(({ file, text }) =>
    make(
      "button",
      {
        type: "button",
        class: "example",
        "aria-label": message("examples.one", { text }),
        title: text,
        click: () => openExample(file).then((picture) => choose(picture, text), fail),
      },
      make("img", { src: addressOf(file), alt: "", width: 64, height: 64 }),
    ),
  );
  list.replaceChildren(...buttons);
}
