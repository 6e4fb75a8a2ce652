/** How numbers and outcomes read. Pure. */

/** 412 → "412 ms", 1234 → "1.23 s", 75000 → "1 min 15 s". */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1) return "<1 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** 3 and "passage" → "3 passages". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;
}

/** The URL if it is an absolute http(s) one, else null. */
export function webUrl(url) {
  if (typeof url !== "string") return null;
  try {
    return ["http:", "https:"].includes(new URL(url).protocol) ? url : null;
  } catch {
    return null;
  }
}

/**
 * `text` as before, marked and after. `start` and `end` count code points, as the server does, where JavaScript's
 * own strings count UTF-16 units. `lead`, if given, bounds the code points kept before the mark, to whole words.
 */
export function splitAt(text, start, end, lead = Infinity) {
  const points = Array.from(text);
  const from = Math.max(0, start - lead);
  const before = points.slice(from, start).join("");
  return {
    before: from > 0 ? `…${before.replace(/^\S*\s+(?=\S)/, "")}` : before,
    marked: points.slice(start, end).join(""),
    after: points.slice(end).join(""),
  };
}

/** What a run without an answer tells its reader, by status. */
export const NO_ANSWER = {
  completed: "The run ended without an answer.",
  exhausted: "The model used all its turns without giving an answer.",
  truncated: "The run reached its token limit before an answer.",
  cancelled: "The run was cancelled.",
  deadline: "The run's time was up before an answer.",
  failed: "The run failed.",
};

export const INVALID_ACTION = {
  no_action: "The model gave no action",
  search_off: "The model asked for a search where only an answer was left to give",
};
