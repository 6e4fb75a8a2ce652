/** What the server says of itself under the question box: what can be asked, and questions to begin with. */

import { el } from "./dom.js";

export class About {
  #parts;

  /** `parts`: the elements `fold`, `text` and `list`; `ask(question)` asks an example. */
  constructor(parts, { about, examples }, ask) {
    this.#parts = parts;
    parts.fold.hidden = about === null && examples.length === 0;
    parts.fold.classList.toggle("no-examples", examples.length === 0);
    const line = about !== null && el("span", { class: "about-line", dir: "auto" }, about);
    const more = examples.length > 0 && el("span", { class: "more" }, "Examples");
    parts.text.replaceChildren(...[line, " ", more].filter(Boolean));
    const buttons = examples.map((question) => el("button", { type: "button", dir: "auto", onclick: () => ask(question) }, question));
    parts.list.replaceChildren(...buttons.map((button) => el("li", {}, button)));
  }

  /** Show or fold away the examples. */
  open(isOpen) {
    this.#parts.fold.open = isOpen;
  }

  set disabled(isDisabled) {
    for (const button of this.#parts.list.querySelectorAll("button")) button.disabled = isDisabled;
  }
}
