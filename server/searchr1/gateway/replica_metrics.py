"""Metrics of an engine's replicas, read when they are asked for."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from searchr1.engines.base import Replicated


class ReplicaMetrics(Collector):
    """A collector of one engine's replicas; their addresses are in no metric."""

    def __init__(self, engine: Replicated) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        replicas = GaugeMetricFamily(
            "searchr1_engine_replicas",
            "Replicas of the engine by state; those that are gone since the start.",
            labels=["state"],
        )
        for state, number in self._engine.num_by_state.items():
            replicas.add_metric([state], number)
        yield replicas
        views = self._engine.replicas
        yield GaugeMetricFamily(
            "searchr1_engine_capacity_tokens",
            "Tokens that the KV caches of ready replicas hold.",
            value=sum(view.capacity_tokens or 0 for view in views if view.healthy),
        )
        yield GaugeMetricFamily(
            "searchr1_engine_used_tokens",
            "Tokens in the KV caches of ready replicas that completions use.",
            value=sum(view.used_tokens or 0 for view in views if view.healthy),
        )
        yield CounterMetricFamily(
            "searchr1_engine_failovers",
            "Times that a run went to another replica than the one before.",
            value=self._engine.num_failovers,
        )
