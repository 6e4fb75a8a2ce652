"""What became of each request: counted by kind, and held against what is documented."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from loadtests.soak.faults import Troubles

_CODES = ("engine_unavailable", "engine_overloaded", "engine_error", "deadline", "overloaded", "store_unavailable")
_STATUSES = {"engine_error": 502, "deadline": 504}
IN_TROUBLE = frozenset(
    [f"{_STATUSES.get(code, 503)} {code}" for code in _CODES]
    + [f"failed {code}" for code in _CODES]
    # The Responses API's and MCP's words for a run that failed, and a probe's.
    + ["failed server_error", "200 failed", "200 tool error", "503 not ready"]
    # A run whose engine had begun when its time was over; one that was stored in a Redis that is empty now.
    + ["200 deadline", "stream deadline", "404 run_not_found"]
)
"""Outcomes that a request may have while a fault is felt, as docs/reference/api.md has them."""
_MOST_SHOWN = 40


@dataclass
class Tally:
    """Counts of outcomes by kind of request."""

    troubles: Troubles
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_trouble: int = 0
    """Requests that were refused or failed, in documented words, while a fault was felt."""
    lost: list[str] = field(default_factory=list)
    """Each request whose outcome is none of the documented ones for its kind and time, in words."""

    def note(self, kind: str, outcome: str, right: Collection[str], since: float, until: float) -> None:
        """Count one request. ``right`` are the outcomes of its kind that need no fault."""
        self.counts[kind, outcome] += 1
        if outcome in right:
            return
        if outcome in IN_TROUBLE and self.troubles.names_felt(since, until):
            self.in_trouble += 1
        else:
            felt = ", ".join(self.troubles.names_felt(since, until)) or "no fault"
            self.lost.append(f"{kind}: {outcome} ({until - since:.1f} s, up to {time.strftime('%H:%M:%S')}; {felt})")

    def table(self) -> str:
        """Return a Markdown table of all outcomes."""
        kinds = sorted({kind for kind, _ in self.counts})
        rows = ["| request | number | outcomes |", "|---|---|---|"]
        for kind in kinds:
            own = Counter({outcome: n for (of, outcome), n in self.counts.items() if of == kind})
            told = ", ".join(f"{outcome}: {n}" for outcome, n in own.most_common())
            rows.append(f"| {kind} | {own.total()} | {told} |")
        return "\n".join(rows)

    def told_lost(self) -> str:
        """Return the first lost requests, one a line."""
        more = len(self.lost) - _MOST_SHOWN
        return "\n".join(self.lost[:_MOST_SHOWN] + ([f"and {more} more"] if more > 0 else []))
