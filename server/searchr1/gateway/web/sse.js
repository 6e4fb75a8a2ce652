/**
 * Server-Sent Events read from a fetch body, because EventSource can't send a POST.
 * Follows the parsing rules of the HTML standard ("Interpreting an event stream").
 */

/** Turns text, in chunks of any size, into `{ type, data, id }` objects. Holds no I/O. */
export class SseParser {
  #line = "";
  #afterReturn = false;
  #atStart = true;
  #type = "";
  #data = [];
  #id = "";

  /** Take the next chunk; return the events that it completes. */
  push(chunk) {
    let text = chunk;
    if (this.#atStart && text !== "") {
      this.#atStart = false;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    // "\r\n" may be split over two chunks: the "\r" has ended the line already.
    if (this.#afterReturn && text !== "") {
      this.#afterReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    if (text.endsWith("\r")) this.#afterReturn = true;

    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    return lines.map((line) => this.#take(line)).filter((event) => event !== null);
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#type = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  #dispatch() {
    const event = this.#data.length > 0 ? { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id } : null;
    this.#type = "";
    this.#data = [];
    return event;
  }
}

/**
 * Yield the events of a byte stream. Leaving the loop early cancels the stream.
 * It ends as if cut off where no byte comes for `silenceMs`.
 */
export async function* readEvents(body, { silenceMs }) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  // An aborted stream rejects its cancellation with the error that the loop has thrown already.
  const cancel = () => reader.cancel().catch(() => {});
  try {
    for (;;) {
      const watch = setTimeout(cancel, silenceMs);
      const { done, value } = await reader.read().finally(() => clearTimeout(watch));
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    cancel();
  }
}
