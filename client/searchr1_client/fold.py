"""The fold of a run's events into the whole run: one definition for server and clients."""

from io import StringIO
from typing import NamedTuple

from searchr1_client.events import (
    ActionInvalid,
    AnswerCompleted,
    Citation,
    KnownEvent,
    Run,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStatus,
    SearchCompleted,
    SearchFailed,
    SearchStarted,
    Step,
    ThinkDelta,
    UnknownEvent,
    Usage,
    WireError,
)


class _Started(NamedTuple):
    """What the first event tells of a run."""

    id: str
    created: int
    model: str
    question: str


class RunFold:
    """A fold that adds a run's events, in their order, up to the whole run (as ``functools.reduce`` would)."""

    def __init__(self, *, created: int = 0) -> None:
        self._created = created
        # No events are kept: each has a kilobyte of its own, and a server folds many runs at once.
        self._started: _Started | None = None
        self._steps: dict[int, Step] = {}
        self._reasoning: dict[int, StringIO] = {}
        self._answer: str | None = None
        self._citations: list[Citation] = []
        self._status: RunStatus | None = None
        self._usage: Usage | None = None
        self._error: WireError | None = None

    @property
    def finished(self) -> bool:
        """True once a terminal event came."""
        return self._status is not None

    def add(self, event: KnownEvent | UnknownEvent) -> None:
        """Take the next event. Unknown events change nothing."""
        match event:
            case RunStarted():
                self._started = _Started(event.run_id, event.created, event.model, event.question)
            case ThinkDelta():
                if (reasoning := self._reasoning.get(event.turn)) is None:
                    self._step(event.turn)
                    reasoning = self._reasoning[event.turn] = StringIO()
                reasoning.write(event.text)
            case SearchStarted():
                self._step(event.turn).query = event.query
            case SearchCompleted():
                step = self._step(event.turn)
                step.query, step.passages, step.cache = event.query, event.passages, event.cache
                step.age_s, step.provider, step.duration_ms = event.age_s, event.provider, event.duration_ms
            case SearchFailed():
                step = self._step(event.turn)
                step.query, step.search_error = event.query, event.error
                step.provider, step.duration_ms = event.provider, event.duration_ms
            case ActionInvalid():
                self._step(event.turn).invalid = event.reason
            case AnswerCompleted():
                self._step(event.turn)
                self._answer, self._citations = event.text, event.citations
            case RunCompleted():
                self._status, self._usage = event.status, event.usage
            case RunFailed():
                self._status, self._usage, self._error = "failed", event.usage, event.error
            case _:
                pass

    def run(self) -> Run:
        """Return the whole run.

        Raises:
            ValueError: the run has not finished.
        """
        if self._status is None:
            raise ValueError("the run is not finished: its last event is missing")
        return self.so_far()

    def so_far(self) -> Run:
        """Return the run as it stands: ``running`` until its last event.

        Raises:
            ValueError: the run has not started.
        """
        if self._started is None:
            raise ValueError("the run has not started: its first event is missing")
        for turn, reasoning in self._reasoning.items():
            self._steps[turn].reasoning = reasoning.getvalue()
        return Run(
            id=self._started.id,
            created=self._started.created or self._created,
            model=self._started.model,
            question=self._started.question,
            status=self._status or "running",
            answer=self._answer,
            citations=self._citations,
            steps=[self._steps[turn] for turn in sorted(self._steps)],
            usage=self._usage or Usage(),
            error=self._error,
        )

    def _step(self, turn: int) -> Step:
        if (step := self._steps.get(turn)) is None:
            step = self._steps[turn] = Step(turn=turn)
        return step
