/** What operators and the curious want to know of a run, behind a fold: figures, searches, the model's own words. */

import { el } from "./dom.js";
import { age, count, duration, price } from "./format.js";

/**
 * `searches`: the events that ended them; `thoughts`: `{ turn, text }` as the model wrote them.
 */
export function runDetails({ model, usage, searches, thoughts }) {
  return el(
    "details",
    { class: "details" },
    el("summary", {}, "Details"),
    figures(model, usage),
    searches.length > 0 && el("section", {}, el("h3", {}, "Searches"), el("ol", { class: "searches" }, ...searches.map(searchRow))),
    thoughts.length > 0 && verbatim(thoughts),
  );
}

function figures(model, usage) {
  const tokens = (number) => (number ?? 0).toLocaleString("en");
  const rows = [
    ["Model", model],
    ["Tokens generated", tokens(usage.completion_tokens), `${tokens(usage.reasoning_tokens)} reasoning`],
    ["Tokens read", tokens((usage.prompt_tokens ?? 0) + (usage.observation_tokens ?? 0)), `${tokens(usage.observation_tokens)} from searches`],
    ["From prefix cache", tokens(usage.cached_tokens), "tokens"],
    ["Turns", usage.turns],
    ["Searches", usage.searches],
    ["First token", usage.first_token_ms == null ? "–" : duration(usage.first_token_ms)],
    ["Total time", duration(usage.duration_ms)],
    ["Search cost", usage.cost_usd == null ? "no prices set" : price(usage.cost_usd)],
  ];
  const cells = rows.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, String(value ?? 0), note ? el("small", {}, ` ${note}`) : null)),
  );
  return el("dl", { class: "figures", "aria-label": "Figures of this run" }, ...cells);
}

function searchRow({ type, query, passages, provider, cache, age_s, duration_ms }) {
  const facts = [
    type === "search.failed" ? "failed" : count(passages.length, "passage"),
    provider,
    fromCache(cache, age_s),
    duration(duration_ms),
  ];
  return el("li", {}, el("q", { dir: "auto" }, query), el("span", { class: "facts" }, facts.filter(Boolean).join(" · ")));
}

/** A miss is no news: it is what every search is where nothing is cached. */
function fromCache(cache, ageS) {
  if (cache !== "hit" && cache !== "stale") return null;
  const old = Number.isFinite(ageS) ? `, ${age(ageS)} old` : "";
  return cache === "hit" ? `from the cache${old}` : `from the cache, past its time${old}`;
}

function verbatim(thoughts) {
  const texts = thoughts.flatMap(({ turn, text }) => [el("h4", {}, `Turn ${turn}`), el("pre", { dir: "auto" }, text.trim())]);
  return el("section", {}, el("h3", {}, "Reasoning, word for word"), ...texts);
}
