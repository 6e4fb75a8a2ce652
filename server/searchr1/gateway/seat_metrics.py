"""Metrics of the seats: how many runs wait, and how often one had to give its room back."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


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

    num_pauses: int


class SeatMetrics(Collector):
    """A collector that reads the counts when it is asked."""

    def __init__(self, seats: CountsSeats) -> None:
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield GaugeMetricFamily("searchr1_runs_queued", "Runs that wait for their start.", self._seats.num_queued)
        yield GaugeMetricFamily(
            "searchr1_runs_waiting", "Started runs that wait for room for their next turn.", self._seats.num_waiting
        )
        yield CounterMetricFamily(
            "searchr1_run_pauses", "Runs that gave their room in the engine back.", self._seats.num_pauses
        )
