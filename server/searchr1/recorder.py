"""The recorder: a rollout's trajectory as the wire has it, gathered while the rollout is driven.

The gateway records users' runs with it, the trainer the rollouts that it keeps.
"""

from collections.abc import Callable
from operator import attrgetter

from searchr1.driver import DriveEvent, DriveOptions, DriveStats, PassagesReceived, SearchErrored
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Segment
from searchr1_client import events as wire


def ms(seconds: float) -> float:
    """Return milliseconds, rounded as the wire has them."""
    return round(seconds * 1e6) / 1000  # Rounding to places takes three times as long.


class Recorder:
    """A keeper of the outcomes of a rollout's searches; everything else is in the rollout itself.

    ``explain`` words the failure of a search, for whoever may read the record.
    """

    def __init__(
        self,
        rollout: Rollout,
        options: DriveOptions,
        stats: DriveStats,
        explain: Callable[[SearchErrored], str] = attrgetter("message"),
    ) -> None:
        self._rollout, self._options, self._stats, self._explain = rollout, options, stats, explain
        self._searches: list[wire.TrajectorySearch] = []

    def add(self, event: DriveEvent) -> None:
        """Take a drive event."""
        if isinstance(event, PassagesReceived):
            passages = [
                wire.TrajectoryPassage(id=p.id, title=p.title, text=p.text, url=p.url, score=p.score)
                for p in event.passages
            ]
            self._searches.append(
                wire.TrajectorySearch(
                    turn=event.turn,
                    query=event.query,
                    passages=passages,
                    cache=event.cache,
                    age_s=event.age_s,
                    provider=event.provider,
                    duration_ms=ms(event.duration_s),
                )
            )
        elif isinstance(event, SearchErrored):
            self._searches.append(
                wire.TrajectorySearch(
                    turn=event.turn,
                    query=event.query,
                    provider=event.provider,
                    error=wire.WireError(code=event.kind, message=self._explain(event)),
                    duration_ms=ms(event.duration_s),
                )
            )

    def trajectory(self, question: str, *, total_ms: float, policy_version: str | None) -> wire.Trajectory:
        """Return the whole record. ``question`` is the text that the model was asked."""
        limits, options, stats = self._rollout.limits, self._options, self._stats
        return wire.Trajectory(
            question=question,
            policy_version=policy_version,
            profile=self._rollout.profile.name,
            options=wire.TrajectoryOptions(
                max_turns=limits.max_turns,
                max_searches=limits.max_searches,
                max_tokens=limits.max_run_tokens,
                top_k=options.top_k,
                temperature=options.temperature,
                top_p=options.top_p,
                seed=options.seed,
            ),
            segments=[_segment(segment) for segment in self._rollout.segments],
            searches=self._searches,
            timings=wire.TrajectoryTimings(
                completions_ms=[ms(s) for s in stats.completion_s],
                searches_ms=[ms(s) for s in stats.search_s],
                early_ms=[ms(s) for s in stats.prefetched_s],
                total_ms=total_ms,
            ),
        )


def _segment(segment: Segment) -> wire.TrajectorySegment:
    return wire.TrajectorySegment(
        kind=segment.kind,
        turn=segment.turn,
        text=segment.text,
        token_ids=list(segment.ids),
        loss_mask=[1 if segment.sampled else 0] * len(segment.ids),
        sampled_ids=list(segment.sampled_ids),
        logprobs=None if segment.logprobs is None else list(segment.logprobs),
    )
