/** Reasoning as it streams: text, and the sources that it quotes by their number in the last search. */

import { el } from "./dom.js";
import { ReferenceReader } from "./references.js";

export class Thought {
  #reader = new ReferenceReader();
  #text = document.createTextNode("");
  #sourceOf;
  #held = "";
  #isEmpty = true;

  /** `sourceOf(number, title)` gives the source that the model means, or null. */
  constructor(sourceOf) {
    this.#sourceOf = sourceOf;
    this.node = el("p", { class: "thought", dir: "auto" }, this.#text);
  }

  append(text) {
    for (const part of this.#reader.push(text)) this.#show(part);
  }

  end() {
    for (const part of this.#reader.end()) this.#show(part);
  }

  #show(part) {
    if (typeof part === "string") this.#write(part);
    else this.#name(part);
  }

  /** Without the whitespace around it all. */
  #write(text) {
    const whole = this.#held + text;
    const visible = this.#isEmpty ? whole.trimStart() : whole;
    const kept = visible.trimEnd();
    this.#held = visible.slice(kept.length);
    this.#text.appendData(kept);
    if (kept !== "") this.#isEmpty = false;
  }

  #name({ number, title, raw }) {
    const source = this.#sourceOf(number, title);
    if (source === null) {
      this.#write(raw);
      return;
    }
    this.#text.appendData(this.#held);
    this.#held = "";
    this.#isEmpty = false;
    this.#text = document.createTextNode("");
    this.node.append(sourceChip(source), this.#text);
  }
}

/** A source by its number and title, as a link to it. */
export function sourceChip(source) {
  return source.link({ class: "chip" }, el("span", { class: "index" }, String(source.number)), el("span", { dir: "auto" }, source.title));
}
