"""What the scheduler decides: one frozen class a decision, and the words for places and reasons."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

RefusalReason: TypeAlias = Literal["queue_full", "tenant_queue_full", "too_large"]
"""``too_large``: the prompt alone exceeds the KV cache of every replica, so that trying again is of no use."""


@dataclass(frozen=True, slots=True)
class Admit:
    """A run may start: its first turn goes to ``replica``, and so do its later ones."""

    run: str
    replica: str


@dataclass(frozen=True, slots=True)
class Resume:
    """An admitted run may take the turn that it wants, on ``replica``; another one than before where that is gone."""

    run: str
    replica: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A run gave its room back: its KV cache may go, and its next turn waits for a ``Resume``."""

    run: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """A run was not taken, and nothing of it is kept."""

    run: str
    reason: RefusalReason
    retry_after_s: float | None
    """When there may be room; None where there never is."""


@dataclass(frozen=True, slots=True)
class Expire:
    """A queued run reached its deadline before its start, and nothing of it is kept."""

    run: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A queued run's place changed: ``place`` runs are expected to start before it."""

    run: str
    place: int


Decision: TypeAlias = Admit | Resume | Pause | Refuse | Expire | Moved
