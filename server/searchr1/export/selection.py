"""The choice of runs that an export holds, and a tally of the others."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from searchr1.errors import ConfigurationError
from searchr1_client.events import Run, RunStatus, RunSummary

NOT_ENDED = "not ended"
NO_TRAJECTORY = "without a trajectory"
REPEATED = "repeated"
GONE = "expired meanwhile"


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters; an empty one lets every run that has ended pass."""

    ids: tuple[str, ...] = ()
    statuses: frozenset[str] = frozenset()
    since: float | None = None
    """Unix time, seconds; runs that began earlier are left out."""
    limit: int | None = None
    """Most runs to write, after all filters."""

    @classmethod
    def parse(cls, *, ids: Iterable[str], statuses: Iterable[str], since: str | None, limit: int | None) -> "Selection":
        """Return the selection that the command line's texts describe.

        Raises:
            ConfigurationError: a status does not exist, or ``since`` is no date.
        """
        chosen = frozenset(statuses)
        if unknown := chosen - set(get_args(RunStatus)):
            raise ConfigurationError(
                f"--status {sorted(unknown)[0]!r} does not exist; give one of {', '.join(get_args(RunStatus))}"
            )
        return cls(tuple(dict.fromkeys(ids)), chosen, None if since is None else unix_time(since), limit)

    def takes(self, run: Run | RunSummary) -> bool:
        """Return whether the id, status and time of ``run`` pass, ended or not."""
        return (
            (not self.ids or run.id in self.ids)
            and (not self.statuses or run.status in self.statuses)
            and (self.since is None or run.created >= self.since)
        )


def unix_time(text: str) -> float:
    """Return the Unix time in seconds of an ISO 8601 date or time; without a zone it is UTC.

    Raises:
        ConfigurationError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--since {text!r} is no date; give one such as 2026-01-31 or 2026-01-31T08:00Z"
        ) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


class Skipped:
    """A tally of the runs that were left out, by the reason; filters are no reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, reason: str) -> None:
        """Count one more."""
        self._counts[reason] += 1

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in self._counts.items())
