"""Who crowds others out: a tenant that holds most of the room while others are about."""

from typing import Final

_ABOUT_S: Final = 60.0
"""Time for which a tenant counts as being about after a run of it came or ended."""


class Crowding:
    """What each tenant holds, and which tenants were seen last.

    Everybody's tokens come more slowly the fuller a batch is, so that fair turns at the door alone do not help a tenant
    that asks seldom: its runs start at once, and then crawl. So nobody but those who are alone may fill a replica.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._capacity_tokens = 0
        self._held_tokens: dict[str, int] = {}
        self._last_seen: tuple[str, float] | None = None
        self._seen_before: tuple[str, float] | None = None
        """When another tenant than the last one was seen."""
        self._largest: str | None = None
        """A tenant that holds more than its share; there is at most one, as a share is no less than a half."""

    def saw(self, tenant: str, now: float) -> None:
        """Take note that a run of a tenant came or ended."""
        if self._last_seen is not None and self._last_seen[0] != tenant:
            self._seen_before = self._last_seen
        self._last_seen = tenant, now

    def held(self, tenant: str, more_tokens: int) -> None:
        """Take note that a tenant holds so many tokens more, its runs' reserves included."""
        held_tokens = self._held_tokens.pop(tenant, 0) + more_tokens
        if held_tokens:
            self._held_tokens[tenant] = held_tokens
        self._check(tenant)

    def capacity_changed(self, tokens: int) -> None:
        """Take the capacity of all replicas together."""
        self._capacity_tokens = tokens
        self._largest = None
        for tenant in self._held_tokens:
            self._check(tenant)

    def tenant(self, now: float) -> str | None:
        """Return the tenant that starts no run for now, if one crowds others out."""
        others = (seen for seen in (self._last_seen, self._seen_before) if seen is not None)
        return self._largest if any(name != self._largest and now - at <= _ABOUT_S for name, at in others) else None

    def _check(self, tenant: str) -> None:
        if self._held_tokens.get(tenant, 0) > self._share * self._capacity_tokens:
            self._largest = tenant
        elif self._largest == tenant:
            self._largest = None
