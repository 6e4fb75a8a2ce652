"""Replay: a fresh rollout is brought to the point where its last owner left it, and its log is held against it."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from searchr1.driver import DriveEvent, DriveStats, PassagesReceived, SearchErrored
from searchr1.engines.resume import Begun
from searchr1.errors import IllegalInputError
from searchr1.gateway.runs.journal import (
    CompletionEnded,
    Input,
    JournalError,
    Sampled,
    SearchBroke,
    SearchWorked,
    Stopped,
)
from searchr1.loop import types as loop
from searchr1.loop.machine import Rollout
from searchr1_client import events as wire

_Fact = tuple[str, int, str]
"""An event as both sides tell it: its kind, its turn, its text."""


@dataclass(slots=True)
class Past:
    """What a run went through before this process took it over."""

    events: Sequence[wire.KnownEvent] = ()
    """Those that were stored, which clients may have seen."""
    outcomes: Sequence[PassagesReceived | SearchErrored] = ()
    """Outcomes of its searches."""
    owed: Sequence[DriveEvent] = ()
    """Events that its inputs led to but nobody was told of."""
    begun: Begun | None = None
    """What has come of its open completion."""
    unwritten: Sequence[Input] = ()
    """An end that follows from the journal but is not in it: the next owner writes it."""


def replay(rollout: Rollout, inputs: Sequence[Input], events: Sequence[wire.KnownEvent], stats: DriveStats) -> Past:
    """Feed ``inputs`` to a rollout at its start, and hold what comes out against the stored ``events``.

    ``stats`` are filled in as the drive did.

    Raises:
        JournalError: the inputs are not this rollout's, or the events tell more than they led to.
    """
    feeding, last = _Feeding(rollout, stats), events[-1] if events else None
    has_ended = isinstance(last, wire.RunCompleted | wire.RunFailed)
    try:
        for one in inputs:
            # An end from outside of which nobody was told did not happen.
            if has_ended or not isinstance(one, Stopped):
                feeding.feed(one)
        begun = feeding.left_open()
        owed = _owed(feeding.events, events[:-1] if has_ended else events)
        if has_ended and rollout.status is None:
            rollout.stop(loop.Status.FAILED)
    except (IllegalInputError, ValueError) as error:
        raise JournalError("the journal does not fit its run") from error
    return Past(list(events), feeding.outcomes, [] if has_ended else owed, begun, feeding.unwritten)


class _Feeding:
    """Feeds inputs to a rollout; a completion's text once for all its pieces, which changes nothing."""

    def __init__(self, rollout: Rollout, stats: DriveStats) -> None:
        self.events: list[DriveEvent] = []
        self.outcomes: list[PassagesReceived | SearchErrored] = []
        self.unwritten: list[Input] = []
        self._rollout, self._stats = rollout, stats
        self._text, self._ids, self._logprobs = "", list[int](), list[float]()
        self._finish: loop.FinishReason | None = None

    def feed(self, one: Input) -> None:
        match one:
            case Sampled():
                self._sample(one)
            case CompletionEnded():
                self._stats.num_cached_tokens = one.num_cached_tokens
                self._end(one.reason, one.duration_s)
            case SearchWorked():
                self._take(one.outcome, one.outcome.passages)
            case SearchBroke():
                self._take(one.outcome, ())
            case Stopped():
                self._receive(self._ids)
                self.events += self._rollout.stop(loop.Status(one.status))

    def left_open(self) -> Begun | None:
        """Return what has come of the completion that goes on; the rollout gets its text."""
        if not isinstance(self._rollout.action, loop.Generate) or not (self._text or self._ids):
            return None
        if self._finish is not None:  # It had ended, though its end was not written any more.
            self.unwritten.append(CompletionEnded(self._finish, 0.0, self._stats.num_cached_tokens))
            self._end(self._finish, 0.0)
            return None
        begun = Begun(self._text, tuple(self._ids), tuple(self._logprobs))
        self._receive(())
        return begun

    def _sample(self, more: Sampled) -> None:
        if more.start > len(self._ids):
            raise JournalError("ids are missing in the journal")
        self._text += more.text
        self._ids[more.start :] = more.ids
        self._logprobs[more.start :] = more.logprobs
        self._finish = more.finish

    def _receive(self, ids: Sequence[int]) -> None:
        if self._text or ids:
            received = self._rollout.receive_text(self._text, ids, self._logprobs if ids else None)
            self.events += [event for event in received if not isinstance(event, loop.QuerySettled)]
        self._text, self._ids, self._logprobs, self._finish = "", [], [], None

    def _end(self, reason: loop.FinishReason, duration_s: float) -> None:
        self._receive(self._ids)
        self._stats.completion_s.append(duration_s)
        self.events += self._rollout.end_completion(reason)

    def _take(self, outcome: PassagesReceived | SearchErrored, passages: Sequence[loop.Passage]) -> None:
        self._stats.search_s.append(outcome.duration_s)
        self._stats.prefetched_s.append(outcome.prefetched_s)
        self.outcomes.append(outcome)
        self.events += [outcome, *self._rollout.receive_passages(passages)]


