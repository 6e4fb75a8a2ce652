"""The journal of a run: what its loop took in, so that another process can bring a rollout to the same point.

The loop is a state machine: the same inputs, in the same order, give the same segments and events. So not the state is
stored but the inputs: what completions gave, how they ended, what searches found. They go to the store together with
the events that they led to, as lines of JSON. Each line is ``[N, [input, …]]``, whose first input is the run's Nth.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from searchr1.driver import DriveEvent, DriveStats, PassagesReceived, SearchErrored
from searchr1.engines.resume import UnbrokenCompletion
from searchr1.loop.types import ActionInvalid, AnswerCompleted, Finished, FinishReason, SearchRequested, Status


class _Input(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The base of all inputs."""


class Sampled(_Input, frozen=True, tag="t"):
    """More of the open completion: ``text`` after the text before, and ``ids`` in place of those from ``start`` on."""

    text: str
    start: int
    ids: list[int]
    logprobs: list[float] = []
    finish: FinishReason | None = None


class CompletionEnded(_Input, frozen=True, tag="e"):
    """The end of the open completion."""

    reason: FinishReason
    duration_s: float
    num_cached_tokens: int
    """Of all completions so far."""


class SearchWorked(_Input, frozen=True, tag="s"):
    """The outcome of the search that the rollout asked for."""

    outcome: PassagesReceived


class SearchBroke(_Input, frozen=True, tag="f"):
    """The same, for a search that failed."""

    outcome: SearchErrored


class Stopped(_Input, frozen=True, tag="x"):
    """An end from outside."""

    status: Literal["cancelled", "deadline", "failed"]


Input = Sampled | CompletionEnded | SearchWorked | SearchBroke | Stopped

_ENDS_COMPLETION = (SearchRequested, ActionInvalid, AnswerCompleted, Finished)
_FROM_OUTSIDE = (Status.CANCELLED, Status.DEADLINE, Status.FAILED)
_LINE: msgspec.json.Decoder[tuple[int, list[Input]]] = msgspec.json.Decoder(tuple[int, list[Input]])


class JournalError(Exception):
    """A journal that can't be read, or that does not fit its run."""


class NewerJournalError(JournalError):
    """A journal, or a log, with something in it that only a newer release knows."""


class Journal:
    """The inputs of one run, kept as lines until the run ends: a store that loses the run is sent all again.

    What a completion gave is looked up when it is written, so that a token costs nothing here.
    """

    def __init__(self, stats: DriveStats, past: Sequence[bytes] = (), unwritten: Sequence[Input] = ()) -> None:
        """``past`` are the lines of an owner before, ``unwritten`` are inputs that are to follow them."""
        self._stats = stats
        self._lines = list(past)
        self._num_inputs = len(read_inputs(past))
        self._num_stored = len(self._lines)
        self._pending: list[Input] = list(unwritten)
        self._completion: UnbrokenCompletion | None = None
        self._num_chars = self._num_kept_ids = 0

    def follow(self, completion: UnbrokenCompletion) -> None:
        """Take a completion that begins."""
        self._completion = completion
        self._num_chars, self._num_kept_ids = len(completion.text), 0

    def add(self, event: DriveEvent) -> None:
        """Take an event that is no text, before whoever watches the run is told of it."""
        if isinstance(event, PassagesReceived):
            self._pending.append(SearchWorked(event))
        elif isinstance(event, SearchErrored):
            self._pending.append(SearchBroke(event))
        elif isinstance(event, Finished) and event.status in _FROM_OUTSIDE:
            self._look(at_end=True)
            self._completion = None
            self._pending.append(Stopped(event.status.value))  # type: ignore[arg-type]
        elif self._completion is not None and isinstance(event, _ENDS_COMPLETION):
            self._look(at_end=True)
            reason = self._completion.finish or "stop"
            self._completion = None
            ended = CompletionEnded(reason, self._stats.completion_s[-1], self._stats.num_cached_tokens)
            self._pending.append(ended)

    def unstored(self) -> list[bytes]:
        """Return the lines that the store does not have, up to what has come just now."""
        if self._completion is not None:
            self._look()
        if self._pending:
            self._lines.append(msgspec.json.encode((self._num_inputs, self._pending)))
            self._num_inputs += len(self._pending)
            self._pending = []
        return self._lines[self._num_stored :]

    def mark_stored(self, lines: Sequence[bytes]) -> None:
        """Note that the store has these lines."""
        self._num_stored += len(lines)

    def mark_unstored(self) -> None:
        """Note that the store has lost all lines."""
        self._num_stored = 0

    def _look(self, *, at_end: bool = False) -> None:
        """Take from the open completion what has come since the last look."""
        completion = self._completion
        if completion is None:
            return
        text = completion.text[self._num_chars :]
        if not text and not at_end:
            return  # Nothing that anybody has seen.
        start = self._num_kept_ids
        self._pending.append(
            Sampled(text, start, list(completion.ids[start:]), list(completion.logprobs[start:]), completion.finish)
        )
        self._num_chars, self._num_kept_ids = self._num_chars + len(text), completion.num_given


def read_inputs(lines: Sequence[bytes]) -> list[Input]:
    """Return the inputs in lines that the store gave; some may be there twice.

    Raises:
        JournalError: a line is missing or damaged.
        NewerJournalError: a newer release wrote a line.
    """
    inputs: list[Input] = []
    for line in lines:
        try:
            number, new = _LINE.decode(line)
        except msgspec.ValidationError as error:
            raise NewerJournalError("a line of the journal is of another release") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise JournalError("a line of the journal can't be read") from error
        if number > len(inputs):
            raise JournalError("inputs are missing in the journal")
        inputs += new[len(inputs) - number :]
    return inputs
