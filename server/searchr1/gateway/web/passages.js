/** The passages of one search: a list of entries that open, and that the answer can point into. */

import { el } from "./dom.js";
import { splitAt, webUrl } from "./format.js";

const PREVIEW_LEAD = 24;

export class PassageView {
  #passage;
  #preview;
  #snippet;
  node;

  constructor(passage) {
    this.#passage = passage;
    this.#preview = el("span", { class: "preview", dir: "auto", "aria-hidden": "true" }, passage.snippet);
    this.#snippet = el("p", { class: "snippet", dir: "auto" }, passage.snippet);
    const score = Number.isFinite(passage.score) ? passage.score.toFixed(2) : null;
    this.node = el(
      "details",
      { class: "passage", id: `passage-${passage.index}` },
      el(
        "summary",
        {},
        el("span", { class: "index" }, String(passage.index)),
        el("span", { class: "title", dir: "auto" }, passage.title || "Untitled passage"),
        score && el("span", { class: "score", title: "The retriever's score" }, el("span", { class: "visually-hidden" }, "score "), score),
        this.#preview,
      ),
      this.#snippet,
      sourceLink(passage.url),
    );
  }

  /** Mark where the answer stands, in the opened text and in the closed line. */
  cite({ start, end }) {
    this.node.classList.add("cited");
    fill(this.#snippet, splitAt(this.#passage.snippet, start, end));
    fill(this.#preview, splitAt(this.#passage.snippet, start, end, PREVIEW_LEAD));
  }

  /** Open it, bring it into view and put the focus there. */
  reveal() {
    this.node.open = true;
    this.node.scrollIntoView({ block: "center" });
    this.node.querySelector("summary").focus({ preventScroll: true });
    this.node.classList.remove("pointed");
    // Reading a layout property makes the browser see the removal, so that the animation starts again.
    void this.node.offsetWidth;
    this.node.classList.add("pointed");
  }
}

function fill(node, { before, marked, after }) {
  node.replaceChildren(before, el("mark", {}, marked), after);
}

function sourceLink(url) {
  const safe = webUrl(url);
  if (safe === null) return null;
  return el("a", { class: "source", href: safe, target: "_blank", rel: "noopener noreferrer" }, new URL(safe).host);
}
