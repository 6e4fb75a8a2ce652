"""Where runs are kept: the ``RunStore`` protocol. What is in it outlives the request, and with Redis the replica.

Rules
-----
1. A run's events are numbered from 0 without gaps (``seq``), and are appended in that order by one replica: its owner.
2. An owner shows that it lives (``hello``). A run that has no terminal event and whose owner is gone is lost.
3. ``finish`` comes last and stores the whole record. Everything of a run expires together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

RunKind = Literal["research", "response"]


class RunStoreError(Exception):
    """The store does not answer. Its cause says why."""


class RunForgottenError(RunStoreError):
    """The store answers, but it has lost a part of the run: all of it must be sent again, from ``create`` on."""


@dataclass(frozen=True, slots=True)
class RunMeta:
    """What a run is, apart from what happened in it."""

    id: str
    kind: RunKind
    """Which API it belongs to; the other one does not find it."""
    created: int
    """Unix time, seconds."""
    model: str
    question: str
    """As it was asked, before any earlier conversation was put before it."""
    scope: str
    """Whose it is; nobody else finds it."""
    replica: str = ""
    """Its owner."""
    request: dict[str, Any] = field(default_factory=dict)
    """The route's own JSON: what it needs to shape the run again."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A stored run without its events."""

    meta: RunMeta
    status: str = "running"
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event's JSON, and its number."""

    seq: int
    data: bytes


Wish = Literal["cancel", "forget", "read"]
"""What one replica tells a run's owner: to cancel it, to cancel and delete it, or that somebody reads it."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a replica is told about one of its runs."""

    wish: Wish
    run_id: str


class RunStore(Protocol):
    """Keeps runs. Each method raises ``RunStoreError`` where the store does not answer."""

    async def create(self, meta: RunMeta) -> None:
        """Begin a run. It can be repeated."""
        ...

    async def append(self, run_id: str, events: Sequence[LoggedEvent]) -> None:
        """Add events. Those that are there already change nothing, so a failed call can be repeated, with more events.

        Raises:
            RunForgottenError: the run, or an event before these, is not there.
        """
        ...

    async def finish(self, state: RunState, record: bytes) -> None:
        """The run has ended: ``record`` is its whole JSON.

        Raises:
            RunForgottenError: its events are not there.
        """
        ...

    async def state(self, run_id: str) -> RunState | None:
        """The run without its events; None where there is none."""
        ...

    async def record(self, run_id: str) -> bytes | None:
        """What ``finish`` was given; None before it."""
        ...

    async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
        """Events with a ``seq`` above ``after``, in order; waits up to ``wait_s`` for one."""
        ...

    async def list_runs(self, scope: str, after: str | None, limit: int) -> list[RunState]:
        """Runs of ``scope``, newest first, from the one after the run ``after`` on."""
        ...

    async def delete(self, meta: RunMeta) -> None:
        """Forget a run."""
        ...

    async def disown(self, run_id: str) -> None:
        """A run that is not finished never will be: it has no owner any more."""
        ...

    async def hello(self, replica: str, wait_s: float) -> list[Note]:
        """Show that ``replica`` lives; wait up to ``wait_s`` for what other replicas tell it, and return that."""
        ...

    async def lives(self, replica: str) -> bool:
        """Whether a replica showed that it lives, not long ago."""
        ...

    async def tell_owner(self, meta: RunMeta, wish: Wish) -> None:
        """Tell a run's owner something."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
