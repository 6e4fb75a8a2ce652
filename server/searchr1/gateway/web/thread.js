/** The runs on the page: a question and its follow-ups, named by the page's address so that it can be shared. */

import { copyText, saveFile } from "./actions.js";
import { ApiError, fetchRun } from "./api.js";
import { RunConnection } from "./connection.js";
import { el, following, onEnter } from "./dom.js";
import { RunView } from "./view.js";

/** The ids of the runs that the page's address names. */
export function runsInAddress() {
  return new URLSearchParams(location.search).getAll("run");
}

export class Thread {
  #root;
  #hooks;
  #entries = [];
  #current = null;
  #followUp = null;

  /**
   * `hooks`: `announce(text)`; `key()`, the API key or null; `onRunning(isRunning)`; `onModel(name)`;
   * `onKeyNeeded(error, again)` where the server wants a(nother) key.
   */
  constructor(root, hooks) {
    this.#root = root;
    this.#hooks = hooks;
  }

  get running() {
    return this.#current !== null;
  }

  /** Ask a question of its own. */
  ask(question) {
    this.#clear();
    return this.#ask(question, null);
  }

  /** Show stored runs in place of what is here; one that goes on is followed. */
  async show(runIds) {
    this.#clear();
    for (const runId of runIds) {
      const entry = this.#add({ question: null, runId, live: false });
      const ended = await this.#play(entry);
      if (!ended || entry.connection.left) return;
    }
  }

  /** Stop the run under way. Where the server can't be told, its stream is closed, which ends it a little later. */
  async stop() {
    const entry = this.#current;
    if (entry === null || entry.stopping) return;
    entry.stopping = true;
    try {
      await entry.connection.stop();
    } catch (error) {
      console.warn(error);
      entry.connection.leave();
    }
  }

  #clear() {
    const left = this.#current;
    this.#current = null;
    left?.connection.leave();
    this.#showRunning();
    this.#entries = [];
    this.#followUp = null;
    this.#root.replaceChildren();
    this.#root.hidden = false;
  }

  async #ask(question, previous) {
    const entry = this.#add({ question, runId: null, live: true, previous });
    if (previous !== null) entry.view.focus();
    await this.#play(entry);
  }

  #add({ question, runId, live, previous = null }) {
    const { announce, key, onModel } = this.#hooks;
    const entry = { question, previous, stopping: false };
    entry.view = new RunView({
      question,
      live,
      announce,
      acts: {
        retry: () => this.#again(entry),
        copyLink: () => copyText(addressOf([entry.connection.runId])),
        saveJson: () => this.#save(entry),
      },
    });
    const previousRunId = previous?.connection.runId ?? null;
    const onState = (state) => entry.view.connection(state);
    entry.connection = new RunConnection({ question, previousRunId, runId, key: key(), onState });
    entry.onStarted = (event) => {
      entry.question = event.question;
      onModel(event.model);
      if (live) this.#nameInAddress();
    };
    this.#followUp?.remove();
    this.#entries.push(entry);
    following(() => this.#root.append(entry.view.node));
    return entry;
  }

  /** Show a run's events to its end; tells whether it came to one. */
  async #play(entry) {
    const { connection, view } = entry;
    this.#current = entry;
    this.#showRunning();
    try {
      for await (const event of connection.events()) {
        if (event.type === "run.started") entry.onStarted(event);
        view.handle(event);
      }
      if (this.#current === entry && this.#entries.at(-1) === entry) this.#offerFollowUp(entry);
      return true;
    } catch (error) {
      if (this.#current === entry) this.#explain(entry, error);
      return false;
    } finally {
      if (this.#current === entry) {
        this.#current = null;
        this.#showRunning();
      }
    }
  }

  #explain(entry, error) {
    const { connection, view } = entry;
    const again = () => this.#again(entry);
    if (connection.left) view.failed("Stopped.", { "Ask again": again }, { problem: false });
    else if (error instanceof ApiError && error.status === 401) {
      this.#remove(entry);
      this.#hooks.onKeyNeeded(error, () => this.#reopen(entry));
    } else if (error instanceof ApiError && connection.runId !== null) view.failed(describe(error), {});
    else if (error instanceof ApiError) view.failed(describe(error), { Retry: again });
    else if (error.name === "ConnectionError" && connection.runId !== null) {
      view.failed(error.message, { Reconnect: () => this.#reopen(entry) });
    } else if (error.name === "ConnectionError") view.failed(error.message, { Retry: again });
    else {
      view.failed("This page met an error of its own. The browser's console has the details.", { Retry: again });
      throw error;
    }
  }

  #showRunning() {
    this.#hooks.onRunning(this.running);
    for (const button of this.#root.querySelectorAll('[data-action="Ask again"]')) button.disabled = this.running;
  }

  /** Ask the same question again, in the same place of the conversation. */
  #again(entry) {
    if (this.running || entry.question === null) return;
    if (entry.previous === null) this.ask(entry.question);
    else {
      for (const later of this.#entries.slice(this.#entries.indexOf(entry))) later.view.node.remove();
      this.#entries = this.#entries.slice(0, this.#entries.indexOf(entry.previous) + 1);
      this.#ask(entry.question, entry.previous);
    }
  }

  /** Show a run from its beginning, with what the server has of it by now. */
  #reopen(entry) {
    const { runId } = entry.connection;
    if (runId === null) this.#again(entry);
    else this.show([...this.#entries.filter((one) => one !== entry).map((one) => one.connection.runId), runId]);
  }

  #remove(entry) {
    entry.view.node.remove();
    this.#entries = this.#entries.filter((one) => one !== entry);
  }

  async #save({ connection }) {
    const text = await fetchRun(connection.runId, { key: this.#hooks.key() });
    saveFile(`${connection.runId}.json`, text, "application/json");
  }

  #nameInAddress() {
    const address = addressOf(this.#entries.map((entry) => entry.connection.runId));
    if (address !== location.href) history.pushState(null, "", address);
  }

  #offerFollowUp(entry) {
    if (entry.view.answer === null) return;
    const id = "follow-up-question";
    const field = el("textarea", { id, name: id, rows: 1, dir: "auto", autocomplete: "off", enterkeyhint: "go", placeholder: "Ask a follow-up" });
    const form = el(
      "form",
      { class: "follow-up" },
      el("label", { class: "visually-hidden", for: id }, "Follow-up question"),
      field,
      el("button", { class: "primary", type: "submit" }, "Ask"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const question = field.value.trim();
      if (question === "" || this.running) field.focus();
      else this.#ask(question, entry);
    });
    onEnter(field, () => form.requestSubmit());
    this.#followUp = form;
    following(() => this.#root.append(form));
  }
}

function addressOf(runIds) {
  const address = new URL(location.pathname, location.href);
  for (const runId of runIds) address.searchParams.append("run", runId);
  return address.href;
}

function describe(error) {
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  return `${error.message}${wait}`;
}
