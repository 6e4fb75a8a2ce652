/** The gateway's HTTP API as the page uses it. URLs are relative, so that a path prefix in front of the gateway works. */

import { readEvents } from "./sse.js";

const TERMINAL_TYPES = new Set(["run.completed", "run.failed"]);

/** The server answered, but not with what was asked for. */
export class ApiError extends Error {
  constructor(status, message, { code = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** There is no connection, or it ended before the run did. */
export class ConnectionError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = "ConnectionError";
  }
}

/** The name of the first model that the gateway serves; null if it names none. */
export async function modelName({ key = null, signal } = {}) {
  const response = await send("v1/models", { headers: headersFor(key), signal });
  const body = await response.json();
  return body?.data?.[0]?.id ?? null;
}

/**
 * Ask a question and yield the run's events, parsed, up to its terminal one.
 *
 * Aborting `signal` closes the connection, and with it the run on the server.
 * Throws `ApiError` before the first event, `ConnectionError` where the stream ends before the run does.
 */
export async function* research(question, { key = null, signal } = {}) {
  const response = await send("v1/research", {
    method: "POST",
    headers: { ...headersFor(key), "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify({ question, stream: true }),
    signal,
  });
  try {
    for await (const { data } of readEvents(response.body)) {
      const event = parse(data);
      if (event === null) continue;
      yield event;
      if (TERMINAL_TYPES.has(event.type)) return;
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ConnectionError("The connection was lost before the run ended.", { cause: error });
  }
  throw new ConnectionError("The connection was lost before the run ended.");
}

function headersFor(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function send(path, init) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...init, cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ConnectionError("The server can't be reached.", { cause: error });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  const error = parse(text)?.error;
  const message = typeof error?.message === "string" ? error.message : `The server answered with HTTP ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return new ApiError(response.status, message, {
    code: error?.code ?? null,
    retryAfterS: Number.isFinite(seconds) ? seconds : null,
  });
}

/** A JSON object, or null for anything else: one bad event must not end a run. */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
