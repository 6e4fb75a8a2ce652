"""Metrics of the seats: how many runs wait, and how often one had to give its room back."""

from collections.abc import Iterator, Mapping
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

    def __init__(self, seats: Mapping[str, CountsSeats]) -> None:
        """``seats`` are those of each model."""
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        labels = ["model"]
        queued = GaugeMetricFamily("searchr1_runs_queued", "Runs that wait for their start.", labels=labels)
        waiting = GaugeMetricFamily(
            "searchr1_runs_waiting", "Started runs that wait for room for their next turn.", labels=labels
        )
        pauses = CounterMetricFamily(
            "searchr1_run_pauses", "Runs that gave their room in the engine back.", labels=labels
        )
        for model, seats in self._seats.items():
            queued.add_metric([model], seats.num_queued)
            waiting.add_metric([model], seats.num_waiting)
            pauses.add_metric([model], seats.num_pauses)
        yield from (queued, waiting, pauses)
