"""What the outermost middleware notes of a request in its ASGI scope, for those inside that count and log."""

import time

from starlette.types import Scope

_STATUS, _ARRIVED = "searchr1.status", "searchr1.arrived"


def note_arrival(scope: Scope) -> None:
    """Note that a request has come."""
    scope[_ARRIVED] = time.perf_counter()


def spent_s(scope: Scope) -> float:
    """Return the seconds since a request came, which are a part of its run's time."""
    now: float = time.perf_counter()
    return now - float(scope.get(_ARRIVED, now))


def note_status(scope: Scope, status: int) -> None:
    """Note the status of a response that begins."""
    scope[_STATUS] = status


def status_of(scope: Scope) -> int:
    """Return the status of a request's response, 0 while it has none."""
    status: int = scope.get(_STATUS, 0)
    return status
