/** The steps of one run, in order, under a line that sums them up; they fold away once the answer is there. */

import { el } from "./dom.js";
import { count, duration } from "./format.js";

export class Steps {
  #list = el("ol", { class: "timeline" });
  #line = el("span", { class: "steps-line" }, "Working on it");
  #open = null;
  #numSearches = 0;
  #numFailed = 0;
  #numPassages = 0;

  constructor() {
    this.node = el("details", { class: "steps", open: true, hidden: true }, el("summary", {}, this.#line), this.#list);
  }

  get isEmpty() {
    return this.#list.childElementCount === 0;
  }

  /** Begin a step, and so end the one before. */
  begin(kind, label, ...body) {
    this.end();
    const node = el("li", { class: `step step-${kind} busy` }, el("h3", {}, label), ...body);
    this.#open = node;
    this.#list.append(node);
    this.node.hidden = false;
    return node;
  }

  /** The step under way, if any, has ended. */
  end() {
    this.#open?.classList.remove("busy");
    this.#open = null;
  }

  /** A search has ended: with passages, or failed. */
  count({ numPassages, failed = false }) {
    this.#numSearches += 1;
    this.#numPassages += numPassages;
    if (failed) this.#numFailed += 1;
    this.#line.textContent = this.#sum();
  }

  /** All steps are told; `ms` is how long the run took, where that is known. */
  settle(ms) {
    this.end();
    const took = Number.isFinite(ms) ? ` · ${duration(ms)}` : "";
    this.#line.textContent = `${this.#numSearches === 0 ? "No search" : this.#sum()}${took}`;
  }

  fold(isFolded) {
    this.node.open = !isFolded;
  }

  #sum() {
    const failed = this.#numFailed > 0 ? ` (${this.#numFailed} failed)` : "";
    return `${count(this.#numSearches, "search")}${failed}, ${count(this.#numPassages, "passage")} read`;
  }
}

/** The mark at the growing end of a run: it says what goes on. */
export class Pulse {
  #text = el("span", {});
  #said = "";

  constructor() {
    this.node = el("p", { class: "pulse", hidden: true }, el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")), this.#text);
  }

  show(label) {
    this.node.hidden = false;
    if (label === this.#said) return;
    this.#said = label;
    this.#text.textContent = `${label}…`;
  }

  hide() {
    this.node.hidden = true;
  }
}
