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

const AGE_UNITS = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** Seconds as one rough unit: 7 → "7 s", 150 → "2 min", 90000 → "1 d". */
export function age(seconds) {
  const [size, unit] = AGE_UNITS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** Seconds as one rough span: 86400 → "1 day", 5400 → "1 hour", 90 → "1 minute". */
export function span(seconds) {
  const [size, noun] = [[86_400, "day"], [3_600, "hour"], [60, "minute"]].find(([size]) => seconds >= size) ?? [1, "second"];
  return count(Math.floor(seconds / size), noun);
}

/** 3 and "passage" → "3 passages". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;
}

/** US dollars: 0.008 → "$0.0080", 1.5 → "$1.50". */
export function price(usd) {
  if (usd === 0) return "$0";
  return `$${usd.toFixed(usd < 0.1 ? 4 : 2)}`;
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
 * `text` around the part that a citation names: `{ before, opening, marked, closing, after }`, where the middle three
 * are the sentence that holds it. `start` and `end` count code points, as the server does, where JavaScript's own
 * strings count UTF-16 units.
 */
export function citedSentence(text, start, end) {
  const points = Array.from(text);
  const from = points.slice(0, start).join("").length;
  const to = from + points.slice(start, end).join("").length;
  const [first, last] = sentenceAround(text, from, to);
  return {
    before: text.slice(0, first),
    opening: text.slice(first, from),
    marked: text.slice(from, to),
    closing: text.slice(to, last),
    after: text.slice(last),
  };
}

function sentenceAround(text, from, to) {
  const sentences = Array.from(new Intl.Segmenter("en", { granularity: "sentence" }).segment(text), ({ index, segment }) => [
    index,
    index + segment.trimEnd().length,
  ]);
  const touched = sentences.filter(([first, last]) => first < to && last > from);
  return touched.length === 0 ? [from, to] : [touched[0][0], Math.max(to, touched.at(-1)[1])];
}

/** `text` with a full stop, if it ends without any. */
export function sentence(text) {
  const trimmed = text.trim();
  return /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

/** What a run without an answer tells its reader, by status. */
export const NO_ANSWER = {
  completed: "The run ended without an answer.",
  exhausted: "The model used all its turns without giving an answer.",
  truncated: "The run reached its token limit before an answer.",
  cancelled: "The run was stopped.",
  deadline: "The run's time was up before an answer.",
  failed: "The run failed.",
};

export const INVALID_ACTION = {
  no_action: "The model gave no action",
  search_off: "The model asked for a search where only an answer was left to give",
};
