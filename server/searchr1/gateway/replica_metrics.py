"""Metrics of an engine's replicas; their addresses are in none."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from searchr1.engines.base import Replicated


class ReplicaMetrics:
    """The metrics of one engine's replicas, as they were when ``refresh`` was called last.

    Workers look at the same replicas: what the last of them saw counts, and failovers of all.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._replicas = Gauge(
            "searchr1_engine_replicas",
            "Replicas of the engine by state; those that are gone since the start.",
            ["state"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._capacity = Gauge(
            "searchr1_engine_capacity_tokens",
            "Tokens that the KV caches of ready replicas hold.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._used = Gauge(
            "searchr1_engine_used_tokens",
            "Tokens in the KV caches of ready replicas that completions use.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._failovers = Counter(
            "searchr1_engine_failovers",
            "Times that a run went to another replica than the one before.",
            registry=registry,
        )
        self._num_failovers = 0

    def refresh(self, engine: Replicated) -> None:
        """Look at the replicas."""
        for state, number in engine.num_by_state.items():
            self._replicas.labels(state).set(number)
        views = [view for view in engine.replicas if view.healthy]
        self._capacity.set(sum(view.capacity_tokens or 0 for view in views))
        self._used.set(sum(view.used_tokens or 0 for view in views))
        self._failovers.inc(engine.num_failovers - self._num_failovers)
        self._num_failovers = engine.num_failovers
