"""Metrics of the seats: how many runs wait, and how often one had to give its room back."""

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
    """The metrics of one process's seats, as they were when ``refresh`` was called last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queued = Gauge(
            "searchr1_runs_queued",
            "Runs that wait for their start.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "searchr1_runs_waiting",
            "Started runs that wait for room for their next turn.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._share = Gauge(
            "searchr1_engine_share_tokens",
            "Tokens of the engine's KV caches that are for this gateway's runs.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pauses = Counter(
            "searchr1_run_pauses", "Runs that gave their room in the engine back.", registry=registry
        )
        self._num_pauses = 0

    def refresh(self, seats: CountsSeats) -> None:
        """Read the counts."""
        self._queued.set(seats.num_queued)
        self._waiting.set(seats.num_waiting)
        self._share.set(seats.share_tokens)
        self._pauses.inc(seats.num_pauses - self._num_pauses)
        self._num_pauses = seats.num_pauses
