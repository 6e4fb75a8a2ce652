"""Prometheus metrics of the course of runs: their wait, turns, queries, and where their time went."""

from collections.abc import Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

from searchr1.driver import DriveStats, Prefix
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Status

LeftQueue = Literal["started", "expired", "left"]
"""How a run's wait for its start ended: with its start, at its deadline, or because it was given up."""

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_SHORT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COUNTS: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10)
_LAST_TURN: Final = 5
"""Turns from this one on are counted together: a request may ask for many."""
_OWN_ENDS: Final = frozenset({Status.COMPLETED, Status.EXHAUSTED, Status.TRUNCATED})


class RunMetrics:
    """The metrics of how runs went on. Each is counted at a run's end, or at an event of which a turn has one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queue_s = Histogram(
            "searchr1_queue_seconds",
            "Wait of a run for its start, by how it ended: started, expired or left.",
            ["model", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._turn_wait_s = Histogram(
            "searchr1_turn_wait_seconds",
            "Wait of a started run for room for its turns, all together.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_search_s = Histogram(
            "searchr1_first_search_seconds",
            "From the request to the first search.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._answer_s = Histogram(
            "searchr1_answer_seconds",
            "From the request to the whole answer.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._overhead_s = Histogram(
            "searchr1_gateway_overhead_seconds",
            "Time of a run that came to its own end, less waits, completions and searches: what the gateway adds.",
            ["model"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._turns = Counter(
            "searchr1_turns",
            "Turns by outcome: search, answer, invalid, or unfinished.",
            ["model", "outcome"],
            registry=registry,
        )
        self._searches_per_run = Histogram(
            "searchr1_searches_per_run",
            "Searches that a run made; per answer where its status is completed.",
            ["model", "status"],
            buckets=_COUNTS,
            registry=registry,
        )
        self._invalid_actions = Counter(
            "searchr1_invalid_actions",
            "Turns without an action that could be taken, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self._duplicate_queries = Counter(
            "searchr1_duplicate_queries",
            "Searches whose query the same run had sent before.",
            ["model"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "searchr1_turn_prompt_tokens",
            "Input tokens of completions whose prefix hits the engine told, by turn.",
            ["model", "turn"],
            registry=registry,
        )
        self._hit_tokens = Counter(
            "searchr1_turn_prefix_hit_tokens",
            "Those of them that the engine found in its prefix cache, by turn.",
            ["model", "turn"],
            registry=registry,
        )

    def begin(self, model: str) -> None:
        """Show the counts of ``model`` as 0 before anything is counted, so that the first one is seen as a rise."""
        for outcome in ("search", "answer", "invalid", "unfinished"):
            self._turns.labels(model, outcome)
        for reason in ("no_action", "search_off"):
            self._invalid_actions.labels(model, reason)
        self._duplicate_queries.labels(model)

    def left_queue(self, model: str, outcome: LeftQueue, duration_s: float) -> None:
        """Count the end of a run's wait for its start."""
        self._queue_s.labels(model, outcome).observe(duration_s)

    def first_search(self, model: str, since_request_s: float) -> None:
        """Count the first search of a run."""
        self._first_search_s.labels(model).observe(since_request_s)

    def answered(self, model: str, since_request_s: float) -> None:
        """Count an answer that is whole."""
        self._answer_s.labels(model).observe(since_request_s)

    def invalid_action(self, model: str, reason: str) -> None:
        """Count a turn that held no action that could be taken."""
        self._invalid_actions.labels(model, reason).inc()

    def duplicate_query(self, model: str) -> None:
        """Count a search for what the same run had searched for before."""
        self._duplicate_queries.labels(model).inc()

    def ended(self, rollout: Rollout, stats: DriveStats, *, model: str, status: str) -> None:
        """Count the turns and searches of a run that has ended, and what its prefixes and waits were."""
        answers = int(rollout.status is Status.COMPLETED)
        done = {"search": rollout.num_searches, "answer": answers, "invalid": rollout.num_invalid}
        for outcome, number in {**done, "unfinished": max(0, rollout.num_turns - sum(done.values()))}.items():
            self._turns.labels(model, outcome).inc(number)
        self._searches_per_run.labels(model, status).observe(rollout.num_searches)
        self._turn_wait_s.labels(model).observe(stats.waited_s)
        self._count_prefixes(model, stats.prefixes)

    def overhead(self, rollout: Rollout, stats: DriveStats, *, model: str, duration_s: float, queue_s: float) -> None:
        """Count what is left of a run's ``duration_s`` without its waits and its time on the engine and on searches.

        A run that was ended from outside has a completion or a search that was not timed: it is left out.
        """
        if rollout.status in _OWN_ENDS:
            searches_s = sum(stats.search_s) - sum(stats.prefetched_s)
            elsewhere_s = queue_s + stats.waited_s + sum(stats.completion_s) + searches_s
            self._overhead_s.labels(model).observe(max(0.0, duration_s - elsewhere_s))

    def _count_prefixes(self, model: str, prefixes: Sequence[Prefix]) -> None:
        for prefix in prefixes:
            turn = str(prefix.turn) if prefix.turn < _LAST_TURN else f"{_LAST_TURN}+"
            self._prompt_tokens.labels(model, turn).inc(prefix.num_prompt_tokens)
            self._hit_tokens.labels(model, turn).inc(prefix.num_cached_tokens)
