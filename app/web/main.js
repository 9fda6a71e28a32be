// The page at /: wires its modules together. The view is named after the #, so that links and the back button work.

import { drawProblem, leadWithoutTarget } from "./answer.js";
import * as service from "./api.js";
import { clearResults, dropBatch, startBatch } from "./batch.js";
import { drawCard } from "./card.js";
import { compareWith, showCompare, startCompare, takePictures } from "./compare.js";
import { element, make } from "./dom.js";
import { exampleFor, offerExamples } from "./examples.js";
import { comparable, currentValues, inputFor, inputsOf, onInputChange, setOf, setValues, showInputs } from "./inputs.js";
import { count, fill, message, messageFor, messageOr } from "./messages.js";
import { clearAnswers, submit } from "./request.js";
import { drawSnippet, startSnippets } from "./snippets.js";

const VIEWS = { "#try": "try", "#batch": "batch", "#compare": "compare", "#model": "model-view" };
const THEMES = ["auto", "light", "dark"];

/** The chosen model as the service describes it; without card and report where the key may not read them; null where it may not read that. */
let model; // undefined until the service has answered
let severalModels = false;

/** The view of the address; that of comparisons only for models which can compare. */
function view() {
  const shown = location.hash !== "#compare" || model === undefined || comparable(model);
  return shown && location.hash in VIEWS ? location.hash : "#try";
}

function showView() {
  for (const [hash, id] of Object.entries(VIEWS)) element(id).hidden = hash !== view();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  element("compare-link").hidden = !comparable(model);
  document.title = `${message(`nav.${view().slice(1)}`)} · Polymodal`;
  if (view() === "#compare") showCompare();
}

/** Classify the current inputs, and show the code for them. */
function update(options) {
  submit(model, options);
  drawSnippet({ values: currentValues(), inputs: inputsOf(model), model: severalModels ? model?.name : undefined });
}

async function chooseModel(summary) {
  model = summary;
  let why = "";
  try {
    const described = await service.model(summary.name);
    if (element("model").value !== summary.name) return; // meanwhile another one was chosen
    model = described;
  } catch (error) {
    if (!(error instanceof service.Problem)) throw error;
    why = [error.message, error.detail].filter(Boolean).join(" ");
  }
  showModel(why);
}

function showModel(why = "") {
  drawInputs();
  drawCard(model?.card === undefined ? null : model, why || message("card.unknown"));
  clearAnswers();
  clearResults();
  compareWith(model);
  showView();
  update({ atOnce: true });
}

/** Widgets and words for the inputs of the model. */
function drawInputs() {
  const inputs = inputsOf(model);
  fill(setOf(inputs));
  showInputs(inputs);
  element("examples").hidden = element("batch-examples").hidden = !Object.keys(exampleFor(inputs)).length;
  if (model) element("try-lead").textContent = messageFor(leadOf(model), setOf(inputs), { count: count(model.labels.length) });
}

function leadOf({ labels, target }) {
  if (!target) return leadWithoutTarget(model);
  if (!labels.length) return "try.lead-number";
  return target === "multi-label" ? "try.lead-several" : "try.lead-labels";
}

async function start() {
  element("links").hidden = service.hasKey(); // a link cannot carry a key
  element("forget").hidden = !service.hasKey();
  try {
    const { models, default: first } = await service.models();
    const choice = element("model");
    severalModels = models.length > 1;
    choice.replaceChildren(...models.map(({ name }) => make("option", { value: name, selected: name === first }, name)));
    element("model-choice").hidden = !severalModels;
    choice.onchange = () => chooseModel(models.find(({ name }) => name === choice.value));
    await chooseModel(models.find(({ name }) => name === first));
  } catch (error) {
    if (!(error instanceof service.Problem)) throw error;
    model = null;
    showModel([error.message, error.detail].filter(Boolean).join(" "));
  }
}

function startAccess() {
  service.onKeyNeeded(() => {
    element("access-why").textContent = message(service.hasKey() ? "key.wrong" : "key.needed");
    element("access").hidden = false;
    element("links").hidden = true;
    element("forget").hidden = !service.hasKey();
  });
  element("access").addEventListener("submit", async (event) => {
    event.preventDefault();
    service.useKey(element("key").value.trim());
    element("key").value = "";
    element("access").hidden = true;
    await start();
    if (element("access").hidden) element("main").focus();
    else element("key").focus();
  });
  element("forget").addEventListener("click", () => {
    service.forgetKey();
    start();
  });
}

function startTheme() {
  const button = element("theme");
  const root = document.documentElement;
  const show = () => {
    const theme = root.dataset.theme ?? "auto";
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
    button.setAttribute("aria-label", message("theme", { theme: message(`theme.${theme}`) }));
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("polymodal-theme", next);
    } catch {
      button.title = message("theme.not-kept"); // storage is switched off: the choice holds until the page is left
    }
    show();
  });
  show();
}

/** Files may be dropped anywhere, and pasted wherever one is. */
function startDropping() {
  let inside = 0;
  const over = (on) => document.body.classList.toggle("over", on);
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    inside += 1;
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    inside -= 1;
    if (inside <= 0) over(false);
  });
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside = 0;
    over(false);
    const { dataTransfer, target } = event;
    if (view() === "#compare" && takePictures([...dataTransfer.files], target)) return;
    const [file, ...more] = dataTransfer.files;
    const input = file && !more.length && inputFor(file, target);
    if (view() !== "#batch" && input) {
      location.hash = "#try";
      setValues({ [input.name]: file });
    } else {
      location.hash = "#batch";
      dropBatch(dataTransfer);
    }
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((file) => inputFor(file));
    if (!pasted) return;
    if (view() === "#compare" && takePictures([pasted], event.target)) event.preventDefault();
    if (view() !== "#try") return;
    event.preventDefault();
    setValues({ [inputFor(pasted).name]: pasted });
  });
}

function main() {
  drawInputs();
  for (const link of element("links").querySelectorAll("a")) {
    link.textContent = messageOr(`link.${link.getAttribute("href")}`, link.textContent);
  }
  startTheme();
  startAccess();
  startSnippets();
  startDropping();
  startBatch(() => model);
  startCompare();
  onInputChange((atOnce) => update({ atOnce }));
  offerExamples(element("example-list"), (picture, text) => {
    setValues(exampleFor(inputsOf(model), picture, text));
    element("answer").scrollIntoView({ block: "nearest" }); // on a phone it is below the form
  }, drawProblem);
  element("request").addEventListener("keydown", (event) => {
    if (event.target.matches("textarea") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) update({ atOnce: true });
  });
  element("request").addEventListener("submit", (event) => {
    event.preventDefault();
    update({ atOnce: true });
  });
  window.addEventListener("hashchange", () => {
    showView();
    window.scrollTo(0, 0);
  });
  showView();
  start();
}

main();
