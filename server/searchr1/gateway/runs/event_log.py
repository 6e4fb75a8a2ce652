"""The events of a run of this process, kept as their JSON: the objects would take five times the memory."""

from collections.abc import Iterable, Sequence
from typing import cast, overload

from searchr1.gateway.sse import encode_frame
from searchr1_client.events import KnownEvent, Run, parse_event
from searchr1_client.fold import RunFold


class EventLog(Sequence[KnownEvent]):
    """A run's events by their ``seq``, which counts from 0. All but the newest are decoded when they are asked for."""

    def __init__(self, *, created: int, past: Iterable[tuple[KnownEvent, bytes]] = ()) -> None:
        """``created`` is the run's own, in Unix seconds; ``past`` are events that it has already, with their JSON."""
        self.data: list[bytes] = []
        """JSON of each event, encoded once for the store and all readers."""
        self._types: list[str] = []
        self._newest: KnownEvent | None = None
        self._fold = RunFold(created=created)
        for event, data in past:
            self._add(event, data)

    def append(self, event: KnownEvent) -> None:
        """Take the next event."""
        self._add(event, event.model_dump_json().encode())

    def _add(self, event: KnownEvent, data: bytes) -> None:
        self.data.append(data)
        self._types.append(event.type)
        self._newest = event
        self._fold.add(event)

    def frames(self, start: int, end: int) -> bytes:
        """Return some events as Server-Sent Events."""
        return b"".join(map(encode_frame, range(start, end), self._types[start:end], self.data[start:end]))

    def run(self) -> Run:
        """Return the whole run. Raises ``ValueError`` for one that has not finished."""
        return self._fold.run()

    def so_far(self) -> Run:
        """Return the run as it stands. Raises ``ValueError`` for one that has not started."""
        return self._fold.so_far()

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, index: int) -> KnownEvent: ...
    @overload
    def __getitem__(self, index: slice) -> list[KnownEvent]: ...
    def __getitem__(self, index: int | slice) -> KnownEvent | list[KnownEvent]:
        if isinstance(index, slice):
            return [self._at(number) for number in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def _at(self, number: int) -> KnownEvent:
        if self._newest is not None and number == len(self) - 1:
            return self._newest
        return cast(KnownEvent, parse_event(self.data[number]))
