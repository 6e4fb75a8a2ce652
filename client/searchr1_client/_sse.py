"""Decoders: bytes to Server-Sent Events by the WHATWG rules, and those to the wire types.

Nothing here does I/O: bytes may come in pieces of any size, from anywhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from searchr1_client._errors import StreamFormatError
from searchr1_client.events import KnownEvent, UnknownEvent, parse_event

MAX_EVENT_BYTES = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event. ``id`` is the last one that the stream gave, which may be an earlier event's."""

    event: str
    data: str
    id: str


class SSEDecoder:
    """Decodes bytes to Server-Sent Events. It never buffers more than ``max_event_bytes`` and the latest piece."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data_bytes = 0
        self._after_cr = False
        self._first_line = True
        self._event = ""
        self._data: list[str] = []
        self._last_id = ""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that they complete. An event that never completes is dropped.

        Raises:
            StreamFormatError: one event is larger than ``max_event_bytes``.
        """
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *complete, rest = _LINE_END.split(data)
        events: list[ServerSentEvent] = []
        for end in complete:
            self._buffer(end)
            if (event := self._take_line()) is not None:
                events.append(event)
        if rest:
            self._buffer(rest)
        return events

    def _buffer(self, piece: bytes) -> None:
        self._line_bytes += len(piece)
        if self._line_bytes + self._data_bytes > self._max_event_bytes:
            raise StreamFormatError(f"an event is larger than {self._max_event_bytes} bytes")
        self._line.append(piece)

    def _take_line(self) -> ServerSentEvent | None:
        line = b"".join(self._line).decode("utf-8", errors="replace")
        line_bytes, self._line_bytes = self._line_bytes, 0
        self._line.clear()
        if self._first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first_line = False
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_bytes += line_bytes
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event = ServerSentEvent(self._event or "message", "\n".join(self._data), self._last_id) if self._data else None
        self._event = ""
        self._data = []
        self._data_bytes = 0
        return event


class EventDecoder:
    """Decodes bytes to wire events."""

    def __init__(self) -> None:
        self._decoder = SSEDecoder()

    def feed(self, data: bytes) -> Iterator[KnownEvent | UnknownEvent]:
        """Take the next bytes; yield the events that they complete. Raises ``StreamFormatError``."""
        return map(_parse, self._decoder.feed(data))


def _parse(message: ServerSentEvent) -> KnownEvent | UnknownEvent:
    try:
        return parse_event(message.data)
    except ValidationError as error:
        raise StreamFormatError(f"the server sent '{message.event}' data that is not an event of a run") from error
