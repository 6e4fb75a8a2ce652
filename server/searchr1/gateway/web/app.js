/** The page: its ask box, its examples, and the thread of runs that its address names. */

import { ApiError, modelName } from "./api.js";
import { el, onEnter } from "./dom.js";
import { examplesFor } from "./examples.js";
import { apiKey, KeyForm } from "./keys.js";
import { runsInAddress, Thread } from "./thread.js";

/** A second click this soon after asking is a double click, not a wish to stop. */
const DOUBLE_CLICK_MS = 400;

const byId = (id) => document.getElementById(id);
const page = {
  model: byId("model"),
  intro: byId("intro"),
  askForm: byId("ask-form"),
  question: byId("question"),
  askButton: byId("ask-button"),
  examples: byId("examples"),
  runs: byId("runs"),
  announcer: byId("announcer"),
};
let runningSince = Number.NaN;

const announce = (text) => {
  page.announcer.textContent = text;
};
const keyForm = new KeyForm(
  { form: byId("key-form"), reason: byId("key-reason"), field: byId("key"), change: byId("change-key") },
  announce,
);
const thread = new Thread(page.runs, {
  announce,
  key: apiKey,
  onRunning: showRunning,
  onModel: showModel,
  onKeyNeeded: (error, again) => keyForm.refused(error, again),
});

function ask(text) {
  const question = text.trim();
  if (thread.running) return;
  if (question === "") {
    page.question.focus();
    return;
  }
  page.question.value = question;
  leaveIntro();
  placeFocus();
  thread.ask(question);
}

/** What was clicked may go away with the new run; a touch keyboard would cover the steps. */
function placeFocus() {
  if (matchMedia("(pointer: coarse)").matches) page.question.blur();
  else page.question.focus({ preventScroll: true });
}

function leaveIntro() {
  keyForm.hide();
  page.intro.hidden = true;
  page.examples.open = false;
  page.askForm.classList.add("asked-once");
}

function showRunning(running) {
  if (running) runningSince = performance.now();
  page.askButton.textContent = running ? "Stop" : "Ask";
  page.askForm.classList.toggle("running", running);
  page.runs.setAttribute("aria-busy", String(running));
  for (const button of page.examples.querySelectorAll("button")) button.disabled = running;
}

function stop() {
  if (!thread.running) return;
  page.askButton.textContent = "Stopping…";
  thread.stop();
}

function showModel(name) {
  page.model.textContent = name ?? "";
  const questions = examplesFor(name);
  page.examples.hidden = questions.length === 0;
  const buttons = questions.map((question) => el("button", { type: "button", onclick: () => ask(question) }, question));
  for (const button of buttons) button.disabled = thread.running;
  byId("example-list").replaceChildren(...buttons.map((button) => el("li", {}, button)));
}

async function loadModel() {
  try {
    showModel(await modelName({ key: apiKey() }));
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) page.model.textContent = "model unknown";
    // A run that is being opened asks for the key by itself.
    else if (runsInAddress().length === 0) keyForm.refused(error, loadModel);
  }
}

function openAddress() {
  const runIds = runsInAddress();
  if (runIds.length > 0) leaveIntro();
  thread.show(runIds);
}

page.askForm.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!thread.running) ask(page.question.value);
  else if (performance.now() - runningSince > DOUBLE_CLICK_MS) stop();
});

// Not by way of the form, whose button means Stop while a run goes on.
onEnter(page.question, () => ask(page.question.value));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
});

addEventListener("popstate", openAddress);
loadModel();
openAddress();
