/** The answer of a run, on top of it, with links to the sources that contain it. */

import { el, FlowingText } from "./dom.js";

/** Longer ones are set as text, not as a headline. */
const HEADLINE_CHARS = 90;

export class AnswerView {
  #text;
  #flow;
  #body = el("p", { class: "answer", dir: "auto" });
  #note = el("p", { class: "uncited", hidden: true });

  constructor() {
    this.node = el("section", { class: "result", "aria-label": "Answer", hidden: true }, this.#body, this.#note);
  }

  get isOpen() {
    return !this.node.hidden;
  }

  open() {
    this.node.hidden = false;
    this.#text = el("span", { class: "answer-text" });
    this.#flow = new FlowingText(this.#text);
    this.#body.className = "answer growing";
    this.#body.replaceChildren(this.#text);
  }

  append(text) {
    this.#flow.append(text);
    this.#body.classList.toggle("long", this.#text.textContent.length > HEADLINE_CHARS);
  }

  /** It turned out to be none. */
  drop() {
    this.node.hidden = true;
  }

  /** It is whole: `cited` are the sources that contain it; `searched` tells whether there could have been any. */
  settle(text, cited, searched) {
    this.#body.classList.remove("growing");
    this.#body.classList.toggle("long", text.length > HEADLINE_CHARS);
    if (text.trim() === "") {
      this.#body.className = "answer empty";
      this.#body.replaceChildren("The model gave an empty answer.");
      return;
    }
    this.#body.replaceChildren(el("span", { class: "answer-text" }, text), ...cited.map(citationLink));
    this.#note.hidden = cited.length > 0;
    this.#note.textContent = searched
      ? "None of the passages contains this answer word for word."
      : "Answered without a search: no source bears this out.";
  }
}

function citationLink(source) {
  const name = `Source ${source.number}: ${source.title}`;
  return source.link({ class: "cite", title: name, "aria-label": name }, String(source.number));
}
