// Classify from JavaScript; in a browser the file comes from <input type="file">.
//
//     make serve
//     node examples/classify.mjs examples/boat.png 'a sailing dinghy has capsized'

import { readFile } from "node:fs/promises";

const [image, text] = process.argv.slice(2);
const url = process.env.URL ?? "http://127.0.0.1:8000";

const form = new FormData();
if (image) form.append("image", new Blob([await readFile(image)]), "image");
if (text) form.append("text", text);
form.append("top_k", "3");

const response = await fetch(`${url}/v1/classify`, { method: "POST", body: form });
const body = await response.json();
if (!response.ok) {
  console.error(`${body.status} ${body.code}: ${body.detail}`); // body.code is for programs, body.detail for people
  process.exit(1);
}
for (const { label, score } of body.labels) console.log(`${(100 * score).toFixed(1).padStart(5)} %  ${label}`);
