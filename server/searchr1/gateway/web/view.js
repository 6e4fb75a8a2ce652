/** One run on the page: its question, its answer with the sources, the steps that led there, and what can be done with it. */

import { actionBar, copyText } from "./actions.js";
import { AnswerView } from "./answer.js";
import { runDetails } from "./details.js";
import { atEnd, el, toEnd } from "./dom.js";
import { count, INVALID_ACTION, NO_ANSWER, sentence } from "./format.js";
import { Sources } from "./sources.js";
import { Pulse, Steps } from "./steps.js";
import { sourceChip, Thought } from "./thought.js";

/** Longer questions are set smaller. */
const LONG_CHARS = 90;
let numViews = 0;

export class RunView {
  #announce;
  #acts;
  #live;
  #question = el("h2", { class: "asked", dir: "auto", tabindex: "-1" });
  #answer;
  #sources;
  #steps = new Steps();
  #pulse = new Pulse();
  #after = el("div", { class: "after" });
  #model = "";
  #thoughts = [];
  #searches = [];
  #found = [];
  #thought = null;
  #search = null;
  #answerText = null;
  #lastInvalid = null;
  #connectionNote = null;

  /**
   * `announce(text)` tells assistive technology of a step. `acts` is what the reader can do: `retry()`, `copyLink()`,
   * `saveJson()`. A run that is not `live` is shown as it was: nothing scrolls, moves or is announced on the way.
   */
  constructor({ question, live, announce, acts }) {
    numViews += 1;
    this.#announce = announce;
    this.#acts = acts;
    this.#live = live;
    this.#sources = new Sources(`run-${numViews}`);
    this.#answer = new AnswerView();
    this.#ask(question ?? "");
    const parts = [this.#question, this.#answer.node, this.#sources.node, this.#steps.node, this.#pulse.node, this.#after];
    this.node = el("article", { class: live ? "run live" : "run", "aria-busy": "true" }, ...parts);
    this.#pulse.show(live ? "Sending the question" : "Loading");
  }

  /** The answer's text; null where there is none (yet). */
  get answer() {
    return this.#answerText;
  }

  /** Show one event. Types that this page does not know change nothing. */
  handle(event) {
    const show = HANDLERS[event.type];
    if (show) this.#change(() => show(this, event));
  }

  /** Bring the question to the top of the window, where the steps grow under it. */
  reveal() {
    this.node.scrollIntoView({ block: "start" });
  }

  /** The connection is "lost" and being replaced, or "back". */
  connection(state) {
    this.#connectionNote?.remove();
    this.#connectionNote = null;
    if (state === "lost") {
      this.#connectionNote = el("p", { class: "note connection" }, "Connection lost. Reconnecting…");
      this.#change(() => this.#after.append(this.#connectionNote));
    }
    this.#tell(state === "lost" ? "Connection lost. Reconnecting." : "Connected again.");
  }

  /** The run can't be shown any further, for a reason outside it. `actions` maps labels to what they do. */
  failed(message, actions, { problem = true } = {}) {
    this.#change(() => {
      this.#settle();
      this.#note(message, { problem, actions });
    });
    this.#announce(message);
  }

  started({ question, model }) {
    this.#ask(question);
    this.#model = model;
    this.#pulse.show("Thinking");
  }

  queued({ place }) {
    this.#pulse.show(place > 0 ? `Waiting to start, ${place} before this one` : "Waiting to start");
  }

  thought(event) {
    if (this.#thought === null) {
      if (event.text.trim() === "") return;
      const thought = new Thought((number, title) => this.#quoted(number, title));
      this.#begin("think", "Thought", thought.node);
      this.#thought = thought;
      this.#thoughts.push({ turn: event.turn, text: "" });
      this.#pulse.show("Thinking");
    }
    this.#thought.append(event.text);
    this.#thoughts.at(-1).text += event.text;
  }

  searching(event) {
    const query = event.query || "(empty query)";
    this.#search = this.#begin("search", "Search", el("q", { class: "query", dir: "auto" }, query));
    this.#pulse.show("Searching");
    this.#tell(`Searching: ${query}`);
  }

  found(event) {
    const { passages, query } = event;
    this.#searches.push(event);
    this.#steps.count({ numPassages: passages.length });
    this.#found = passages.map((passage) => this.#sources.add(passage, query));
    const chips = [...new Set(this.#found)].map((source) => el("li", {}, sourceChip(source)));
    const read = chips.length > 0 ? el("ul", { class: "read" }, ...chips) : el("p", { class: "nothing" }, "Nothing was found.");
    this.#search?.append(read);
    this.#search = null;
    this.#pulse.show("Reading");
    this.#tell(`Found ${count(passages.length, "passage")}. Reading.`);
  }

  searchFailed(event) {
    this.#searches.push(event);
    this.#found = [];
    this.#steps.count({ numPassages: 0, failed: true });
    this.#search?.classList.add("bad");
    this.#search?.append(el("p", { class: "complaint" }, `${sentence(event.error.message)} The model goes on without passages.`));
    this.#search = null;
    this.#pulse.show("Thinking");
    this.#tell("The search failed. The model goes on without passages.");
  }

  invalid(event) {
    this.#answer.drop();
    this.#steps.fold(false);
    const what = INVALID_ACTION[event.reason] ?? INVALID_ACTION.no_action;
    const text = el("p", { class: "complaint" }, `${what}; retrying.`);
    this.#begin("invalid", "Invalid action", text).classList.add("bad");
    this.#lastInvalid = { what, text };
    this.#pulse.show("Trying again");
    this.#tell(`${what}; retrying.`);
  }

  answering(event) {
    this.#openAnswer();
    this.#answer.append(event.text);
  }

  answered(event) {
    this.#openAnswer();
    this.#answerText = event.text;
    const cited = this.#sources.cite(event.citations);
    this.#answer.settle(event.text, cited, this.#searches.length > 0);
    this.#sources.show(true);
    this.#pulse.hide();
    this.#announce(event.text.trim() ? `Answer: ${event.text}` : "The model gave an empty answer.");
  }

  completed({ status, usage }) {
    this.#settle(usage.duration_ms);
    if (this.#answerText === null) {
      const message = NO_ANSWER[status] ?? NO_ANSWER.completed;
      this.#note(message, {});
      this.#announce(message);
    }
    this.#close(usage);
  }

  broke({ error, usage }) {
    const message = `The run failed. ${sentence(error.message)}`;
    this.#settle(usage.duration_ms);
    this.#note(message, { problem: true });
    this.#announce(message);
    this.#close(usage);
  }

  #ask(question) {
    const isLong = question.length > LONG_CHARS;
    this.#question.textContent = question;
    this.#question.classList.toggle("long", isLong);
    // A long one scrolls within its height, which a keyboard must be able to do.
    this.#question.tabIndex = isLong ? 0 : -1;
  }

  /**
   * Whoever follows a live run at its end goes on doing so, and is taken to the answer once there is one; whoever has
   * scrolled away stays there. A run that is only shown again does not scroll.
   */
  #change(change) {
    const follow = this.#live && atEnd();
    change();
    if (!follow) return;
    if (this.#answer.isOpen) this.reveal();
    else toEnd();
  }

  #tell(text) {
    if (this.#live) this.#announce(text);
  }

  #begin(kind, label, ...body) {
    this.#endThought();
    this.#lastInvalid = null;
    return this.#steps.begin(kind, label, ...body);
  }

  #endThought() {
    this.#thought?.end();
    this.#thought = null;
  }

  /** The source of passage `number` of the last search, if it bears that title. */
  #quoted(number, title) {
    const source = this.#found[number - 1];
    return source?.title === title.trim() ? source : null;
  }

  /** The answer stands on top, and the steps fold away. */
  #openAnswer() {
    if (this.#answer.isOpen) return;
    this.#endThought();
    this.#steps.end();
    this.#answer.open();
    this.#steps.fold(true);
    this.#pulse.show("Answering");
  }

  #note(message, { problem = false, actions = {} }) {
    const buttons = Object.entries(actions).map(([label, act]) =>
      el("button", { class: "quiet", type: "button", onclick: () => act() }, label),
    );
    this.#after.append(el("div", { class: problem ? "note note-problem" : "note" }, el("p", {}, message), ...buttons));
  }

  /** Nothing moves any more, and nothing claims that more will come. */
  #settle(ms = null) {
    this.#connectionNote?.remove();
    this.#endThought();
    if (this.#search) this.#search.append(el("p", { class: "nothing" }, "Not finished."));
    this.#search = null;
    if (this.#answerText === null) {
      this.#answer.drop();
      this.#steps.fold(false);
    } else this.#steps.fold(true);
    if (this.#lastInvalid) this.#lastInvalid.text.textContent = `${this.#lastInvalid.what}.`;
    this.#pulse.hide();
    this.#steps.settle(ms);
    if (this.#steps.isEmpty) this.#steps.node.remove();
    this.#sources.show(this.#answerText !== null);
    this.node.setAttribute("aria-busy", "false");
    this.node.classList.add("ended");
  }

  #close(usage) {
    const { retry, copyLink, saveJson } = this.#acts;
    const actions = [
      ["Copy link", "Copied", copyLink],
      ["Ask again", null, retry],
      ["Save JSON", null, saveJson],
    ];
    if (this.#answerText?.trim()) actions.unshift(["Copy answer", "Copied", () => copyText(this.#answerText)]);
    const details = runDetails({ model: this.#model, usage, searches: this.#searches, thoughts: this.#thoughts });
    this.#after.append(actionBar(actions, this.#announce), details);
  }
}

const HANDLERS = {
  "run.started": (view, event) => view.started(event),
  "run.queued": (view, event) => view.queued(event),
  "think.delta": (view, event) => view.thought(event),
  "search.started": (view, event) => view.searching(event),
  "search.completed": (view, event) => view.found(event),
  "search.failed": (view, event) => view.searchFailed(event),
  "action.invalid": (view, event) => view.invalid(event),
  "answer.delta": (view, event) => view.answering(event),
  "answer.completed": (view, event) => view.answered(event),
  "run.completed": (view, event) => view.completed(event),
  "run.failed": (view, event) => view.broke(event),
};
