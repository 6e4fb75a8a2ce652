"""Metrics of the replicas of engines; their addresses are in none."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from searchr1.engines.base import Replicated


class ReplicaMetrics:
    """The metrics of the replicas of each model's engine, as they were when ``refresh`` was called last.

    Workers look at the same replicas: what the last of them saw counts, and failovers of all.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._replicas = Gauge(
            "searchr1_engine_replicas",
            "Replicas of the engine by state; those that are gone since the start.",
            ["model", "state"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._capacity = Gauge(
            "searchr1_engine_capacity_tokens",
            "Tokens that the KV caches of ready replicas hold.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._used = Gauge(
            "searchr1_engine_used_tokens",
            "Tokens in the KV caches of ready replicas that completions use.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._failovers = Counter(
            "searchr1_engine_failovers",
            "Times that a run went to another replica than the one before.",
            ["model"],
            registry=registry,
        )
        self._num_failovers: dict[str, int] = {}

    def refresh(self, engines: Mapping[str, Replicated]) -> None:
        """Look at the replicas. ``engines`` are those of each model that has some."""
        for model, engine in engines.items():
            for state, number in engine.num_by_state.items():
                self._replicas.labels(model, state).set(number)
            views = [view for view in engine.replicas if view.healthy]
            self._capacity.labels(model).set(sum(view.capacity_tokens or 0 for view in views))
            self._used.labels(model).set(sum(view.used_tokens or 0 for view in views))
            self._failovers.labels(model).inc(engine.num_failovers - self._num_failovers.get(model, 0))
            self._num_failovers[model] = engine.num_failovers
