/** One run on the page: a timeline that grows with the run's events, then the answer and the run's figures. */

import { el, FlowingText, following } from "./dom.js";
import { count, duration, INVALID_ACTION, NO_ANSWER } from "./format.js";
import { PassageView } from "./passages.js";

export class RunView {
  #root;
  #announce;
  #onRetry;
  #timeline = el("ol", { class: "timeline" });
  #waiting = null;
  #passages = new Map();
  #lastTurn = 0;
  #firstTokenMs = null;
  #think = null;
  #search = null;
  #answer = null;
  #answered = false;
  #lastInvalid = null;

  /** `announce(text)` tells assistive technology of a step; `onRetry()` asks the same question again. */
  constructor(root, question, { announce, onRetry }) {
    this.#root = root;
    this.#announce = announce;
    this.#onRetry = onRetry;
    root.replaceChildren(el("h2", { class: "asked", dir: "auto" }, question), this.#timeline);
    root.hidden = false;
    this.#wait("Sending the question");
  }

  /** Show one event. Types that this page does not know change nothing. */
  handle(event) {
    const show = HANDLERS[event.type];
    if (show) following(() => show(this, event));
  }

  /** The reader stopped the run. */
  stopped() {
    following(() => {
      this.#settle();
      this.#note("Stopped.", { retry: "Ask again" });
    });
    this.#announce("Stopped.");
  }

  /** The run can't go on, for a reason outside it. */
  failed(message) {
    following(() => {
      this.#settle();
      this.#note(message, { problem: true, retry: "Retry" });
    });
    this.#announce(message);
  }

  started() {
    this.#wait("Thinking");
  }

  thought({ turn, t_ms, text }) {
    this.#firstTokenMs ??= t_ms;
    if (this.#think === null) {
      if (text.trim() === "") return;
      const body = el("p", { class: "thought", dir: "auto" });
      this.#step("think", "Think", turn, t_ms, null, body);
      this.#think = new FlowingText(body);
    }
    this.#think.append(text);
  }

  searching({ turn, t_ms, query }) {
    const facts = el("span", { class: "facts" }, spinner(), "searching…");
    const chip = el("q", { class: "query", dir: "auto" }, query || "(empty query)");
    const node = this.#step("search", "Search", turn, t_ms, facts, chip);
    node.classList.add("busy");
    this.#search = { node, facts };
    this.#announce(`Searching: ${query}`);
  }

  found({ passages, cache, duration_ms }) {
    const views = passages.map((passage) => new PassageView(passage));
    views.forEach((view, i) => this.#passages.set(passages[i].index, view));
    const facts = [count(passages.length, "passage"), duration(duration_ms)].join(" · ");
    this.#endSearch(facts, el("span", { class: `badge cache-${cache}` }, `cache ${cache}`));
    if (views.length > 0) this.#search?.node.append(el("div", { class: "passages" }, ...views.map((view) => view.node)));
    this.#search = null;
    this.#announce(`Found ${count(passages.length, "passage")}.`);
    this.#wait("Reading");
  }

  searchFailed({ error, duration_ms }) {
    this.#search?.node.classList.add("bad");
    this.#endSearch(`failed after ${duration(duration_ms)}`);
    this.#search?.node.append(
      el("p", { class: "complaint" }, `${sentence(error.message)} The model goes on without passages.`),
    );
    this.#search = null;
    this.#announce("The search failed. The model goes on without passages.");
    this.#wait("Thinking");
  }

  invalid({ turn, t_ms, reason }) {
    this.#dropAnswer();
    const what = INVALID_ACTION[reason] ?? INVALID_ACTION.no_action;
    const text = el("p", { class: "complaint" }, `${what}; retrying.`);
    this.#step("invalid", "Invalid action", turn, t_ms, null, text).classList.add("bad");
    this.#announce(`${what}; retrying.`);
    this.#wait("Retrying");
    this.#lastInvalid = { what, text };
  }

  answering({ turn, t_ms, text }) {
    this.#firstTokenMs ??= t_ms;
    this.#openAnswer(turn, t_ms);
    this.#answer.flow.append(text);
  }

  answered({ turn, t_ms, text, citations }) {
    this.#openAnswer(turn, t_ms);
    this.#answered = true;
    this.#answer.node.classList.remove("busy");
    this.#answer.body.replaceChildren(text ? el("span", { class: "answer-text" }, text) : "The model gave an empty answer.");
    const cited = citations.filter((citation) => this.#passages.has(citation.index));
    for (const citation of cited) this.#passages.get(citation.index).cite(citation);
    this.#answer.node.append(this.#citations(cited));
    this.#announce(`Answer: ${text}`);
  }

  completed({ status, usage }) {
    this.#settle();
    if (!this.#answered) {
      const message = NO_ANSWER[status] ?? NO_ANSWER.completed;
      this.#note(message, { retry: "Ask again" });
      this.#announce(message);
    }
    this.#figures(usage);
  }

  broke({ error, usage }) {
    this.#settle();
    this.#note(`The run failed. ${sentence(error.message)}`, { problem: true, retry: "Retry" });
    this.#announce(`The run failed. ${sentence(error.message)}`);
    this.#figures(usage);
  }

  #step(kind, label, turn, tMs, facts, ...body) {
    this.#stopWaiting();
    this.#think = null;
    this.#lastInvalid = null;
    const opensTurn = turn > this.#lastTurn;
    this.#lastTurn = Math.max(turn, this.#lastTurn);
    const node = el(
      "li",
      { class: `step step-${kind}` },
      el("span", { class: "marker" }, opensTurn && el("span", { class: "visually-hidden" }, "Turn "), opensTurn && String(turn)),
      el("div", { class: "head" }, el("h3", {}, label), facts, el("span", { class: "at", title: "Since the run started" }, duration(tMs))),
      ...body,
    );
    node.classList.toggle("opens-turn", opensTurn);
    this.#timeline.append(node);
    return node;
  }

  #endSearch(facts, badge = "") {
    if (this.#search === null) return;
    this.#search.node.classList.remove("busy");
    this.#search.facts.replaceChildren(facts, badge);
  }

  #openAnswer(turn, tMs) {
    if (this.#answer !== null) return;
    const body = el("p", { class: "answer", dir: "auto" });
    const flowing = el("span", { class: "answer-text" });
    body.append(flowing);
    const node = this.#step("answer", "Answer", turn, tMs, null, body);
    node.classList.add("busy");
    this.#answer = { node, body, flow: new FlowingText(flowing) };
  }

  #dropAnswer() {
    this.#answer?.node.remove();
    this.#answer = null;
  }

