/** One run's events over connections that may break: what is missing is asked for by the last event's number. */

import { ApiError, cancelRun, ConnectionError, followRun, parseObject, startRun } from "./api.js";
import { readEvents } from "./sse.js";

const TERMINAL_TYPES = new Set(["run.completed", "run.failed"]);
/** Waits before each new try; the last one ends about when the server gives the run up. */
const BACKOFF_MS = [300, 700, 1500, 3000, 5000];
/** The server sends a heartbeat every few seconds; a connection this silent is dead. */
const SILENCE_MS = 45_000;
const PASSING_STATUSES = new Set([502, 503, 504]);
const CUT = "The connection was lost before the run ended.";

export class RunConnection {
  #ask;
  #key;
  #onState;
  #abort = new AbortController();
  #runId;
  #lastSeq = -1;
  #known;
  #tellKnown;
  #wake = () => {};

  /**
   * Follow the stored run `runId`, or start one by asking `question` after `previousRunId`.
   * `onState("lost" | "back")` tells of a connection that broke and of one that replaces it.
   */
  constructor({ question = null, previousRunId = null, runId = null, key = null, onState = () => {} }) {
    this.#ask = { question, previousRunId };
    this.#runId = runId;
    this.#key = key;
    this.#onState = onState;
    this.#known = new Promise((resolve) => {
      this.#tellKnown = resolve;
    });
  }

  /** The run's id, or null while the server has not told it. */
  get runId() {
    return this.#runId;
  }

  /** Whether `leave` was called. */
  get left() {
    return this.#abort.signal.aborted;
  }

  /**
   * Yield the run's events, each once and in order, up to its terminal one.
   *
   * Throws `ApiError` where the server refuses, `ConnectionError` where it stays out of reach.
   */
  async *events() {
    let numTries = 0;
    for (;;) {
      try {
        const response = await this.#open();
        if (numTries > 0) this.#onState("back");
        for await (const event of eventsOf(response)) {
          if (event.seq <= this.#lastSeq) continue;
          this.#lastSeq = event.seq;
          numTries = 0;
          yield event;
          if (TERMINAL_TYPES.has(event.type)) return;
        }
        throw new ConnectionError(CUT);
      } catch (error) {
        if (!this.#mayTryAgain(error, numTries)) throw error;
        this.#onState("lost");
        await this.#pause(BACKOFF_MS[numTries]);
        numTries += 1;
      }
    }
  }

  /** Have the server end the run; its last event comes over the stream. Throws what the request threw. */
  async stop() {
    if (this.#runId === null) await Promise.race([this.#known, sleep(BACKOFF_MS.at(-1))]);
    if (this.#runId === null) this.leave();
    else await cancelRun(this.#runId, { key: this.#key });
    this.#wake();
  }

  /** Read no more. The run itself goes on for as long as the server waits for its reader. */
  leave() {
    this.#abort.abort();
    this.#wake();
  }

  async #open() {
    const how = { key: this.#key, signal: this.#abort.signal };
    if (this.#runId !== null) return followRun(this.#runId, this.#lastSeq, how);
    const response = await startRun(this.#ask, how);
    this.#runId = response.headers.get("x-run-id");
    this.#tellKnown();
    return response;
  }

  #mayTryAgain(error, numTries) {
    if (this.left || this.#runId === null || numTries >= BACKOFF_MS.length) return false;
    if (error instanceof ApiError) return numTries > 0 && PASSING_STATUSES.has(error.status);
    return error instanceof ConnectionError;
  }

  /** Wait, but no longer than until the network is back, the run is stopped, or its reader leaves. */
  async #pause(ms) {
    const woken = new Promise((resolve) => {
      this.#wake = resolve;
    });
    addEventListener("online", this.#wake, { once: true });
    await Promise.race([woken, sleep(ms * (0.75 + Math.random() / 2))]);
    removeEventListener("online", this.#wake);
  }
}

async function* eventsOf(response) {
  try {
    for await (const { data } of readEvents(response.body, { silenceMs: SILENCE_MS })) {
      const event = parseObject(data);
      if (event !== null) yield event;
    }
  } catch (error) {
    throw new ConnectionError(CUT, { cause: error });
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
