"""Metrics of the seats: how many runs wait, and how often one had to give its room back."""

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge


class CountsSeats(Protocol):
    """What is counted."""

    @property
    def num_queued(self) -> int:
        """Number of runs that wait for their start."""
        ...

    @property
    def num_waiting(self) -> int:
        """Number of started runs that wait for room for their next turn."""
        ...

    @property
    def share_tokens(self) -> int:
        """Tokens of the engine's KV caches that are for this process's runs."""
        ...

    num_pauses: int


class SeatMetrics:
    """The metrics of each model's seats in one process, as they were when ``refresh`` was called last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queued = Gauge(
            "searchr1_runs_queued",
            "Runs that wait for their start.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "searchr1_runs_waiting",
            "Started runs that wait for room for their next turn.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._share = Gauge(
            "searchr1_engine_share_tokens",
            "Tokens of the engine's KV caches that are for this gateway's runs.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pauses = Counter(
            "searchr1_run_pauses", "Runs that gave their room in the engine back.", ["model"], registry=registry
        )
        self._num_pauses: dict[str, int] = {}

    def refresh(self, seats: Mapping[str, CountsSeats]) -> None:
        """Read the counts. ``seats`` are those of each model."""
        for model, counts in seats.items():
            self._queued.labels(model).set(counts.num_queued)
            self._waiting.labels(model).set(counts.num_waiting)
            self._share.labels(model).set(counts.share_tokens)
            self._pauses.labels(model).inc(counts.num_pauses - self._num_pauses.get(model, 0))
            self._num_pauses[model] = counts.num_pauses
