"""State of reading a run's stream: the events so far, and how to go on when the connection is lost.

Does no I/O. The streams of ``_stream`` ask it what to do and do that, one by blocking and one by awaiting.
"""

from collections import deque
from typing import Any

import httpx

from searchr1_client._errors import (
    APIConnectionError,
    APIStatusError,
    StreamEndedError,
    StreamFormatError,
)
from searchr1_client._request import Call, cancel_call, events_call, is_run_id
from searchr1_client._retries import RetryPolicy
from searchr1_client._sse import EventDecoder
from searchr1_client.events import TERMINAL_TYPES, KnownEvent, Run, UnknownEvent
from searchr1_client.fold import RunFold

MAX_ATTEMPTS = 5
"""Attempts to resume a stream, counted from the last event that was read."""

Loss = httpx.RequestError | httpx.StreamError | APIConnectionError | APIStatusError | None
"""The reason for which a stream is cut: its connection failed, could not be made again, or (None) closed too early."""


class StreamState:
    """State of one stream."""

    def __init__(
        self,
        call: Call[Run],
        *,
        run_id: str | None = None,
        after: int = -1,
        reconnect: bool,
        cancel_on_exit: bool,
        retry_policy: RetryPolicy,
    ) -> None:
        """``run_id`` is given for a run that was begun elsewhere, whose events follow ``after``."""
        self.run_id = run_id
        self.ready: deque[KnownEvent | UnknownEvent] = deque()
        """Events that were read and not yet given away."""
        self.finished = False
        self._call: Call[Run] = call
        self._begun_here = run_id is None
        self._last_seq = after
        self._reconnect = reconnect and (call.body or {}).get("store") is not False
        self._cancel_on_exit = cancel_on_exit
        self._retry_policy = retry_policy
        self._num_attempts = 0
        self._decoder = EventDecoder()
        self._fold: RunFold | None = None
        self._broken: StreamFormatError | None = None
        self._lost = False

    def next_call(self) -> Call[Run]:
        """Return the call to send to read on."""
        if self._fold is None or self.run_id is None:
            return self._call
        return events_call(self.run_id, self._last_seq)

    def opened(self, response: httpx.Response) -> None:
        """Take a successful response, still unread. Raises ``StreamFormatError`` where it is no stream."""
        kind = response.headers.get("content-type", "")
        if not kind.lower().startswith("text/event-stream"):
            raise StreamFormatError(f"the server answered with '{kind[:100]}' and not with a stream of events")
        self._decoder = EventDecoder()
        if self._fold is None:
            self._learn_id(response.headers.get("x-run-id", ""))
            self._fold = RunFold()

    def feed(self, data: bytes) -> None:
        """Take the next bytes. ``check`` raises what is wrong with them, after the events before it were given."""
        try:
            for event in self._decoder.feed(data):
                if not self.finished and event.seq > self._last_seq:
                    self._take(event)
        except StreamFormatError as error:
            self._broken = StreamFormatError(str(error), run_id=self.run_id, last_seq=self._seq_or_none())
            self._broken.__cause__ = error.__cause__

    def check(self) -> None:
        """Raise ``StreamFormatError`` once the stream held something that is not an event."""
        if self._broken is not None:
            raise self._broken

    def lost(self, loss: Loss) -> float:
        """Note that the connection is gone; return the seconds after which to send ``next_call``.

        Raises:
            StreamEndedError: the run can't be followed any further.
        """
        final = isinstance(loss, APIConnectionError | APIStatusError) and not self._retry_policy.may_pass(loss)
        if final or not self._reconnect or self.run_id is None or self._num_attempts >= MAX_ATTEMPTS:
            self._lost = True
            raise StreamEndedError(_told(loss), run_id=self.run_id, last_seq=self._seq_or_none()) from loss
        self._num_attempts += 1
        return self._retry_policy.wait_s(loss if isinstance(loss, APIStatusError) else None, self._num_attempts)

    def parting_call(self) -> Call[Any] | None:
        """Return the call to send when the stream is left now.

        A run whose stream was lost is left to those who may resume it.
        """
        if not self._cancel_on_exit or self.finished or self._lost or self.run_id is None:
            return None
        return cancel_call(self.run_id)

    def final_run(self) -> Run | None:
        """Return the whole run, once ``finished``; None where only the server has all of it."""
        return self._fold.run() if self._fold is not None and self._begun_here else None

    def _take(self, event: KnownEvent | UnknownEvent) -> None:
        if event.seq != self._last_seq + 1:
            raise StreamFormatError(f"event {event.seq} came after {self._last_seq}: events are missing")
        assert self._fold is not None
        self._last_seq = event.seq
        self._num_attempts = 0
        self._learn_id(event.run_id)
        self._fold.add(event)
        self.ready.append(event)
        self.finished = event.type in TERMINAL_TYPES

    def _learn_id(self, run_id: str) -> None:
        if self.run_id is None and is_run_id(run_id):
            self.run_id = run_id

    def _seq_or_none(self) -> int | None:
        return self._last_seq if self._last_seq >= 0 else None


def _told(loss: Loss) -> str:
    if isinstance(loss, httpx.TimeoutException):
        return "the server fell silent before the run ended"
    if isinstance(loss, APIConnectionError | APIStatusError):
        return f"the connection was lost before the run ended, and its stream could not be taken up again: {loss}"
    detail = f": {loss}" if loss is not None and str(loss) else ""
    return f"the connection was lost before the run ended{detail}"
