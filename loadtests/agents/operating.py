"""What an operator of the gateway would set for a trace's runs."""

from typing import Any

from loadtests.agents.trace import Trace
from searchr1.scheduling.options import SchedulingOptions
from searchr1.settings import Settings

_FAR_S = 7200.0


def settings_of(trace: Trace) -> dict[str, Any]:
    """Return settings: bounds that the runs keep, and deadlines that none of them meets."""
    return {
        "engine_priority": True,
        "max_turns": max(len(run.searches) for run in trace.runs),
        "max_observation_tokens": 600,
        "deadline_s": _FAR_S,
        "max_deadline_s": _FAR_S,
        "max_queued_runs": max(256, len(trace.runs)),
    }


def scheduling_of(trace: Trace) -> SchedulingOptions:
    """Return how the gateway schedules with these settings."""
    return Settings(model="any", retriever="http://127.0.0.1/retrieve", **settings_of(trace)).scheduling()
