// The request that the page makes, as a command or a program to copy.

import { hasKey } from "./api.js";
import { element, make } from "./dom.js";
import { inputsOf, sampleFile } from "./inputs.js";
import { message } from "./messages.js";

/** @typedef {{values: import("./inputs.js").Values, inputs: import("./inputs.js").Input[], model?: string}} Input */

const ADDRESS = () => new URL("v1/classify", document.baseURI).href;
const LANGUAGES = { curl, python, javascript };

let shown = "curl";
/** @type {Input} */
let current = { values: {}, inputs: inputsOf(null) };

/** Show the code for these inputs. @param {Input} input */
export function drawSnippet(input) {
  current = input;
  element("snippet").firstElementChild.textContent = LANGUAGES[shown](fieldsOf(input));
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
        message(`code.${language}`),
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
  drawSnippet(current);
}

function choose(language) {
  shown = language;
  drawSnippet(current);
}

async function copy() {
  const button = element("copy");
  const code = element("snippet").firstElementChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = message("code.copied");
  } catch {
    // Browsers allow copying only on https and localhost; elsewhere the code is selected, ready for the keys.
    getSelection().selectAllChildren(code);
    button.textContent = message("code.selected");
  }
  setTimeout(() => (button.textContent = message("code.copy")), 2000);
}

/** Names and values to send; without inputs an example, so that the code always runs. */
function fieldsOf({ values, inputs, model }) {
  const entries = Object.keys(values).length
    ? Object.entries(values)
    : inputs.map((input) => [input.name, input.textual ? message("code.text") : new File([], sampleFile(input))]);
  const files = entries.filter(([, value]) => value instanceof File).map(([name, file]) => [name, file.name]);
  const fields = entries.filter(([, value]) => !(value instanceof File));
  if (model) fields.push(["model", model]);
  return { files, fields, key: hasKey() };
}

function curl({ files, fields, key }) {
  const parts = [`curl ${shellWord(ADDRESS())}`];
  if (key) parts.push('-H "Authorization: Bearer $POLYMODAL_KEY"');
  for (const [name, file] of files) parts.push(`-F ${shellWord(`${name}=@${/^[\w.-]+$/.test(file) ? file : `"${file.replace(/(["\\])/g, "\\$1")}"`}`)}`);
  for (const [name, value] of fields) parts.push(`--form-string ${shellWord(`${name}=${value}`)}`);
  return parts.join(" \\\n  ");
}

/** In single quotes, in which a shell reads nothing. */
const shellWord = (text) => (/^[\w@=:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** A JSON string is a string of Python and of JavaScript, too. */
const quoted = (text) => JSON.stringify(text).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");

function python({ files, fields, key }) {
  const options = [];
  const opened = files.map(([name, file]) => `${quoted(name)}: open(${quoted(file)}, "rb")`);
  const values = fields.map(([name, value]) => `${quoted(name)}: ${quoted(value)}`);
  if (files.length) options.push(`files={${opened.join(", ")}},`);
  if (fields.length) options.push(`${files.length ? "data" : "json"}={${values.join(", ")}},`); // without a file httpx would not send a multipart form
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

function javascript({ files, fields, key }) {
  const lines = files.length ? ['import { openAsBlob } from "node:fs"; // Node 20 or newer', 'import { basename } from "node:path";', ""] : [];
  lines.push("const form = new FormData();");
  for (const [index, [name, file]] of files.entries()) {
    const variable = `file${index ? index + 1 : ""}`;
    lines.push(`const ${variable} = ${quoted(file)};`, `form.append(${quoted(name)}, await openAsBlob(${variable}), basename(${variable}));`);
  }
  for (const [name, value] of fields) lines.push(`form.append(${quoted(name)}, ${quoted(value)});`);
  const headers = key ? ", headers: { Authorization: `Bearer ${process.env.POLYMODAL_KEY}` }" : "";
  lines.push(
    `const answer = await fetch(${quoted(ADDRESS())}, { method: "POST", body: form${headers} });`,
    "if (!answer.ok) throw new Error((await answer.json()).detail);",
    "console.log(await answer.json());",
  );
  return lines.join("\n");
}
