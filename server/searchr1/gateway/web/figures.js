/** The figures under a run: what it took. */

import { el } from "./dom.js";
import { duration, price } from "./format.js";

export function figures(usage) {
  const tokens = (number) => (number ?? 0).toLocaleString("en");
  const rows = [
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
