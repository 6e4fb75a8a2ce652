"""The event mapper: the driver's events of a run become wire events, with citations and cost."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.driver import DriveEvent, DriveStats, EngineErrored, PassagesReceived, SearchErrored
from searchr1.errors import EngineError
from searchr1.gateway.failures import engine_code, run_failure, search_failure
from searchr1.gateway.shown import title_and_text
from searchr1.loop import types as loop
from searchr1.loop.machine import Rollout
from searchr1.recorder import ms
from searchr1_client import events as wire

MAX_SNIPPET_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Queued:
    """A run waits for its start, and ``place`` others are expected to start before it."""

    place: int
    turn: int = 0


class EventMapper:
    """A map of one run's drive events to wire events, each with its number and time.

    It also numbers passages over the whole run and finds those that contain the answer.
    """

    def __init__(
        self,
        *,
        run_id: str,
        model: str,
        question: str,
        created: int,
        rollout: Rollout,
        stats: DriveStats,
        prices_usd: Mapping[str, float],
    ) -> None:
        self._run_id = run_id
        self._model = model
        self._question = question
        self._created = created
        self._rollout = rollout
        self._stats = stats
        self._prices_usd = prices_usd
        self._cost_usd = 0.0
        self._first_token_ms: float | None = None
        self._answer_tokens = 0
        self._seq = 0
        self._turn = 0
        self._started = time.perf_counter()
        self._searches: list[list[wire.WirePassage]] = []
        self._num_passages = 0
        self._engine_error: EngineError | None = None
        self.failure: str | None = None
        """Code of the run's failure, once its last event says so."""

    @property
    def num_events(self) -> int:
        """Number of events given so far, those of an owner before included."""
        return self._seq

    def take_up(self, events: Sequence[wire.KnownEvent], *, elapsed_s: float) -> None:
        """Go on after ``events``, which another process gave; the run started ``elapsed_s`` seconds ago."""
        for event in events:
            self._turn = event.turn
            if isinstance(event, wire.SearchCompleted):
                self._searches.append(event.passages)
                self._num_passages += len(event.passages)
                self._charge(event)
            elif isinstance(event, wire.ThinkDelta | wire.AnswerDelta):
                self._note_first_text(event.t_ms)
            elif isinstance(event, wire.AnswerCompleted):
                self._answer_tokens = self._rollout.count_tokens(event.text)
        self._seq = len(events)
        # Clocks of two machines differ: time does not run backwards for it.
        last_s = events[-1].t_ms / 1000 if events else 0.0
        self._started = time.perf_counter() - max(elapsed_s, last_s)

    def started(self) -> wire.RunStarted:
        """Return the first event."""
        return wire.RunStarted(**self._stamp(), model=self._model, question=self._question, created=self._created)

    def map(self, event: DriveEvent | Queued) -> wire.KnownEvent | None:
        """Return the wire event of a drive event; None for one that only prepares the end."""
        self._turn = event.turn
        match event:
            case Queued():
                return wire.RunQueued(**self._stamp(), place=event.place)
            case loop.ThinkDelta():
                return wire.ThinkDelta(**self._first_text(), text=event.text)
            case loop.AnswerDelta():
                return wire.AnswerDelta(**self._first_text(), text=event.text)
            case loop.SearchRequested():
                return wire.SearchStarted(**self._stamp(), query=event.query)
            case PassagesReceived():
                self._charge(event)
                return wire.SearchCompleted(
                    **self._stamp(),
                    query=event.query,
                    passages=self._number(event.passages),
                    cache=event.cache,
                    age_s=None if event.age_s is None else round(event.age_s, 3),
                    provider=event.provider,
                    duration_ms=ms(event.duration_s),
                )
            case SearchErrored():
                error = wire.WireError(code=event.kind, message=search_failure(event.kind))
                return wire.SearchFailed(
                    **self._stamp(),
                    query=event.query,
                    error=error,
                    provider=event.provider,
                    duration_ms=ms(event.duration_s),
                )
            case loop.ActionInvalid():
                return wire.ActionInvalid(**self._stamp(), reason=event.reason)
            case loop.AnswerCompleted():
                self._answer_tokens = self._rollout.count_tokens(event.text)
                return wire.AnswerCompleted(**self._stamp(), text=event.text, citations=self._cite(event.text))
            case EngineErrored():
                self._engine_error = event.error
                return None
            case loop.Finished():
                if self._engine_error is not None:
                    return self.failed(engine_code(self._engine_error))
                if event.status is loop.Status.DEADLINE and not self._rollout.num_sampled_tokens:
                    return self.failed("deadline")  # A client must not take silence for an empty answer.
                return self.ended(event.status)

    def failed(self, code: str) -> wire.RunFailed:
        """Return the last event of a run that failed, in the words that are fixed for ``code``."""
        self.failure = code
        error = wire.WireError(code=code, message=run_failure(code).message)
        return wire.RunFailed(**self._stamp(), error=error, usage=self.usage())

    def ended(self, status: loop.Status) -> wire.RunCompleted:
        """Return the last event of a run that did not fail."""
        return wire.RunCompleted(**self._stamp(), status=status.value, usage=self.usage())

    def usage(self) -> wire.Usage:
        """Return the tokens, searches, dollars and milliseconds that the run has cost so far."""
        counts = {"prompt": 0, "observation": 0, "retry": 0}
        for segment in self._rollout.segments:
            if segment.kind in counts:
                counts[segment.kind] += len(segment.ids)
        return wire.Usage(
            prompt_tokens=counts["prompt"],
            completion_tokens=self._rollout.num_sampled_tokens,
            reasoning_tokens=max(0, self._rollout.num_sampled_tokens - self._answer_tokens),
            observation_tokens=counts["observation"] + counts["retry"],
            cached_tokens=self._stats.num_cached_tokens,
            turns=self._rollout.num_turns,
            searches=self._rollout.num_searches,
            cost_usd=round(self._cost_usd, 6) if self._prices_usd else None,
            first_token_ms=self._first_token_ms,
            duration_ms=self.elapsed_ms(),
        )

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the run started."""
        return ms(time.perf_counter() - self._started)

    def _stamp(self) -> dict[str, Any]:
        seq = self._seq
        self._seq += 1
        return {"seq": seq, "run_id": self._run_id, "turn": self._turn, "t_ms": self.elapsed_ms()}

    def _first_text(self) -> dict[str, Any]:
        stamp = self._stamp()
        self._note_first_text(stamp["t_ms"])
        return stamp

    def _note_first_text(self, t_ms: float) -> None:
        if self._first_token_ms is None:
            self._first_token_ms = t_ms

    def _charge(self, search: PassagesReceived | wire.SearchCompleted) -> None:
        if search.cache == "miss":
            self._cost_usd += self._prices_usd.get(search.provider, 0.0)

    def _number(self, passages: tuple[loop.Passage, ...]) -> list[wire.WirePassage]:
        numbered = []
        for i, p in enumerate(passages, start=1):
            title, text = title_and_text(p)
            index, snippet = self._num_passages + i, text[:MAX_SNIPPET_CHARS]
            numbered.append(wire.WirePassage(index=index, title=title, url=p.url, snippet=snippet, score=p.score))
        self._num_passages += len(numbered)
        self._searches.append(numbered)
        return numbered

    def _cite(self, answer: str) -> list[wire.Citation]:
        """Return the passages that hold the answer word for word, but for case, of the latest search that has any."""
        if not answer:
            return []
        pattern = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
        for passages in reversed(self._searches):
            found = [(p, match) for p in passages if (match := pattern.search(p.snippet))]
            if found:
                return [
                    wire.Citation(index=p.index, title=p.title, url=p.url, start=m.start(), end=m.end())
                    for p, m in found
                ]
        return []
