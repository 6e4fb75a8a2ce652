/** The steps of one run, in order, each with the time that it took. */

import { el } from "./dom.js";
import { duration } from "./format.js";

export class Timeline {
  #lastTurn = 0;
  #open = null;
  #waiting = null;

  constructor() {
    this.node = el("ol", { class: "timeline" });
  }

  get isEmpty() {
    return this.node.childElementCount === 0;
  }

  /** Begin a step, and so end the one before. With `folds`, its body opens and closes under its head. */
  begin(kind, label, { turn, t_ms }, { folds = false, facts = [] } = {}, ...body) {
    this.end(t_ms);
    const opensTurn = turn > this.#lastTurn;
    this.#lastTurn = Math.max(turn, this.#lastTurn);
    const step = new Step(kind, label, { turn: opensTurn ? turn : null, tMs: t_ms, folds, facts, body });
    this.#open = step;
    this.node.append(step.node);
    return step;
  }

  /** The step under way, if any, has ended. */
  end(tMs = null) {
    this.stopWaiting();
    this.#open?.end(tMs);
    this.#open = null;
  }

  /** Take a step back out, as if it had never begun. */
  remove(step) {
    step.node.remove();
    if (this.#open === step) this.#open = null;
  }

  /** Show that something goes on that is no step yet. */
  wait(label) {
    this.stopWaiting();
    this.#waiting = el("li", { class: "step waiting busy" }, el("span", { class: "marker" }), spinner(), `${label}…`);
    this.node.append(this.#waiting);
  }

  stopWaiting() {
    this.#waiting?.remove();
    this.#waiting = null;
  }
}

class Step {
  #tMs;
  #took = el("span", { class: "took" }, spinner());
  #facts = el("span", { class: "facts" });
  #body;
  #details = null;

  constructor(kind, label, { turn, tMs, folds, facts, body }) {
    this.#tMs = tMs;
    this.facts(...facts);
    const head = [el("h3", {}, label), this.#facts, this.#took];
    if (folds) this.#details = el("details", { open: true }, el("summary", { class: "head" }, ...head), ...body);
    this.#body = this.#details ?? el("div", {}, el("div", { class: "head" }, ...head), ...body);
    const marker = el("span", { class: "marker" }, turn && el("span", { class: "visually-hidden" }, "Turn "), turn && String(turn));
    this.node = el("li", { class: `step step-${kind} busy` }, marker, this.#body);
    this.node.classList.toggle("opens-turn", turn !== null);
  }

  append(...children) {
    this.#body.append(...children);
  }

  /** What stands beside the label: nodes, or text. */
  facts(...parts) {
    this.#facts.replaceChildren(...parts.map((part) => (typeof part === "string" ? el("span", {}, part) : part)));
  }

  /** Open or close a step that folds. */
  fold(closed) {
    if (this.#details) this.#details.open = !closed;
  }

  bad() {
    this.node.classList.add("bad");
  }

  /** It ended at `tMs` of the run, or in a way that tells no time. `tookMs` is a better measure of its own. */
  end(tMs, tookMs = tMs === null ? Number.NaN : tMs - this.#tMs) {
    if (!this.node.classList.contains("busy")) return;
    this.node.classList.remove("busy");
    this.#took.replaceChildren(Number.isFinite(tookMs) ? duration(tookMs) : "");
    this.#took.title = `Began ${duration(this.#tMs)} after the run did`;
  }
}

export const spinner = () => el("span", { class: "spinner", "aria-hidden": "true" });
