"""The ``RunStore`` protocol: it keeps runs beyond their request, and with Redis beyond their replica.

Rules
-----
1. A run's events are numbered from 0 without gaps (``seq``), and are appended in that order by one replica: its owner.
2. An owner sends heartbeats (``heartbeat``). A run without a terminal event whose owner is gone is lost, unless it was
   created with a plan: then another replica may take it (``take``) and be its owner.
3. Events come with the inputs that led to them, in one step: the events in the store never know more than its inputs.
4. Each change of owner has a number (``RunMeta.epoch``). An owner of before can write nothing any more.
   An owner that stops hands its runs over (``hand_over``): they are ``HANDED_OVER``'s then, which is nobody, and may be
   taken at once. The number stays: it counts the owners that were lost.
5. ``finish`` comes last and stores the whole record. Everything of a run expires together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from searchr1_client.events import RunStatus

RunKind = Literal["research", "response"]
HANDED_OVER: Final = "handed-over"
"""Owner of runs whose replica has stopped in good order: no replica's id, so to all releases one that is gone."""


class RunStoreError(Exception):
    """Failure of the store to answer. Its cause says why."""


class RunForgottenError(RunStoreError):
    """Loss of a part of the run in a store that answers: all of it must be sent again, from ``create`` on."""


class RunTakenError(RunStoreError):
    """Another replica owns the run now: this one has no say in it any more."""


class RunUnreadableError(Exception):
    """A stored run, or a part of it, that this release cannot read: it is damaged, or a newer release wrote it."""

    def __init__(self, run_id: str, reason: str, *, scope: str | None = None, kind: str | None = None) -> None:
        super().__init__(f"the stored run {run_id} can't be read: {reason}")
        self.run_id = run_id
        self.scope = scope
        """Its owner, where that could be read."""
        self.kind = kind


class RunTooLargeError(RunUnreadableError):
    """A stored run with more in its log than any run writes: no release will read it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, "its log is too large")


Note = Callable[[RunUnreadableError], None]
"""Taker of notes of runs that can't be read and are passed over."""


def ignore(_: RunUnreadableError) -> None:
    """Take no note."""


@dataclass(frozen=True, slots=True)
class RunMeta:
    """A run's identity and request: all but what happened in it."""

    id: str
    kind: RunKind
    """API that it belongs to; the other one does not find it."""
    created: int
    """Unix time, seconds."""
    model: str
    question: str
    """Question as it was asked, before any earlier conversation was put before it."""
    scope: str
    """Tenant or key that owns it (``hub.scope_of``); nobody else finds it."""
    replica: str = ""
    """Id of the replica that owns it; empty where none does."""
    epoch: int = 0
    """Number of times that another replica took it from one that was gone."""
    request: dict[str, Any] = field(default_factory=dict)
    """JSON of the route's own that it needs to shape the run again."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A stored run without its events."""

    meta: RunMeta
    status: RunStatus | Literal["running"] = "running"
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event's JSON, and its number."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class History:
    """What the store knows of an open run: its events, and the inputs that led to them, in the order of writing."""

    events: tuple[LoggedEvent, ...]
    inputs: tuple[bytes, ...]


Command = Literal["cancel", "forget", "read", "take"]
"""Commands of other replicas to a run's owner: cancel the run, cancel and delete it, know that somebody reads it; and
to one that is to own it: take it, if there is room."""


@dataclass(frozen=True, slots=True)
class Message:
    """A command that another replica sent about one of this replica's runs."""

    command: Command
    run_id: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """A run, and the replica that owned it, whose lease has ended."""

    replica: str
    run_id: str


