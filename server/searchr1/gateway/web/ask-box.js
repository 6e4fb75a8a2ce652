/** The one question box: it asks, and while a run goes on its button stops it. */

import { onEnter } from "./dom.js";

/** A second click this soon after asking is a double click, not a wish to stop. */
const DOUBLE_CLICK_MS = 400;

export class AskBox {
  #field;
  #button;
  #runningSince = null;

  /** `ask(question)` and `stop()` are called as the reader wishes; the box is empty again once it has asked. */
  constructor({ form, field, button }, { ask, stop }) {
    this.#field = field;
    this.#button = button;
    const send = () => {
      const question = field.value.trim();
      if (this.running) return;
      if (question === "") {
        field.focus();
        return;
      }
      field.value = "";
      this.#fit();
      ask(question);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.running) send();
      else if (performance.now() - this.#runningSince > DOUBLE_CLICK_MS) stop();
    });
    // Not by way of the form, whose button means Stop while a run goes on.
    onEnter(field, send);
    field.addEventListener("input", () => this.#fit());
  }

  get running() {
    return this.#runningSince !== null;
  }

  set running(isRunning) {
    if (isRunning !== this.running) this.#runningSince = isRunning ? performance.now() : null;
    this.#button.textContent = isRunning ? "Stop" : "Ask";
    this.#button.classList.toggle("stop", isRunning);
  }

  stopping() {
    this.#button.textContent = "Stopping…";
  }

  /** What the box is for: a first question, or one that follows others. */
  set placeholder(text) {
    this.#field.placeholder = text;
  }

  /** Put a question back to be changed, unless another one is being typed. */
  offer(question) {
    if (this.#field.value === "") this.#field.value = question;
    this.#fit();
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  /** A touch keyboard would cover the steps; any other reader goes on typing. */
  rest() {
    if (matchMedia("(pointer: coarse)").matches) this.#field.blur();
    else this.focus();
  }

  /** As high as its text, where style sheets can't say so. */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight + 2}px`;
  }
}
