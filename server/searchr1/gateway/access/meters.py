"""Meters of API keys: how fast one asks, how many runs it has at once, and what tokens it has spent.

* **Requests** flow in evenly: one more every 60 s / limit, and up to the limit at once for a key that has rested.
* **Tokens** count in a window of 24 hours that begins with the first ones.
* **Runs** are leases, which are renewed while a run goes on, so that the runs of a gateway that died count no more.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from searchr1.errors import SearchR1Error
from searchr1.identity import KeyLimits

MINUTE_S: Final = 60.0
TOKENS_WINDOW_S: Final = 86_400.0
LEASE_S: Final = 15.0
"""Seconds after which a run whose gateway is gone counts no more."""

Metered = Literal["requests_per_minute", "tokens_per_day"]


class MeterError(SearchR1Error):
    """Meters that can't be reached. The message names no address."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands after a request, or before one that was refused."""

    refused: Metered | None = None
    retry_after_s: float = 0.0
    """When the same request would be taken, where it was refused."""
    requests_left: int = 0
    requests_full_in_s: float = 0.0
    """Seconds until as many requests as the limit may come at once again."""
    tokens_spent: int = 0
    tokens_end_in_s: float = 0.0
    """Seconds until the window of tokens is over; 0 where none is open."""


@dataclass(slots=True)
class _Window:
    ends_s: float
    tokens: int = 0


@dataclass(slots=True)
class OwnMeters:
    """What this process counted itself. ``clock`` gives seconds."""

    clock: Callable[[], float] = time.monotonic
    _full_at_s: dict[str, float] = field(default_factory=dict)
    _windows: dict[str, _Window] = field(default_factory=dict)

    def request(self, key_id: str, limits: KeyLimits) -> Standing:
        """Count a request, unless a limit of requests or tokens refuses it."""
        now_s = self.clock()
        window = self._window(key_id, now_s)
        tokens_spent = window.tokens
        tokens_end_in_s = window.ends_s - now_s if window.tokens else 0.0
        refused: Metered | None = None
        retry_after_s = 0.0
        most = limits.requests_per_minute
        full_in_s, left, interval_s = 0.0, 0, 0.0
        if most is not None:
            interval_s = MINUTE_S / most
            full_in_s = max(0.0, self._full_at_s.get(key_id, now_s) - now_s)
            if full_in_s + interval_s > MINUTE_S + _EPSILON_S:
                refused, retry_after_s = "requests_per_minute", full_in_s + interval_s - MINUTE_S
        if limits.tokens_per_day is not None and tokens_spent >= limits.tokens_per_day:
            refused, retry_after_s = "tokens_per_day", tokens_end_in_s or TOKENS_WINDOW_S
        if most is not None:
            if refused is None:
                full_in_s += interval_s
                self._full_at_s[key_id] = now_s + full_in_s
            left = int((MINUTE_S - full_in_s + _EPSILON_S) / interval_s)
        return Standing(refused, retry_after_s, left, full_in_s, tokens_spent, tokens_end_in_s)

    def spend(self, key_id: str, tokens: int) -> None:
        """Add tokens to the window, which begins with them where none is open."""
        window = self._window(key_id, self.clock())
        window.tokens += tokens
        self._windows[key_id] = window

    def _window(self, key_id: str, now_s: float) -> _Window:
        window = self._windows.get(key_id)
        return window if window is not None and window.ends_s > now_s else _Window(now_s + TOKENS_WINDOW_S)


_EPSILON_S: Final = 1e-6
"""What rounding may make of a minute."""


def limit_headers(limits: KeyLimits, standing: Standing) -> Mapping[str, str]:
    """Return the headers by which OpenAI's clients know limits of requests and tokens."""
    headers = {}
    if (most := limits.requests_per_minute) is not None:
        headers["x-ratelimit-limit-requests"] = str(most)
        headers["x-ratelimit-remaining-requests"] = str(standing.requests_left)
        headers["x-ratelimit-reset-requests"] = duration(standing.requests_full_in_s)
    if (most := limits.tokens_per_day) is not None:
        headers["x-ratelimit-limit-tokens"] = str(most)
        headers["x-ratelimit-remaining-tokens"] = str(max(0, most - standing.tokens_spent))
        headers["x-ratelimit-reset-tokens"] = duration(standing.tokens_end_in_s)
    return headers


def duration(seconds: float) -> str:
    """Return seconds as OpenAI writes them: ``250ms``, ``1.5s``, ``6m0s``, ``23h59m2s``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h{minutes}m{left}s" if hours else f"{minutes}m{left}s"
