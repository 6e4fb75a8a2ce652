"""Shares of one capacity among several processes that use it: pure arithmetic, the same in each of them.

Each process announces its demand, and computes from all announcements what is meant for it. What it may hold beyond
that, because runs of the time before still need it, and what it must wait for, because others do, is settled by
whoever keeps the announcements.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_STEADY_PART = 8
"""A demand counts as the one that was announced while it is within an eighth of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process's part of a capacity."""

    meant: int
    """What its share is: more runs start while all of them need no more."""
    held: int
    """What it may hold until its share is enough for the runs that it has; others leave so much to it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the runs of one scheduler hold and want."""

    num_admitted: int
    num_runs: int
    """Admitted and queued ones."""
    charged_tokens: Mapping[str, int]
    """By replica: footprints and reserves of the runs that hold room there."""
    unplaced_tokens: int
    """Needs of the runs that hold no room."""


def divide(whole: int, floor: int, demands: Mapping[str, int]) -> dict[str, int]:
    """Return the shares of ``whole`` by the names of those who want some.

    Shares follow demands, and nobody gets less than ``floor``, so that one who has been idle can begin at once. Floors
    together take no more than half, unless that left nobody anything. Shares are whole numbers, rounded down.
    """
    number = len(demands)
    if not number:
        return {}
    floor = min(floor, max(1, whole // (2 * number)), whole // number)
    wanted = {name: max(demand, floor) for name, demand in demands.items()}
    total = sum(wanted.values())
    if total <= whole:
        return {name: want * whole // total if total else whole // number for name, want in wanted.items()}
    spare, above = whole - number * floor, total - number * floor
    return {name: floor + (want - floor) * spare // above for name, want in wanted.items()}


def steady(announced: int, demand: int) -> int:
    """Return the demand to announce: the former one while the present one is near it, so that shares stay calm."""
    return announced if abs(demand - announced) * _STEADY_PART <= announced else demand
