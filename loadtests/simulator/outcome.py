"""What a simulation comes to: throughput, latencies, and what the prefix caches found."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

from loadtests.simulator.simulation import SimulatedRun, Simulation


@dataclass(frozen=True, slots=True)
class Outcome:
    """Numbers of one simulation, or means over several; latencies count from a run's coming to its end."""

    makespan_s: float
    runs_per_s: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    cached: float
    """Share of all prompt tokens that was found in a prefix cache."""
    kept: float
    """Share of the tokens computed for a run before that its later turns found again."""
    recomputed_tokens: float
    """Tokens computed again, a run."""
    num_preemptions: float

    @classmethod
    def of(cls, simulation: Simulation) -> "Outcome":
        """Count a simulation that has ended."""
        ended = [run for run in simulation.runs if not run.was_refused]
        latencies = sorted(run.latency_s for run in ended)
        makespan_s = max(run.ended_at for run in ended) - min(run.came_at for run in ended)
        return cls(
            makespan_s=makespan_s,
            runs_per_s=len(ended) / makespan_s,
            mean_s=statistics.fmean(latencies),
            p50_s=quantile(latencies, 0.5),
            p95_s=quantile(latencies, 0.95),
            p99_s=quantile(latencies, 0.99),
            cached=_share(ended, "cached_tokens", "prompt_tokens"),
            kept=_share(ended, "later_cached_tokens", "later_prompt_tokens"),
            recomputed_tokens=statistics.fmean(run.recomputed_tokens for run in ended),
            num_preemptions=sum(replica.num_preemptions for replica in simulation.replicas),
        )

    @classmethod
    def mean(cls, outcomes: Sequence["Outcome"]) -> "Outcome":
        """Return the means of several outcomes."""
        names = [field.name for field in fields(cls)]
        return cls(*(statistics.fmean(getattr(outcome, name) for outcome in outcomes) for name in names))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted numbers."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _share(runs: Sequence[SimulatedRun], part: str, whole: str) -> float:
    total = sum(getattr(run, whole) for run in runs)
    return sum(getattr(run, part) for run in runs) / total if total else 0.0
