"""One run as the scheduler knows it."""

from dataclasses import dataclass, field
from enum import Enum

from searchr1.scheduling.fair_queue import Ticket


class State(Enum):
    """Where a run stands; the table in ``scheduler.py`` has the ways between them."""

    QUEUED = "queued"
    """Waits for its start."""
    TURN = "turn"
    """The engine writes its turn."""
    AWAY = "away"
    """It searches; its KV cache is expected to be there when it comes back."""
    PAUSED = "paused"
    """It searches, and has given its room back."""
    WAITING = "waiting"
    """It wants its next turn and has no room."""


@dataclass(slots=True, eq=False)
class Run:
    """A run from its submission to its end."""

    name: str
    ticket: Ticket
    submitted_at: float
    deadline_at: float | None
    prefix: str | None
    prefix_tokens: int
    footprint_tokens: int
    known_growth_tokens: int | None = None
    """What it grows by, where its caller knows."""
    state: State = State.QUEUED
    turn: int = 0
    """Turns begun."""
    replica: str | None = None
    """Where it holds room, or held it last."""
    growth_tokens: int = 0
    """What is reserved for its growth, on top of its footprint."""
    shared_tokens: int = 0
    """Those of its prefix that fill blocks on its replica, where they count apart."""
    held_tokens: int = 0
    """What it is charged for its footprint: whole blocks, less those that it shares."""
    claimed_tokens: int = 0
    """The same with the reserve."""
    footprints: list[int] = field(default_factory=list)
    """Footprints at the beginning of each turn."""
    will_pause: bool = False
    """It is to pause at the end of its turn."""
    waiting_since: float = 0.0
    waited_s: float = 0.0
    """Time it spent waiting, before the present wait."""
    place: int | None = None
    """The place in the queue that was told last."""
    entry: int = 0
    """Number of its valid entry among the runs that its replica may pause."""

    @property
    def holds_room(self) -> bool:
        """True while its tokens count on its replica."""
        return self.state in (State.TURN, State.AWAY)
