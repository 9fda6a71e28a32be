// The page at /: wires its parts together. Where one is, stands after the #, so that links and the back button work.

import { drawProblem } from "./answer.js";
import * as service from "./ask.js";
import { dropBatch, forgetBatch, startBatch } from "./batch.js";
import { drawCard } from "./card.js";
import { element, make } from "./dom.js";
import { offerExamples } from "./examples.js";
import { isPicture } from "./files.js";
import { picture, setPicture, watchPicture } from "./picture.js";
import { ask, forgetAnswers } from "./question.js";
import { count, fill, known, say } from "./say.js";
import { drawSnippet, startSnippets } from "./snippets.js";

const VIEWS = { "#try": "try", "#batch": "batch", "#model": "model-view" };
const THEMES = ["auto", "light", "dark"];

/** The chosen model as the service describes it; without card and report where only that much may be known. */
let model = null;
let severalModels = false;

const view = () => (location.hash in VIEWS ? location.hash : "#try");

function showView() {
  for (const [hash, id] of Object.entries(VIEWS)) element(id).hidden = hash !== view();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${say(`nav.${view().slice(1)}`)} · Polymodal`;
}

/** Something of the question changed. */
function asked(options) {
  ask(model, options);
  drawSnippet({ image: picture(), text: element("text").value, model: severalModels ? model?.name : undefined });
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
  const names = (model?.inputs ?? []).map(({ name }) => name);
  element("picture-part").hidden = Boolean(model) && !names.includes("image");
  element("text-part").hidden = Boolean(model) && !names.includes("text");
  element("try-lead").textContent = leadOf(model);
  drawCard(model?.card === undefined ? null : model, why || say("card.unknown"));
  forgetAnswers();
  forgetBatch();
  asked({ atOnce: true });
}

function leadOf(model) {
  if (!model) return say("try.lead");
  if (!model.labels.length) return say("try.lead-number");
  const key = model.task === "multi-label" ? "try.lead-several" : "try.lead-labels";
  return say(key, { count: count(model.labels.length) });
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
  service.onKeyWanted(() => {
    element("access-why").textContent = say(service.hasKey() ? "key.wrong" : "key.wanted");
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
  const tell = () => {
    const theme = root.dataset.theme ?? "auto";
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
    button.setAttribute("aria-label", say("theme", { theme: say(`theme.${theme}`) }));
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("polymodal-theme", next);
    } catch {
      button.title = say("theme.not-kept"); // storage is switched off: the choice holds until the page is left
    }
    tell();
  });
  tell();
}

/** Pictures may be dropped anywhere, and pasted wherever one is. */
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
    const { dataTransfer } = event;
    const single = dataTransfer.files.length === 1 && isPicture(dataTransfer.files[0]);
    if (view() !== "#batch" && single) {
      location.hash = "#try";
      setPicture(dataTransfer.files[0]);
    } else {
      location.hash = "#batch";
      dropBatch(dataTransfer);
    }
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    if (!pasted || view() !== "#try") return;
    event.preventDefault();
    setPicture(pasted);
  });
}

function main() {
  fill();
  for (const link of element("links").querySelectorAll("a")) {
    const key = `link.${link.getAttribute("href")}`;
    if (known(key)) link.textContent = say(key);
  }
  startTheme();
  startAccess();
  startSnippets();
  startDropping();
  startBatch(() => model);
  watchPicture(() => asked({ atOnce: true }));
  offerExamples(({ image, text }) => {
    element("text").value = text;
    setPicture(image);
    element("answer").scrollIntoView({ block: "nearest" }); // on a phone it stands below the form
  }, drawProblem);
  element("text").addEventListener("input", () => asked());
  element("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) asked({ atOnce: true });
  });
  element("question").addEventListener("submit", (event) => {
    event.preventDefault();
    asked({ atOnce: true });
  });
  window.addEventListener("hashchange", () => {
    showView();
    window.scrollTo(0, 0);
  });
  showView();
  start();
}

main();
