/** The threads that were asked in this browser: which runs, and what their questions were. Nothing of it leaves it. */

import { keep, load } from "./stored.js";

const NAME = "searchr1.history";
const MAX_THREADS = 50;
const MAX_RUNS = 40;
const MAX_CHARS = 300;
/** Beyond it there is no `Date`. */
const MAX_TIME_MS = 8.64e15;

/**
 * @typedef {{ id: string, question: string }} AskedRun
 * @typedef {{ asked_at: number, runs: AskedRun[] }} AskedThread `asked_at`: milliseconds since 1970.
 */

/** @returns {AskedThread[]} the newest first */
export function threads() {
  const stored = load(NAME);
  return Array.isArray(stored) ? stored.filter(isThread) : [];
}

/** Note that `runs` are a thread; it takes the place of the one that began with the same run. */
export function remember(runs, now = Date.now()) {
  const shortened = runs.slice(-MAX_RUNS).map(({ id, question }) => ({ id, question: question.slice(0, MAX_CHARS) }));
  const others = threads().filter((thread) => !shareRun(thread.runs, shortened));
  keep(NAME, [{ asked_at: now, runs: shortened }, ...others].slice(0, MAX_THREADS));
}

/** Forget one thread. */
export function forget(thread) {
  keep(NAME, threads().filter(({ runs }) => !shareRun(runs, thread.runs)));
}

export function forgetAll() {
  keep(NAME, []);
}

/** The question of a run that was asked here, or null. */
export function questionOf(runId) {
  const runs = threads().flatMap((thread) => thread.runs);
  return runs.find(({ id }) => id === runId)?.question ?? null;
}

/** Call `tell` when another tab has changed the history. */
export function onForeignChange(tell) {
  addEventListener("storage", ({ key }) => {
    if (key === NAME || key === null) tell();
  });
}

const shareRun = (some, others) => some.some(({ id }) => others.some((other) => other.id === id));

function isThread(value) {
  const isRun = (run) => typeof run?.id === "string" && typeof run.question === "string";
  return Math.abs(value?.asked_at) <= MAX_TIME_MS && Array.isArray(value.runs) && value.runs.length > 0 && value.runs.every(isRun);
}