  #citations(cited) {
    if (cited.length === 0) return el("p", { class: "cites" }, "None of the passages contains this answer word for word.");
    const links = cited.map(({ index, title }) =>
      el(
        "a",
        {
          class: "cite",
          href: `#passage-${index}`,
          onclick: (event) => {
            event.preventDefault();
            this.#passages.get(index).reveal();
          },
        },
        el("span", { class: "index" }, `[${index}]`),
        " ",
        el("span", { dir: "auto" }, title || "Untitled passage"),
      ),
    );
    return el("p", { class: "cites" }, el("span", {}, "Read in"), ...links);
  }

  #figures(usage) {
    const tokens = (number) => (number ?? 0).toLocaleString("en");
    const figures = [
      ["Turns", usage.turns],
      ["Searches", usage.searches],
      ["Prompt", tokens(usage.prompt_tokens), "tokens"],
      ["Generated", tokens(usage.completion_tokens), "tokens"],
      ["Observed", tokens(usage.observation_tokens), "tokens"],
      ["From prefix cache", tokens(usage.cached_tokens), "tokens"],
      ["First token", this.#firstTokenMs === null ? "–" : duration(this.#firstTokenMs)],
      ["Total", duration(usage.duration_ms)],
    ];
    const cells = figures.map(([name, value, unit]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, String(value ?? 0), unit ? el("small", {}, ` ${unit}`) : null)),
    );
    this.#root.append(el("dl", { class: "figures", "aria-label": "Figures of this run" }, ...cells));
  }

  #note(message, { problem = false, retry }) {
    this.#root.append(
      el(
        "div",
        { class: problem ? "note note-problem" : "note" },
        el("p", {}, message),
        el("button", { class: "quiet", type: "button", onclick: () => this.#onRetry() }, retry),
      ),
    );
  }

  #wait(label) {
    this.#stopWaiting();
    this.#think = null;
    this.#waiting = el("li", { class: "step waiting busy" }, el("span", { class: "marker" }), spinner(), `${label}…`);
    this.#timeline.append(this.#waiting);
  }

  #stopWaiting() {
    this.#waiting?.remove();
    this.#waiting = null;
  }

  /** Nothing moves any more, and nothing claims that more will come. */
  #settle() {
    this.#stopWaiting();
    if (this.#search) this.#endSearch("not finished");
    if (!this.#answered && this.#answer) this.#dropAnswer();
    if (this.#lastInvalid) this.#lastInvalid.text.textContent = `${this.#lastInvalid.what}.`;
    if (this.#timeline.childElementCount === 0) this.#timeline.remove();
  }
}

const HANDLERS = {
  "run.started": (view) => view.started(),
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

const spinner = () => el("span", { class: "spinner", "aria-hidden": "true" });

function sentence(text) {
  const trimmed = text.trim();
  return /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}
