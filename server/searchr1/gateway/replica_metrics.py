"""Metrics of an engine's replicas, read when they are asked for."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from searchr1.engines.base import Replicated


class ReplicaMetrics(Collector):
    """A collector of the replicas of several engines; their addresses are in no metric."""

    def __init__(self, engines: Mapping[str, Replicated]) -> None:
        """``engines`` are those of each model that has replicas."""
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        labels = ["model"]
        replicas = GaugeMetricFamily(
            "searchr1_engine_replicas",
            "Replicas of the engine by state; those that are gone since the start.",
            labels=["model", "state"],
        )
        capacity = GaugeMetricFamily(
            "searchr1_engine_capacity_tokens", "Tokens that the KV caches of ready replicas hold.", labels=labels
        )
        used = GaugeMetricFamily(
            "searchr1_engine_used_tokens",
            "Tokens in the KV caches of ready replicas that completions use.",
            labels=labels,
        )
        failovers = CounterMetricFamily(
            "searchr1_engine_failovers",
            "Times that a run went to another replica than the one before.",
            labels=labels,
        )
        for model, engine in self._engines.items():
            for state, number in engine.num_by_state.items():
                replicas.add_metric([model, state], number)
            ready = [view for view in engine.replicas if view.healthy]
            capacity.add_metric([model], sum(view.capacity_tokens or 0 for view in ready))
            used.add_metric([model], sum(view.used_tokens or 0 for view in ready))
            failovers.add_metric([model], engine.num_failovers)
        yield from (replicas, capacity, used, failovers)
