"""What the outermost middleware notes of a request in its ASGI scope, for those inside that count and log."""

from starlette.types import Scope

_STATUS = "searchr1.status"


def note_status(scope: Scope, status: int) -> None:
    """Note the status of a response that begins."""
    scope[_STATUS] = status


def status_of(scope: Scope) -> int:
    """Return the status of a request's response, 0 while it has none."""
    status: int = scope.get(_STATUS, 0)
    return status
