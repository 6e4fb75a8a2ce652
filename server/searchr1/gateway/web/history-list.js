/** The list of earlier threads in the side panel. */

import { el } from "./dom.js";
import { age } from "./format.js";
import { forget, forgetAll, onForeignChange, threads } from "./history.js";

const SURE_MS = 4000;

export class HistoryList {
  #parts;
  #hooks;
  #sure = null;

  /**
   * `parts`: the elements `section`, `list`, `empty` and `clear`. `hooks`: `addressOf(runIds)`; `isShown(runIds)`,
   * whether the page shows that thread; `open(address)`; `announce(text)`.
   */
  constructor(parts, hooks) {
    this.#parts = parts;
    this.#hooks = hooks;
    parts.clear.addEventListener("click", () => this.#clear());
    onForeignChange(() => this.show());
    this.show();
  }

  /** Show what is remembered by now. */
  show() {
    const { section, list, empty } = this.#parts;
    const known = threads();
    section.hidden = known.length === 0;
    empty.hidden = known.length > 0;
    list.replaceChildren(...known.map((thread) => this.#item(thread)));
  }

  #item(thread) {
    const { addressOf, isShown, open } = this.#hooks;
    const runIds = thread.runs.map(({ id }) => id);
    const title = thread.runs[0].question;
    const address = addressOf(runIds);
    const follow = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(address);
    };
    const asked = new Date(thread.asked_at);
    const seconds = Math.max(0, (Date.now() - thread.asked_at) / 1000);
    return el(
      "li",
      {},
      el(
        "a",
        { href: address, onclick: follow, title, "aria-current": isShown(runIds) ? "true" : null },
        el("span", { class: "thread-title", dir: "auto" }, title),
        el("time", { datetime: asked.toISOString(), title: asked.toLocaleString() }, seconds < 60 ? "just now" : `${age(seconds)} ago`),
      ),
      el("button", { class: "icon-button", type: "button", "aria-label": `Delete “${title}”`, onclick: () => this.#forget(thread) }, "×"),
    );
  }

  #forget(thread) {
    const index = [...this.#parts.list.children].findIndex((item) => item.contains(document.activeElement));
    forget(thread);
    this.show();
    this.#hooks.announce("Deleted from the history.");
    const items = this.#parts.list.children;
    items[Math.min(index, items.length - 1)]?.querySelector("button").focus();
  }

  /** Twice, as it can't be undone. */
  #clear() {
    const { clear } = this.#parts;
    if (this.#sure === null) {
      clear.textContent = "Really delete all?";
      this.#sure = setTimeout(() => this.#settle(), SURE_MS);
      return;
    }
    this.#settle();
    forgetAll();
    this.show();
    this.#hooks.announce("The history is empty.");
  }

  #settle() {
    clearTimeout(this.#sure);
    this.#sure = null;
    this.#parts.clear.textContent = "Delete all";
  }
}
