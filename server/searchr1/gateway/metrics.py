"""Prometheus metrics of the gateway, in a registry of their own.

Workers of one gateway count in files of a folder that they share (``prometheus_client``'s multiprocess mode), and each
renders the sums: counters and histograms of all that ever ran, gauges of those that live.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from platform import python_version
from typing import Any, Final, cast, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from searchr1.driver import DriveEvent, DriveStats, PassagesReceived, SearchErrored
from searchr1.engines.base import HEALTH_REASONS, SURVIVABLE_REASONS
from searchr1.gateway.http_metrics import HttpMetrics
from searchr1.gateway.run_metrics import RunMetrics
from searchr1.gateway.search_metrics import SearchMetrics
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Status
from searchr1.retrieval.base import CacheState, FailureKind

SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder; ``prometheus_client`` reads it as it is imported."""
_REFRESH_S: Final = 0.5
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Metrics of one app."""

    def __init__(self) -> None:
        # When each counter began would be as many series again, and nobody asks for them.
        cast(Any, disable_created_metrics)()
        self.registry = CollectorRegistry()
        registry = self.registry
        self._refreshers: list[Callable[[], None]] = []
        build = Gauge(
            "searchr1_build_info",
            "1, with the version of the server and of Python as labels.",
            ["version", "python"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(version("searchr1"), python_version()).set(1)
        self.http = HttpMetrics(registry)
        self.run = RunMetrics(registry)
        self.running = Gauge(
            "searchr1_runs_running", "Runs in progress.", registry=registry, multiprocess_mode="livesum"
        )
        self.runs = Counter("searchr1_runs", "Runs by how they ended.", ["model", "status"], registry=registry)
        self.run_s = Histogram(
            "searchr1_run_seconds", "Wall time of a run.", ["model"], buckets=_SECONDS, registry=registry
        )
        self.first_text_s = Histogram(
            "searchr1_first_text_seconds",
            "From the request to the first generated text.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.searches = Counter("searchr1_searches", "Searches by outcome.", ["outcome", "cache"], registry=registry)
        self.search_s = Histogram(
            "searchr1_search_seconds", "Wall time of a search.", buckets=_SECONDS, registry=registry
        )
        self.search_early_s = Histogram(
            "searchr1_search_early_seconds",
            "Time won by sending a query before its completion had ended.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.completion_s = Histogram(
            "searchr1_completion_seconds",
            "Wall time of one completion.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.search = SearchMetrics(registry)
        self.run_store_errors = Counter(
            "searchr1_run_store_errors", "Calls of the run store that it did not answer.", registry=registry
        )
        self.run_store_up = Gauge(
            "searchr1_run_store_up",
            "1 while the run store answers.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.run_store_up.set(1)
        self.runs_taken_over = Counter(
            "searchr1_runs_taken_over", "Runs of gateways that are gone, which went on here.", registry=registry
        )
        self.ignored_fields = Counter(
            "searchr1_ignored_fields",
            "Fields of requests that were taken and changed nothing, such as tools.",
            ["field"],
            registry=registry,
        )
        self.rewrites = Counter(
            "searchr1_rewrites",
            "Conversations that were to be rewritten as one question.",
            ["outcome"],
            registry=registry,
        )
        self.tokens = Counter("searchr1_tokens", "Tokens by kind.", ["model", "kind"], registry=registry)
        self.runs_failed = Counter("searchr1_runs_failed", "Failed runs by code.", ["model", "code"], registry=registry)
        self.candidate_requests = Counter(
            "searchr1_candidate_requests",
            "Requests of a candidate's share, by whether it was well and took them.",
            ["model", "taken"],
            registry=registry,
        )
        self.engine_up = Gauge(
            "searchr1_engine_up",
            "1 while the engine says that it is well.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.engine_failures = Counter(
            "searchr1_engine_failures",
            "Times that the engine stopped being well, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.completion_retries = Counter(
            "searchr1_completion_retries", "Completions that were asked for again.", registry=registry
        )
        self.completion_resumes = Counter(
            "searchr1_completion_resumes", "Those of them that went on in their middle.", registry=registry
        )
        self.retries_refused = Counter(
            "searchr1_completion_retries_refused",
            "Times that a completion waited because the retry budget was spent.",
            registry=registry,
        )
        self.requests_shed = Counter(
            "searchr1_requests_shed",
            "Requests for a run that were refused for now, by reason.",
            ["reason"],
            registry=registry,
        )
        self.keys_refused = Counter(
            "searchr1_keys_refused",
            "Requests that were refused for their key, by reason.",
            ["reason"],
            registry=registry,
        )

    def begin(self, models: Iterable[str]) -> None:
        """Show the counts of ``models`` as 0 before anything is counted, so that the first one is seen as a rise."""
        for model in models:
            for status in Status:
                self.runs.labels(model, status.value)
            self.run.begin(model)
        for state in get_args(CacheState):
            self.searches.labels("found", state)
        for kind in get_args(FailureKind):
            self.searches.labels(kind, "miss")
        for reason in ("no_slot", *(f"engine_{reason}" for reason in sorted(HEALTH_REASONS - SURVIVABLE_REASONS))):
            self.requests_shed.labels(reason)

    def count(self, event: DriveEvent) -> None:
        """Count a search by its outcome; other events count nothing by themselves."""
        if isinstance(event, PassagesReceived):
            self.searches.labels("found", event.cache).inc()
        elif isinstance(event, SearchErrored):
            self.searches.labels(event.kind, "miss").inc()

    def run_ended(
        self,
        rollout: Rollout,
        stats: DriveStats,
        *,
        model: str,
        duration_s: float,
        first_text_s: float | None,
        failure: str | None = None,
    ) -> None:
        """Count a whole run of ``model``, however it ended: as failed by ``failure``, a code, where it has one.

        An open rollout was left by its client.
        """
        status = "failed" if failure is not None else rollout.status.value if rollout.status else "cancelled"
        self.runs.labels(model, status).inc()
        if failure is not None:
            self.runs_failed.labels(model, failure).inc()
        self.run.ended(rollout, stats, model=model, status=status)
        self.run_s.labels(model).observe(duration_s)
        if first_text_s is not None:
            self.first_text_s.labels(model).observe(first_text_s)
        for seconds in stats.completion_s:
            self.completion_s.labels(model).observe(seconds)
        for seconds in stats.search_s:
            self.search_s.observe(seconds)
        for seconds in stats.prefetched_s:
            self.search_early_s.observe(seconds)
        self.completion_retries.inc(stats.num_engine_retries)
        self.completion_resumes.inc(stats.num_resumes)
        self.retries_refused.inc(stats.num_refused_retries)
        self.tokens.labels(model, "sampled").inc(rollout.num_sampled_tokens)
        self.tokens.labels(model, "cached").inc(stats.num_cached_tokens)
        for segment in rollout.segments:
            if not segment.sampled:
                self.tokens.labels(model, segment.kind).inc(len(segment.ids))

    def add_refresher(self, refresh: Callable[[], None]) -> None:
        """Have ``refresh`` called before metrics are read, to set those that nobody sets as things happen."""
        self._refreshers.append(refresh)

    @asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        """Keep the metrics fresh while the block runs, where other workers render them too."""
        keeping = asyncio.create_task(self._keep_fresh(), name="metrics") if _is_shared() else None
        try:
            yield
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)

    def render(self) -> bytes:
        """Return the exposition text, of all workers where there are several."""
        self._refresh()
        if not _is_shared():
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        cast(Any, MultiProcessCollector)(registry)
        return generate_latest(registry)

    async def _keep_fresh(self) -> None:
        while True:
            self._refresh()
            await asyncio.sleep(_REFRESH_S)

    def _refresh(self) -> None:
        for refresh in self._refreshers:
            refresh()


def _is_shared() -> bool:
    return SHARED_METRICS in os.environ
