/** The page: one question at a time, from the ask box to a run's view. */

import { ApiError, modelName, research } from "./api.js";
import { RunView } from "./view.js";

const KEY_NAME = "searchr1.api-key";
/** A second click this soon after asking is a double click, not a wish to stop. */
const DOUBLE_CLICK_MS = 400;

const byId = (id) => document.getElementById(id);
const page = {
  model: byId("model"),
  changeKey: byId("change-key"),
  intro: byId("intro"),
  askForm: byId("ask-form"),
  question: byId("question"),
  askButton: byId("ask-button"),
  keyForm: byId("key-form"),
  keyReason: byId("key-reason"),
  key: byId("key"),
  examples: byId("examples"),
  run: byId("run"),
  announcer: byId("announcer"),
};

/** The run in progress: `{ abort: AbortController, startedAt: number }`, or null. */
let current = null;
/** The question that waits for a key, or null. */
let pending = null;

const apiKey = () => sessionStorage.getItem(KEY_NAME);
const announce = (text) => {
  page.announcer.textContent = text;
};

async function ask(question) {
  const mine = { abort: new AbortController(), startedAt: performance.now() };
  current = mine;
  showRunning(true);
  page.intro.hidden = true;
  page.examples.open = false;
  page.askForm.classList.add("asked-once");
  const view = new RunView(page.run, question, { announce, onRetry: () => submit(question) });
  try {
    for await (const event of research(question, { key: apiKey(), signal: mine.abort.signal })) {
      if (event.type === "run.started") showModel(event.model);
      view.handle(event);
    }
  } catch (error) {
    if (mine.abort.signal.aborted) view.stopped();
    else if (error instanceof ApiError && error.status === 401) askForKey(question, keyReason(error));
    else if (error instanceof ApiError || error.name === "ConnectionError") view.failed(describe(error));
    else {
      view.failed("This page met an error of its own. The browser's console has the details.");
      throw error;
    }
  } finally {
    current = null;
    showRunning(false);
  }
}

function submit(text) {
  const question = text.trim();
  if (current !== null) return;
  if (question === "") {
    page.question.focus();
    return;
  }
  page.question.value = question;
  page.keyForm.hidden = true;
  placeFocus();
  ask(question);
}

/** What was clicked may go away with the new run; a touch keyboard would cover the steps. */
function placeFocus() {
  if (matchMedia("(pointer: coarse)").matches) page.question.blur();
  else page.question.focus({ preventScroll: true });
}

function stop() {
  current?.abort.abort();
}

function showRunning(running) {
  page.askButton.textContent = running ? "Stop" : "Ask";
  page.askForm.classList.toggle("running", running);
  page.run.setAttribute("aria-busy", String(running));
  for (const button of page.examples.querySelectorAll("button")) button.disabled = running;
}

function showModel(name) {
  page.model.textContent = name ?? "";
}

function describe(error) {
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  return `${error.message}${wait}`;
}

/** Without a key the server's message tells how to send a header, which is this page's own business. */
function keyReason(error) {
  return apiKey() === null ? "This server needs an API key." : error.message;
}

function askForKey(question, reason) {
  pending = question;
  page.run.hidden = true;
  page.keyReason.textContent = reason;
  page.keyForm.hidden = false;
  page.key.value = "";
  page.key.focus();
  announce(`${reason} Enter an API key.`);
}

function useKey(text) {
  const key = text.trim();
  // A header can hold visible ASCII only; fetch would refuse anything else with an error that says nothing.
  if (!/^[\x21-\x7e]+$/.test(key)) {
    page.keyReason.textContent = "An API key has only letters, digits and signs, with no spaces.";
    page.key.focus();
    return;
  }
  sessionStorage.setItem(KEY_NAME, key);
  page.keyForm.hidden = true;
  page.changeKey.hidden = false;
  page.question.focus();
  const question = pending;
  pending = null;
  if (question === null) loadModel();
  else submit(question);
}

async function loadModel() {
  try {
    showModel(await modelName({ key: apiKey() }));
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) askForKey(null, keyReason(error));
    else showModel("model unknown");
  }
}

page.askForm.addEventListener("submit", (event) => {
  event.preventDefault();
  if (current === null) submit(page.question.value);
  else if (performance.now() - current.startedAt > DOUBLE_CLICK_MS) stop();
});

page.question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit(page.question.value);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
});

page.examples.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) submit(button.textContent);
});

page.keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(page.key.value);
});

page.changeKey.addEventListener("click", () => askForKey(null, "Enter the key to use from now on."));

page.changeKey.hidden = apiKey() === null;
loadModel();
