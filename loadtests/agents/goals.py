"""What was aimed at, and what came out."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.agents.result import Result

Number = Callable[[Result], float]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a number of ours over the same number of others."""

    text: str
    others: str
    number: Number
    at_least: float | None = None
    at_most: float | None = None
    from_runs: int = 0
    """With fewer runs, the ratio is told and held to nothing."""

    def is_met(self, ratio: float) -> bool:
        """Return whether a ratio keeps the bound."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound in words."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


def _runs_per_min(result: Result) -> float:
    return result.runs_per_min


def _p95_s(result: Result) -> float:
    return result.quantile_s(0.95)


def _mean_s(result: Result) -> float:
    return result.mean_s


GOALS = (
    Goal("throughput over plain agents'", "plain", _runs_per_min, at_least=2.2),
    Goal("95th percentile over plain agents'", "plain", _p95_s, at_most=0.45),
    Goal("throughput over ThunderAgent's", "thunderagent", _runs_per_min, at_least=1.5),
    Goal("95th percentile over ThunderAgent's", "thunderagent", _p95_s, at_most=0.65),
    Goal("mean over ThunderAgent's", "thunderagent", _mean_s, at_most=0.5),
    Goal("answers a minute over infer.py's way", "infer-py", _runs_per_min, at_least=30, from_runs=64),
)
CALM_GOALS = (
    Goal("throughput over plain agents'", "plain", _runs_per_min, at_least=0.98),
    Goal("mean over plain agents'", "plain", _mean_s, at_most=1.03),
    Goal("95th percentile over plain agents'", "plain", _p95_s, at_most=1.05),
)
"""Where nothing is short: to be no worse, but for what repeats differ by."""
CALM = "calm"
"""The scenario that is held to ``CALM_GOALS``."""
_CACHED_POINTS = 5.0


def goals_table(measured: Sequence[Result]) -> str:
    """Return a table in Markdown of the goals whose arms were measured together; empty where there is none."""
    rows = []
    for scenario, num_runs in dict.fromkeys((result.scenario, result.num_runs) for result in measured):
        here = [result for result in measured if (result.scenario, result.num_runs) == (scenario, num_runs)]
        rows += [f"| {scenario}, {num_runs} | {row}" for row in _rows(here)]
    if not rows:
        return ""
    head = "| scenario, runs | ours | aim | measured | |\n|---|---|---|---|---|"
    return f"## What was aimed at\n\n{head}\n" + "\n".join(rows) + "\n"


def best(here: Sequence[Result], arm: str, number: Number, *, largest: bool) -> float | None:
    """Return the best median of the arms that are called ``arm``, or that and a variant's name; None without any."""
    medians = [
        statistics.median(number(result) for result in here if result.arm == name)
        for name in {result.arm for result in here}
        if name == arm or name.startswith(f"{arm}-")
    ]
    return (max if largest else min)(medians) if medians else None


def _rows(here: Sequence[Result]) -> list[str]:
    rows = []
    for goal in CALM_GOALS if here[0].scenario == CALM else GOALS:
        largest = goal.at_least is not None
        ours = best([r for r in here if r.arm == "ours"], "ours", goal.number, largest=largest)
        others = best(here, goal.others, goal.number, largest=largest)
        if ours is not None and others:
            ratio = ours / others
            told = "reached" if goal.is_met(ratio) else "**missed**"
            told = told if here[0].num_runs >= goal.from_runs else f"aimed at from {goal.from_runs} runs on"
            rows.append(f"{goal.text} | {goal.bound} | {ratio:.2f} | {told} |")
    ours = best(here, "ours", lambda result: result.cached, largest=True)
    known = [
        cached
        for arm in ("oracle", "cap")
        if (cached := best(here, arm, lambda result: result.cached, largest=True)) is not None
    ]
    if ours is not None and known and here[0].scenario != CALM:
        points = 100 * (max(known) - ours)
        told = "reached" if points <= _CACHED_POINTS else "**missed**"
        rows.append(f"cached share below the best oracle's, points | ≤ {_CACHED_POINTS:g} | {points:.1f} | {told} |")
    return rows
