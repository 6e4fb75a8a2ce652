"""Prometheus metrics of the gateway, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from searchr1.driver import DriveEvent, DriveStats, PassagesReceived, SearchErrored
from searchr1.gateway.search_metrics import SearchMetrics
from searchr1.loop.machine import Rollout

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_COUNTS = (0, 1, 2, 3, 4, 5, 6, 8, 10)


class Metrics:
    """Metrics of one app's runs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.running = Gauge("searchr1_runs_running", "Runs in progress.", registry=registry)
        self.runs = Counter("searchr1_runs", "Runs by how they ended.", ["status"], registry=registry)
        self.run_s = Histogram("searchr1_run_seconds", "Wall time of a run.", buckets=_SECONDS, registry=registry)
        self.first_event_s = Histogram(
            "searchr1_first_text_seconds",
            "From the request to the first generated text.",
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
            "searchr1_completion_seconds", "Wall time of one completion.", buckets=_SECONDS, registry=registry
        )
        self.search = SearchMetrics(registry)
        self.searches_per_run = Histogram(
            "searchr1_searches_per_run", "Searches that a run made.", buckets=_COUNTS, registry=registry
        )
        self.invalid_actions = Counter("searchr1_invalid_actions", "Turns without an action.", registry=registry)
        self.run_store_errors = Counter(
            "searchr1_run_store_errors", "Calls of the run store that it did not answer.", registry=registry
        )
        self.run_store_up = Gauge("searchr1_run_store_up", "1 while the run store answers.", registry=registry)
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
        self.tokens = Counter("searchr1_tokens", "Tokens by kind.", ["kind"], registry=registry)
        self.runs_failed = Counter("searchr1_runs_failed", "Failed runs by code.", ["code"], registry=registry)
        self.engine_up = Gauge("searchr1_engine_up", "1 while the engine says that it is well.", registry=registry)
        self.engine_failures = Counter(
            "searchr1_engine_failures",
            "Times that the engine stopped being well, by reason.",
            ["reason"],
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
        duration_s: float,
        first_text_s: float | None,
        failure: str | None = None,
    ) -> None:
        """Count a whole run, however it ended: as failed by ``failure``, a code, where it has one.

        An open rollout was left by its client.
        """
        if failure is not None:
            self.runs.labels("failed").inc()
            self.runs_failed.labels(failure).inc()
        else:
            self.runs.labels(rollout.status.value if rollout.status else "cancelled").inc()
        self.run_s.observe(duration_s)
        if first_text_s is not None:
            self.first_event_s.observe(first_text_s)
        for seconds in stats.completion_s:
            self.completion_s.observe(seconds)
        for seconds in stats.search_s:
            self.search_s.observe(seconds)
        for seconds in stats.prefetched_s:
            self.search_early_s.observe(seconds)
        self.searches_per_run.observe(rollout.num_searches)
        self.invalid_actions.inc(rollout.num_invalid)
        self.completion_retries.inc(stats.num_engine_retries)
        self.completion_resumes.inc(stats.num_resumes)
        self.retries_refused.inc(stats.num_refused_retries)
        self.tokens.labels("sampled").inc(rollout.num_sampled_tokens)
        self.tokens.labels("cached").inc(stats.num_cached_tokens)
        for segment in rollout.segments:
            if not segment.sampled:
                self.tokens.labels(segment.kind).inc(len(segment.ids))

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)
