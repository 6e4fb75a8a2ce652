/** The gateway's HTTP API as the page uses it. URLs are relative, so that a path prefix in front of the gateway works. */

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

/**
 * What the server says of itself: `model`, `about` and `examples` of its operator, `needs_key`, `run_ttl_s`, `has_docs`.
 * @returns {Promise<{ model: string, about: ?string, examples: string[], needs_key: boolean, run_ttl_s: ?number, has_docs: boolean }>}
 */
export async function pageInfo() {
  const response = await send("page.json", {});
  return response.json();
}

/** Ask a question. The answer's `x-run-id` names the run, its body streams the run's events. */
export function startRun({ question, previousRunId = null }, { key, signal }) {
  const wish = previousRunId === null ? { question } : { question, previous_run_id: previousRunId };
  return send("v1/research", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify({ ...wish, stream: true }),
    key,
    signal,
  });
}

/** Stream the events of a stored run, or of one under way, that come after event `after` (-1: all). */
export function followRun(runId, after, { key, signal }) {
  const headers = after < 0 ? {} : { "Last-Event-ID": String(after) };
  return send(`${pathOf(runId)}/events`, { headers: { ...headers, Accept: "text/event-stream" }, key, signal });
}

/** Have a run end. One that has ended stays as it is. */
export async function cancelRun(runId, { key }) {
  await send(`${pathOf(runId)}/cancel`, { method: "POST", key });
}

/** The whole run as the server's JSON text. */
export async function fetchRun(runId, { key }) {
  const response = await send(pathOf(runId), { key });
  return response.text();
}

const pathOf = (runId) => `v1/research/${encodeURIComponent(runId)}`;

async function send(path, { key, headers = {}, ...init }) {
  const keyed = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...init, headers: keyed, cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ConnectionError("The server can't be reached.", { cause: error });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  const error = parseObject(text)?.error;
  const message = typeof error?.message === "string" ? error.message : `The server answered with HTTP ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return new ApiError(response.status, message, {
    code: error?.code ?? null,
    retryAfterS: Number.isFinite(seconds) ? seconds : null,
  });
}

/** A JSON object, or null for anything else: one bad event must not end a run. */
export function parseObject(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