def _owed(replayed: Sequence[DriveEvent], stored: Sequence[wire.KnownEvent]) -> list[DriveEvent]:
    """Return what of ``replayed`` is not in ``stored``. Deltas may be cut differently in both."""
    told, owed = deque(_merged(filter(None, map(_fact_of_wire, stored)))), list[DriveEvent]()
    seen = ""
    """What of the first fact in ``told`` has been found."""
    for event in replayed:
        fact = _fact_of(event)
        if not told:
            owed.append(event)
            continue
        kind, turn, text = told[0]
        if (kind, turn) != fact[:2]:
            raise JournalError("the log and the journal of a run do not agree")
        if not isinstance(event, loop.ThinkDelta | loop.AnswerDelta):
            if text != fact[2]:
                raise JournalError("the log and the journal of a run do not agree")
            told.popleft()
            continue
        left = text[len(seen) :]
        common = min(len(left), len(event.text))
        if left[:common] != event.text[:common]:
            raise JournalError("the log and the journal of a run do not agree")
        seen += event.text[:common]
        if len(seen) == len(text):
            told.popleft()
            seen = ""
        if rest := event.text[common:]:
            if told:
                raise JournalError("the log and the journal of a run do not agree")
            owed.append(replace(event, text=rest))
    if told:
        raise JournalError("the log of a run tells more than its journal")
    return owed


def _merged(facts: Iterator[_Fact]) -> Iterator[_Fact]:
    """Yield facts with deltas that follow each other as one."""
    last: _Fact | None = None
    for fact in facts:
        if last is not None and fact[0] in ("think", "answer") and last[:2] == fact[:2]:
            last = (*last[:2], last[2] + fact[2])
            continue
        if last is not None:
            yield last
        last = fact
    if last is not None:
        yield last


def _fact_of(event: DriveEvent) -> _Fact:
    match event:
        case loop.ThinkDelta():
            return "think", event.turn, event.text
        case loop.AnswerDelta():
            return "answer", event.turn, event.text
        case loop.SearchRequested():
            return "search", event.turn, event.query
        case PassagesReceived():
            return "found", event.turn, event.query
        case SearchErrored():
            return "broke", event.turn, event.query
        case loop.ActionInvalid():
            return "invalid", event.turn, event.reason
        case loop.AnswerCompleted():
            return "answered", event.turn, event.text
        case _:
            return "end", event.turn, ""


def _fact_of_wire(event: wire.KnownEvent) -> _Fact | None:
    match event:
        case wire.ThinkDelta():
            return "think", event.turn, event.text
        case wire.AnswerDelta():
            return "answer", event.turn, event.text
        case wire.SearchStarted():
            return "search", event.turn, event.query
        case wire.SearchCompleted():
            return "found", event.turn, event.query
        case wire.SearchFailed():
            return "broke", event.turn, event.query
        case wire.ActionInvalid():
            return "invalid", event.turn, event.reason
        case wire.AnswerCompleted():
            return "answered", event.turn, event.text
        case _:
            return None
