// The request that the page makes, as a command or a program to copy.

import { hasKey } from "./ask.js";
import { isBlank } from "./blank.js";
import { element, make } from "./dom.js";
import { say } from "./say.js";

/** @typedef {{image: File | null, text: string, model?: string}} Question */

const ADDRESS = () => new URL("v1/classify", document.baseURI).href;
const LANGUAGES = { curl, python, javascript };

let shown = "curl";
/** @type {Question} */
let asked = { image: null, text: "" };

/** Show the code for this question. @param {Question} question */
export function drawSnippet(question) {
  asked = question;
  element("snippet").firstElementChild.textContent = LANGUAGES[shown](given(question));
  for (const tab of element("languages").children) {
    const chosen = tab.dataset.language === shown;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) element("snippet").setAttribute("aria-labelledby", tab.id);
  }
}

export function startSnippets() {
  const names = Object.keys(LANGUAGES);
  element("languages").replaceChildren(
    ...names.map((language) =>
      make(
        "button",
        {
          id: `code-${language}`,
          type: "button",
          role: "tab",
          "aria-controls": "snippet",
          "data-language": language,
          click: () => choose(language),
        },
        say(`code.${language}`),
      ),
    ),
  );
  element("languages").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(names[(names.indexOf(shown) + step + names.length) % names.length]);
    element(`code-${shown}`).focus();
  });
  element("copy").addEventListener("click", copy);
  drawSnippet(asked);
}

function choose(language) {
  shown = language;
  drawSnippet(asked);
}

async function copy() {
  const button = element("copy");
  const code = element("snippet").firstElementChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = say("code.copied");
  } catch {
    // Browsers allow copying only on https and localhost; elsewhere the code is selected, ready for the keys.
    getSelection().selectAllChildren(code);
    button.textContent = say("code.selected");
  }
  setTimeout(() => (button.textContent = say("code.copy")), 2000);
}

/** Names and values to send; with nothing given yet an example, so that the code always runs. */
function given({ image, text, model }) {
  const none = !image && isBlank(text);
  return { image: none ? "picture.png" : image?.name, text: none ? say("code.text") : !isBlank(text) && text, model, key: hasKey() };
}

function curl({ image, text, model, key }) {
  const parts = [`curl ${shellWord(ADDRESS())}`];
  if (key) parts.push('-H "Authorization: Bearer $POLYMODAL_KEY"');
  if (image) parts.push(`-F ${shellWord(`image=@${/^[\w.-]+$/.test(image) ? image : `"${image.replace(/(["\\])/g, "\\$1")}"`}`)}`);
  if (text) parts.push(`--form-string ${shellWord(`text=${text}`)}`);
  if (model) parts.push(`-F ${shellWord(`model=${model}`)}`);
  return parts.join(" \\\n  ");
}

/** In single quotes, in which a shell reads nothing. */
const shellWord = (text) => (/^[\w@=:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** A JSON string is a string of Python and of JavaScript, too. */
const quoted = (text) => JSON.stringify(text).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");

function python({ image, text, model, key }) {
  const data = Object.entries({ text, model }).filter(([, value]) => value);
  const options = [];
  const fields = `{${data.map(([name, value]) => `${quoted(name)}: ${quoted(value)}`).join(", ")}}`;
  if (image) options.push(`files={"image": open(${quoted(image)}, "rb")},`);
  if (data.length) options.push(`${image ? "data" : "json"}=${fields},`); // without a file httpx would not send a multipart form
  if (key) options.push('headers={"Authorization": f"Bearer {os.environ[\'POLYMODAL_KEY\']}"},');
  return [
    ...(key ? ["import os", ""] : []),
    "import httpx  # pip install httpx",
    "",
    "answer = httpx.post(",
    `    ${quoted(ADDRESS())},`,
    ...options.map((option) => `    ${option}`),
    ")",
    "answer.raise_for_status()",
    "print(answer.json())",
  ].join("\n");
}

function javascript({ image, text, model, key }) {
  const lines = image ? ['import { openAsBlob } from "node:fs"; // Node 20 or newer', 'import { basename } from "node:path";', ""] : [];
  lines.push("const form = new FormData();");
  if (image) lines.push(`const file = ${quoted(image)};`, 'form.append("image", await openAsBlob(file), basename(file));');
  for (const [name, value] of Object.entries({ text, model })) if (value) lines.push(`form.append("${name}", ${quoted(value)});`);
  const headers = key ? ", headers: { Authorization: `Bearer ${process.env.POLYMODAL_KEY}` }" : "";
  lines.push(
    `const answer = await fetch(${quoted(ADDRESS())}, { method: "POST", body: form${headers} });`,
    "if (!answer.ok) throw new Error((await answer.json()).detail);",
    "console.log(await answer.json());",
  );
  return lines.join("\n");
}
