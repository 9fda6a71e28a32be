// The page at /: sends the form to POST v1/classify and draws the scores. No dependency, no outside address.

const element = (id) => document.getElementById(id);
const [form, drop, image, preview, hint, remove] = ["question", "drop", "image", "preview", "hint", "remove"].map(element);
const [model, status, value, labels] = ["model", "status", "value", "labels"].map(element);
const [access, key, links] = ["access", "key", "links"].map(element);
const KEY = "polymodal-key"; // in sessionStorage: this tab's, gone when it is closed

// A request with the key, if one was given; the field for it appears only where the service asks for one.
async function ask(address, options = {}) {
  const given = sessionStorage.getItem(KEY);
  const answer = await fetch(address, { ...options, headers: given ? { Authorization: `Bearer ${given}` } : {} });
  const body = await answer.json();
  if (answer.status === 401) {
    access.hidden = false;
    links.hidden = true; // a link cannot carry a key
    if (!given) throw new Error("This service asks for an API key.");
  }
  if (!answer.ok) throw new Error(body.detail);
  return body;
}

function showPicture() {
  const [file] = image.files;
  URL.revokeObjectURL(preview.src);
  if (file) preview.src = URL.createObjectURL(file);
  preview.hidden = remove.hidden = !file;
  hint.textContent = file ? file.name : "Drop a picture here, or choose one";
}

function bar({ label, score, selected }) {
  const row = document.createElement("li");
  row.classList.toggle("selected", Boolean(selected));
  const name = Object.assign(document.createElement("span"), { textContent: selected ? `✓ ${label}` : label });
  const amount = Object.assign(document.createElement("progress"), { value: score, max: 1 });
  amount.setAttribute("aria-label", label);
  const share = Object.assign(document.createElement("output"), { textContent: `${(100 * score).toFixed(1)} %` });
  row.append(name, amount, share);
  return row;
}

function number({ value, interval }) {
  if (value === undefined) return "";
  if (!interval) return `${value}`;
  return `${value} (${(100 * interval.coverage).toFixed(0)} %: ${interval.low} to ${interval.high})`;
}

async function classify(event) {
  event.preventDefault();
  status.textContent = "…";
  value.textContent = "";
  labels.replaceChildren();
  try {
    const body = await ask("v1/classify", { method: "POST", body: new FormData(form) });
    status.textContent = `From ${body.modalities.join(" and ")}, by ${body.model} ${body.digest.slice(0, 12)}`;
    value.textContent = number(body);
    labels.replaceChildren(...body.labels.map(bar));
  } catch (error) {
    status.textContent = error.message;
  }
}

async function offerModels() {
  const { models } = await ask("v1/models");
  model.replaceChildren(...models.map(({ name }) => new Option(name)));
  model.hidden = element("model-label").hidden = models.length < 2;
}

for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  image.files = event.dataTransfer.files;
  showPicture();
});
image.addEventListener("change", showPicture);
remove.addEventListener("click", () => {
  image.value = "";
  showPicture();
});
form.addEventListener("submit", classify);
access.addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, key.value.trim());
  key.value = "";
  access.hidden = true;
  status.textContent = "";
  await start();
});

async function start() {
  try {
    await offerModels();
    links.hidden = Boolean(sessionStorage.getItem(KEY));
  } catch (error) {
    status.textContent = error.message;
  }
}

start();