class RunStore(Protocol):
    """A store that keeps runs. Each method raises ``RunStoreError`` where the store does not answer.

    Those that read one run raise ``RunUnreadableError`` where what stands there is none that this release can read.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other replicas see what is stored here, and may take runs over."""
        ...

    async def create(self, meta: RunMeta, plan: bytes | None = None) -> None:
        """Begin a run. It can be repeated. ``plan`` is what another replica needs to take it over.

        Raises:
            RunTakenError: it has another owner.
        """
        ...

    async def append(self, meta: RunMeta, events: Sequence[LoggedEvent], inputs: bytes = b"") -> None:
        """Add events, and with them the inputs that led to them.

        Events that are there already change nothing, so a failed call can be repeated, with more events; inputs are
        kept as they come.

        Raises:
            RunForgottenError: the run, or an event before these, is not there.
            RunTakenError: the run has another owner.
        """
        ...

    async def finish(self, state: RunState, record: bytes) -> None:
        """Store ``record``, the whole JSON of a run that has ended, and forget its plan.

        Raises:
            RunForgottenError: its events are not there.
            RunTakenError: the run has another owner.
        """
        ...

    async def state(self, run_id: str) -> RunState | None:
        """Return the run without its events; None where there is no such run."""
        ...

    async def record(self, run_id: str) -> bytes | None:
        """Return the JSON that ``finish`` stored; None before that."""
        ...

    async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
        """Return the events with a ``seq`` above ``after``, in order.

        With ``wait_s`` above 0 wait so long for one; of many, only the first ones may be given then.
        """
        ...

    async def list_runs(self, scope: str, after: str | None, limit: int, note: Note = ignore) -> list[RunState]:
        """Return runs of ``scope``, newest first, from the one after the run ``after`` on: ``limit`` while there are.

        Runs that can't be read are passed over, and told to ``note``.
        """
        ...

    async def is_listed(self, scope: str, run_id: str) -> bool:
        """Return True where ``run_id`` is among the runs of ``scope``, whether it can be read or not."""
        ...

    async def delete(self, meta: RunMeta) -> None:
        """Forget a run."""
        ...

    async def abandon(self, meta: RunMeta) -> None:
        """Take the owner, if it still is ``meta``'s, from a run that is not finished and never will be."""
        ...

    async def plan(self, run_id: str) -> bytes | None:
        """Return the plan that an open run was created with; None where it has none or has ended."""
        ...

    async def take(self, meta: RunMeta, replica: str) -> RunMeta | None:
        """Make ``replica`` the owner of an open run; return its new identity.

        None where its owner is not ``meta``'s any more: of all that try, one alone succeeds.
        """
        ...

    async def hand_over(self, meta: RunMeta) -> bool:
        """Make ``HANDED_OVER`` the owner of an open run of ``meta``'s; False where it is not, or can't be taken."""
        ...

    async def takers(self, sort: str) -> list[str]:
        """Return the replicas that would take a run of that sort over now, by their own word."""
        ...

    async def history(self, run_id: str) -> History:
        """Return all that the store knows of an open run."""
        ...

    async def orphans(self, limit: int) -> list[Orphan]:
        """Return up to ``limit`` runs with a plan for each replica whose lease has ended; the first ones that come."""
        ...

    async def disown(self, orphan: Orphan) -> None:
        """Take a run from the list of its former owner."""
        ...

    async def heartbeat(self, replica: str, wait_s: float, sorts: Sequence[str] = ()) -> list[Message]:
        """Extend ``replica``'s lease; wait up to ``wait_s`` for messages of other replicas, and return them.

        ``sorts`` are those of the runs that it takes over; they are told where its lease begins.
        """
        ...

    async def stop_taking(self, replica: str) -> None:
        """Tell others that a replica, whose lease goes on, takes no runs over any more."""
        ...

    async def depart(self, replica: str) -> None:
        """End a replica's lease at once."""
        ...

    async def is_alive(self, replica: str) -> bool:
        """Return True while a replica's lease holds: it sent a heartbeat not long ago."""
        ...

    async def send_to_owner(self, meta: RunMeta, command: Command) -> None:
        """Send a command to a run's owner. It may be lost, and a run that is handed over has nobody to send it to."""
        ...

    async def claim(self, name: str, value: bytes) -> bytes:
        """Put ``value`` under ``name`` where nothing stands; return what stands then. It expires as a run does."""
        ...

    async def claimed(self, name: str) -> bytes | None:
        """Return what ``claim`` put under ``name``; None where nothing stands."""
        ...

    async def release(self, name: str, value: bytes) -> None:
        """Take ``value`` from under ``name``; what else stands there stays."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
