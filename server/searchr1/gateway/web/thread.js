/** The runs on the page: questions that follow each other, named by the page's address so that they can be shared. */

import { copyText, saveFile } from "./actions.js";
import { ApiError, fetchRun } from "./api.js";
import { RunConnection } from "./connection.js";
import { span } from "./format.js";
import { RunView } from "./view.js";

/** The question itself is at fault: asking it again would not help. */
const WRONG_STATUSES = new Set([400, 413]);

/** The ids of the runs that the page's address names. */
export function runsInAddress() {
  return new URLSearchParams(location.search).getAll("run");
}

/** The address of a page with these runs. */
export function addressOf(runIds) {
  const address = new URL(location.pathname, location.href);
  for (const runId of runIds) address.searchParams.append("run", runId);
  return address.href;
}

export class Thread {
  #root;
  #hooks;
  #entries = [];
  #current = null;

  /**
   * `hooks`: `announce(text)`; `key()`, the API key or null; `onChange()` when a run begins or ends, or others are
   * shown; `onAsked(runs)` when the server has taken a question, with all runs `{ id, question }` of the thread;
   * `onKeyNeeded(error, again)` where the server wants a(nother) key; `onRefused(question)` where it finds fault with
   * the question; `remembered(runId)`, a run's question if it was asked in this browser, or null; `runTtlS()`, seconds
   * that runs are kept, or null.
   */
  constructor(root, hooks) {
    this.#root = root;
    this.#hooks = hooks;
  }

  get running() {
    return this.#current !== null;
  }

  /** The first question; null where there is none (yet). */
  get title() {
    return this.#entries[0]?.question ?? null;
  }

  get isEmpty() {
    return this.#entries.length === 0;
  }

  get runIds() {
    return this.#started.map((entry) => entry.connection.runId);
  }

  /** The entries whose runs the server has named. */
  get #started() {
    return this.#entries.filter((entry) => entry.connection.runId !== null);
  }

  /** Ask a question that follows the last one on the page that has an answer. */
  async ask(question) {
    const previous = this.#entries.findLast((entry) => entry.view.answer !== null) ?? null;
    const entry = this.#add({ question, live: true, previousRunId: previous?.connection.runId ?? null });
    entry.view.reveal();
    await this.#play(entry);
  }

  /** Leave what is here. */
  clear() {
    const left = this.#current;
    this.#current = null;
    left?.connection.leave();
    this.#entries = [];
    this.#root.replaceChildren();
    this.#root.hidden = true;
    this.#changed();
  }

  /** Show stored runs in place of what is here; one that goes on is followed. */
  async show(runIds) {
    this.clear();
    for (const runId of runIds) {
      const entry = this.#add({ question: this.#hooks.remembered(runId), runId, live: false });
      const goesOn = await this.#play(entry);
      if (!goesOn || entry.connection.left) return;
    }
    // A thread is taken up where it was left.
    if (runIds.length > 1) this.#entries.at(-1)?.view.reveal();
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

  #add({ question, live, runId = null, previousRunId = null }) {
    const { announce, key, onAsked } = this.#hooks;
    const entry = { question, stopping: false };
    entry.view = new RunView({
      question,
      live,
      announce,
      acts: {
        retry: () => this.#again(entry),
        copyLink: () => copyText(addressOf(this.runIds)),
        saveJson: () => this.#save(entry),
      },
    });
    const onState = (state) => entry.view.connection(state);
    entry.connection = new RunConnection({ question, previousRunId, runId, key: key(), onState });
    entry.onStarted = (event) => {
      entry.question = event.question;
      if (live) {
        this.#nameInAddress();
        onAsked(this.#started.map((one) => ({ id: one.connection.runId, question: one.question ?? "" })));
      }
      this.#changed();
    };
    this.#root.hidden = false;
    this.#entries.push(entry);
    this.#root.append(entry.view.node);
    return entry;
  }

  /** Show a run's events to its end; tells whether what follows it can be shown, too. */
  async #play(entry) {
    const { connection, view } = entry;
    this.#current = entry;
    this.#changed();
    try {
      for await (const event of connection.events()) {
        if (event.type === "run.started") entry.onStarted(event);
        view.handle(event);
      }
      return true;
    } catch (error) {
      if (this.#current === entry) this.#explain(entry, error);
      return error instanceof ApiError && error.code === "run_not_found";
    } finally {
      if (this.#current === entry) {
        this.#current = null;
        this.#changed();
      }
    }
  }

  #explain(entry, error) {
    const { connection, view } = entry;
    const again = () => this.#again(entry);
    const known = entry.question !== null;
    if (connection.left) view.failed("Stopped.", { "Ask again": again }, { problem: false });
    else if (error instanceof ApiError && error.status === 401) {
      this.#remove(entry);
      this.#hooks.onKeyNeeded(error, () => this.#reopen(entry));
    } else if (error instanceof ApiError && error.code === "run_not_found" && connection.runId !== null) {
      view.failed(this.#goneMessage(), known ? { "Ask again": again } : {}, { problem: false });
    } else if (error instanceof ApiError && connection.runId !== null) view.failed(describe(error), {});
    else if (error instanceof ApiError && WRONG_STATUSES.has(error.status)) {
      view.failed(describe(error), {});
      this.#hooks.onRefused(entry.question);
    } else if (error instanceof ApiError) view.failed(describe(error), { Retry: again });
    else if (error.name === "ConnectionError" && connection.runId !== null) {
      view.failed(error.message, { Reconnect: () => this.#reopen(entry) });
    } else if (error.name === "ConnectionError") view.failed(error.message, { Retry: again });
    else {
      view.failed("This page met an error of its own. The browser's console has the details.", known ? { Retry: again } : {});
      throw error;
    }
  }

  #goneMessage() {
    const ttlS = this.#hooks.runTtlS();
    const kept = ttlS === null ? "" : ` It keeps runs for ${span(ttlS)}.`;
    return `The server no longer has this run, or it belongs to another key.${kept}`;
  }

  #changed() {
    this.#hooks.onChange();
    for (const button of this.#root.querySelectorAll('[data-action="Ask again"]')) button.disabled = this.running;
  }

  /** Ask the same question again, in the same place of the conversation; what came after it goes. */
  #again(entry) {
    if (this.running || entry.question === null) return;
    const index = this.#entries.indexOf(entry);
    for (const later of this.#entries.slice(index)) later.view.node.remove();
    this.#entries = this.#entries.slice(0, index);
    this.ask(entry.question);
  }

  /** Show a run from its beginning, with what the server has of it by now. */
  #reopen(entry) {
    const { runId } = entry.connection;
    if (runId !== null) this.show([...this.runIds.filter((id) => id !== runId), runId]);
    else this.ask(entry.question);
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
    const address = addressOf(this.runIds);
    if (address !== location.href) history.pushState(null, "", address);
  }
}

function describe(error) {
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  return `${error.message}${wait}`;
}
