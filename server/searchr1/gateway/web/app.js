/** The page: its question box, its history, and the thread of runs that its address names. */

import { About } from "./about.js";
import { pageInfo } from "./api.js";
import { AskBox } from "./ask-box.js";
import { HistoryList } from "./history-list.js";
import { questionOf, remember } from "./history.js";
import { apiKey, KeyForm } from "./keys.js";
import { addressOf, runsInAddress, Thread } from "./thread.js";

const NAME = document.title;
const byId = (id) => document.getElementById(id);
const side = byId("side");
let about = null;
let info = null;

const announce = (text) => {
  byId("announcer").textContent = text;
};
const keyForm = new KeyForm(
  { form: byId("key-form"), reason: byId("key-reason"), field: byId("key"), change: byId("change-key") },
  announce,
);
const thread = new Thread(byId("runs"), {
  announce,
  key: apiKey,
  onChange: showState,
  onAsked: (runs) => {
    remember(runs);
    historyList.show();
  },
  onKeyNeeded: (error, again) => keyForm.refused(error, again),
  onRefused: (question) => box.offer(question),
  remembered: questionOf,
  runTtlS: () => info?.run_ttl_s ?? null,
});
const box = new AskBox({ form: byId("ask-form"), field: byId("question"), button: byId("ask-button") }, { ask, stop });
const historyList = new HistoryList(
  { section: byId("history"), list: byId("history-list"), empty: byId("history-empty"), clear: byId("history-clear") },
  { addressOf, isShown: (runIds) => runIds[0] === runsInAddress()[0], open: openAddress, announce },
);

function ask(question) {
  keyForm.hide();
  about?.open(false);
  box.rest();
  thread.ask(question);
}

/** An example is a question of its own. */
function askAnew(question) {
  thread.clear();
  ask(question);
}

function stop() {
  if (!thread.running) return;
  box.stopping();
  thread.stop();
}

function newQuestion() {
  if (location.search !== "") history.pushState(null, "", addressOf([]));
  openRuns();
  box.focus();
}

function openAddress(address) {
  if (address !== location.href) history.pushState(null, "", address);
  openRuns();
}

/** Show the runs that the address names. */
function openRuns() {
  if (side.matches(":popover-open")) side.hidePopover();
  keyForm.hide();
  const runIds = runsInAddress();
  about?.open(runIds.length === 0);
  if (runIds.length === 0) {
    thread.clear();
    scrollTo(0, 0);
  } else thread.show(runIds);
  historyList.show();
}

function showState() {
  const { running, isEmpty, title } = thread;
  box.running = running;
  box.placeholder = isEmpty ? "Ask a question" : "Ask a follow-up question";
  if (about) about.disabled = running;
  document.body.classList.toggle("has-runs", !isEmpty);
  byId("intro").hidden = !isEmpty;
  document.title = title ? `${title} · ${NAME}` : NAME;
}

async function loadInfo() {
  try {
    info = await pageInfo();
  } catch (error) {
    console.warn(error);
    return;
  }
  byId("model").textContent = info.model;
  byId("docs-link").hidden = !info.has_docs;
  about = new About({ fold: byId("about"), text: byId("about-text"), list: byId("example-list") }, info, askAnew);
  about.open(thread.isEmpty);
  about.disabled = thread.running;
  // A run that is being opened asks for the key by itself.
  if (info.needs_key && apiKey() === null && thread.isEmpty) keyForm.ask("This server needs an API key.", () => box.focus());
}

function showConnection() {
  byId("offline").hidden = navigator.onLine;
}

for (const control of document.querySelectorAll("[data-new]")) {
  control.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    newQuestion();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !side.matches(":popover-open")) stop();
});

history.scrollRestoration = "manual";
addEventListener("popstate", openRuns);
addEventListener("online", showConnection);
addEventListener("offline", showConnection);
showConnection();
loadInfo();
openRuns();
