/** One run on the page: its question, a timeline that grows with its events, its sources, its figures. */

import { actionBar, copyText } from "./actions.js";
import { el, FlowingText, following } from "./dom.js";
import { figures } from "./figures.js";
import { age, count, INVALID_ACTION, NO_ANSWER, sentence } from "./format.js";
import { Sources } from "./sources.js";
import { Timeline } from "./timeline.js";

let numViews = 0;

export class RunView {
  #announce;
  #acts;
  #live;
  #question = el("h2", { class: "asked", dir: "auto", tabindex: "-1" });
  #timeline = new Timeline();
  #main;
  #sources;
  #thoughts = [];
  #flow = null;
  #search = null;
  #answer = null;
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
    this.#main = el("div", { class: "run-main" }, this.#timeline.node);
    this.#question.textContent = question ?? "";
    this.node = el("article", { class: live ? "run live" : "run" }, this.#question, this.#main, this.#sources.node);
    this.#timeline.wait(live ? "Sending the question" : "Loading the run");
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

  /** Put the focus on the question, for whoever has just asked it. */
  focus() {
    this.#question.focus();
  }

  /** The connection is "lost" and being replaced, or "back". */
  connection(state) {
    this.#connectionNote?.remove();
    this.#connectionNote = null;
    if (state === "lost") {
      this.#connectionNote = el("p", { class: "note connection" }, "Connection lost. Reconnecting…");
      this.#change(() => this.#main.append(this.#connectionNote));
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

  started({ question }) {
    this.#question.textContent = question;
    this.#timeline.wait("Thinking");
  }

  thought(event) {
    if (this.#flow === null) {
      if (event.text.trim() === "") return;
      const body = el("p", { class: "thought", dir: "auto" });
      const step = this.#begin("think", "Think", event, { folds: true }, body);
      this.#thoughts.push(step);
      this.#flow = new FlowingText(body);
    }
    this.#flow.append(event.text);
  }

  searching(event) {
    const query = event.query || "(empty query)";
    this.#search = this.#begin("search", "Search", event, {}, el("q", { class: "query", dir: "auto" }, query));
    this.#tell(`Searching: ${query}`);
  }

  found(event) {
    const { passages, query, provider, duration_ms } = event;
    this.#search?.facts(...cacheBadges(event));
    this.#search?.end(null, duration_ms);
    const links = passages.map((passage) => {
      const source = this.#sources.add(passage, { query, provider });
      return el("li", {}, sourceLink(source, passage.snippet));
    });
    const facts = [links.length > 0 ? count(links.length, "passage") : "nothing was found"];
    this.#begin("read", "Read", event, { facts }, links.length > 0 && el("ul", { class: "read" }, ...links));
    this.#tell(`Found ${count(passages.length, "passage")}. Reading.`);
  }

  searchFailed({ error, duration_ms, provider }) {
    const complaint = `${sentence(error.message)} The model goes on without passages.`;
    this.#search?.bad();
    this.#search?.facts(badge("failed", "failed"), ...(provider ? [provider] : []));
    this.#search?.append(el("p", { class: "complaint" }, complaint));
    this.#search?.end(null, duration_ms);
    this.#search = null;
    this.#tell("The search failed. The model goes on without passages.");
    this.#timeline.wait("Thinking");
  }

  invalid(event) {
    this.#dropAnswer();
    const what = INVALID_ACTION[event.reason] ?? INVALID_ACTION.no_action;
    const text = el("p", { class: "complaint" }, `${what}; retrying.`);
    this.#begin("invalid", "Invalid action", event, {}, text).bad();
    this.#tell(`${what}; retrying.`);
    this.#lastInvalid = { what, text };
  }

  answering(event) {
    this.#openAnswer(event);
    this.#answer.flow.append(event.text);
  }

  answered(event) {
    this.#openAnswer(event);
    this.#answerText = event.text;
    const cited = this.#sources.cite(event.citations);
    const { step, body } = this.#answer;
    body.replaceChildren(
      event.text ? el("span", { class: "answer-text" }, event.text) : "The model gave an empty answer.",
      ...cited.map(citationLink),
    );
    if (cited.length === 0) {
      step.append(el("p", { class: "uncited" }, "None of the passages contains this answer word for word."));
    }
    this.#timeline.end(event.t_ms);
    this.#announce(`Answer: ${event.text}`);
  }

  completed({ status, usage, t_ms }) {
    this.#settle(t_ms);
    if (this.#answerText === null) {
      const message = NO_ANSWER[status] ?? NO_ANSWER.completed;
      this.#note(message, {});
      this.#announce(message);
    }
    this.#close(usage);
  }

  broke({ error, usage, t_ms }) {
    const message = `The run failed. ${sentence(error.message)}`;
    this.#settle(t_ms);
    this.#note(message, { problem: true });
    this.#announce(message);
    this.#close(usage);
  }

  /** What a reader of a live run sees grow stays in view; what is only shown again does not scroll. */
  #change(change) {
    if (this.#live) following(change);
    else change();
  }

  #tell(text) {
    if (this.#live) this.#announce(text);
  }

  #begin(kind, label, stamp, options, ...body) {
    this.#flow = null;
    this.#search = null;
    this.#lastInvalid = null;
    return this.#timeline.begin(kind, label, stamp, options, ...body.filter(Boolean));
  }

  #openAnswer(stamp) {
    if (this.#answer !== null) return;
    const flowing = el("span", { class: "answer-text" });
    const body = el("p", { class: "answer", dir: "auto" }, flowing);
    const step = this.#begin("answer", "Answer", stamp, {}, body);
    this.#answer = { step, body, flow: new FlowingText(flowing) };
  }

  #dropAnswer() {
    if (this.#answer) this.#timeline.remove(this.#answer.step);
    this.#answer = null;
  }

  #note(message, { problem = false, actions = {} }) {
    const buttons = Object.entries(actions).map(([label, act]) =>
      el("button", { class: "quiet", type: "button", onclick: () => act() }, label),
    );
    this.#main.append(el("div", { class: problem ? "note note-problem" : "note" }, el("p", {}, message), ...buttons));
  }

  /** Nothing moves any more, and nothing claims that more will come. */
  #settle(tMs = null) {
    this.#connectionNote?.remove();
    if (this.#search) this.#search.facts("not finished");
    if (this.#answerText === null) this.#dropAnswer();
    if (this.#lastInvalid) this.#lastInvalid.text.textContent = `${this.#lastInvalid.what}.`;
    this.#timeline.end(tMs);
    if (this.#timeline.isEmpty) this.#timeline.node.remove();
  }

  #close(usage) {
    const { retry, copyLink, saveJson } = this.#acts;
    const actions = [
      ["Copy link", "Copied", copyLink],
      ["Save JSON", null, saveJson],
      ["Ask again", null, retry],
    ];
    if (this.#answerText) actions.unshift(["Copy answer", "Copied", () => copyText(this.#answerText)]);
    const bar = actionBar(actions, this.#announce);
    if (this.#thoughts.length > 0) bar.append(this.#reasoningToggle());
    this.#main.append(bar);
    this.node.append(figures(usage));
  }

  #reasoningToggle() {
    const button = el("button", { class: "quiet", type: "button" }, "Hide reasoning");
    let hidden = false;
    button.addEventListener("click", () => {
      hidden = !hidden;
      for (const step of this.#thoughts) step.fold(hidden);
      button.textContent = hidden ? "Show reasoning" : "Hide reasoning";
    });
    return button;
  }
}

const HANDLERS = {
  "run.started": (view, event) => view.started(event),
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

const badge = (kind, text) => el("span", { class: `badge badge-${kind}` }, text);

/** Where a search's passages came from: the provider now, or a cache, and then how old they are. */
function cacheBadges({ cache, age_s, provider }) {
  const old = Number.isFinite(age_s) && cache !== "miss" ? `${age(age_s)} old` : null;
  return [badge(cache, `cache ${cache}`), old, provider].filter(Boolean);
}

function sourceLink(source, snippet) {
  return source.link(
    { class: "read-item" },
    el("span", { class: "index" }, String(source.number)),
    el("span", { class: "title", dir: "auto" }, source.title),
    el("span", { class: "preview", dir: "auto", "aria-hidden": "true" }, snippet),
  );
}

function citationLink(source) {
  const name = `Source ${source.number}: ${source.title}`;
  return source.link({ class: "cite", title: name, "aria-label": name }, `[${source.number}]`);
}
