"""Bounds on what one peer, and all peers together, may cost an HTTP server before their requests reach its app."""

import json
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

Refusal = Callable[[int, str, str], bytes]
"""Makes the JSON body of a refusal from its HTTP status, its message and its code."""


def plain_refusal(status: int, message: str, code: str) -> bytes:
    """Return ``{"detail": message}``."""
    return json.dumps({"detail": message}).encode()


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """Bounds of a server, held by its protocol."""

    max_connections: int = 2048
    """Connections at once. One more takes the place of the one that has waited longest, or gets a 503."""
    keep_alive_s: float = 75.0
    """Seconds that a connection may wait for its next request."""
    header_timeout_s: float = 30.0
    """Seconds within which a request's line and headers must have arrived, from the connection's start or their own."""
    max_header_bytes: int = 32 * 1024
    """Bytes of a request's line and headers."""
    max_headers: int = 128
    max_target_bytes: int = 8 * 1024
    """Bytes of the request's path and query."""
    linger_s: float = 3.0
    """Seconds that a closing connection is still read from, so that the peer can take the last answer."""
    send_timeout_s: float = 60.0
    """Seconds that a peer may take to read what is left of the last answer."""
    probes: frozenset[str] = frozenset()
    """Paths that are answered on a few connections more than ``max_connections``."""
    refusal: Refusal = plain_refusal


def connections_that_fit(wanted: int, reserved_files: int) -> int:
    """Return how many connections the process can hold, ``wanted`` at most, with ``reserved_files`` for other uses.

    It raises the soft limit of open files as far as the hard one lets it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + reserved_files
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    # Not all for the clients: a run that can't reach its engine serves nobody.
    fitting = max(1, soft - min(reserved_files, soft // 2))
    logger.warning(
        "The limit of open files is %d: at most %d connections are taken, not %d. Raise it: ulimit -n %d.",
        soft,
        fitting,
        wanted,
        needed,
    )
    return fitting
