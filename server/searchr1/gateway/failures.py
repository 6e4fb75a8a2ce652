"""Failures as clients are told of them: one HTTP status and one fixed sentence for each code.

What happened in detail, with addresses and the words of others, goes to the log alone.
"""

from dataclasses import dataclass
from typing import Final

from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of failure of a run."""

    status: int
    """HTTP status where the run's answer has not begun: 503 where the same request may work later."""
    message: str
    """What happened and what to do, for people."""


_UNKNOWN: Final = Failure(502, "The run failed; the server's log has the details.")
RUN_FAILURES: Final = {
    "engine_unavailable": Failure(503, "The model's engine does not answer just now; try again shortly."),
    "engine_overloaded": Failure(503, "The model's engine has more requests than it can take; try again shortly."),
    "engine_error": Failure(502, "The model's engine failed at this run; the server's log has the details."),
    "deadline": Failure(504, "The model's engine gave no output within the run's deadline; try again later."),
    "internal": Failure(500, "The server met an error of its own; its log has the details."),
    "stopping": Failure(503, "The server is stopping, so the run was ended; ask again."),
    "run_lost": Failure(503, "The server that ran this stopped before the run ended; ask again."),
    "takeovers_exhausted": Failure(503, "Several servers that ran this stopped before it ended; ask again."),
    "run_unreadable": Failure(410, "What is stored of this run can't be read. Delete it, or ask again."),
}
"""Failures of runs by code, as ``run.failed``, the errors of every API and stored runs tell them."""

SEARCH_FAILURES: Final = {
    "timeout": "The search took too long.",
    "unavailable": "The search service can't be reached just now.",
    "rate_limited": "The search service takes no more searches just now.",
    "bad_response": "The search service gave an answer that can't be read.",
    "rejected": "The search service refused the search.",
    "budget": "The search budget of this key or tenant is used up.",
    "not_cached": "The search is not among those that were kept, and nothing else was to be asked.",
}
"""Failures of searches by ``FailureKind``, as ``search.failed`` and trajectories tell them."""


def run_failure(code: str) -> Failure:
    """Return what clients are told of a failed run's code, unknown ones included."""
    return RUN_FAILURES.get(code, _UNKNOWN)


def search_failure(kind: str) -> str:
    """Return the sentence that clients are told of a failed search's kind, unknown ones included."""
    return SEARCH_FAILURES.get(kind, "The search failed.")


def engine_code(error: EngineError) -> str:
    """Return the wire code of an engine's failure."""
    if isinstance(error, EngineOverloadedError):
        return "engine_overloaded"
    return "engine_unavailable" if isinstance(error, EngineUnavailableError) else "engine_error"
