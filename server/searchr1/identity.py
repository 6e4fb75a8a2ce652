"""The caller's identity, which access, budgets and stored runs share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one API key, over all replicas together; None is no limit."""

    requests_per_minute: int | None = None
    """Requests that begin a run, and calls of tools."""
    concurrent_runs: int | None = None
    tokens_per_day: int | None = None
    """Tokens of its runs and rewritings, prompts, observations and sampled ones, in 24 hours from the first one on."""
    searches_per_window: int | None = None
    """Searches that reach a provider, in the window of search budgets; it replaces the limit of all keys."""


UNLIMITED = KeyLimits()
"""The limits of a key that has none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One API key of one tenant. Callers of one tenant share cached searches, runs and that tenant's budget."""

    tenant: str = ""
    key_id: str = ""
    """Name that tells keys apart without being one."""
    former_key_id: str = ""
    """Hash that the release before gave the same key: its runs are still found by it."""
    limits: KeyLimits = UNLIMITED

    @property
    def searches_per_window(self) -> int | None:
        """The key's own limit of searches."""
        return self.limits.searches_per_window


ANYONE = Caller()
"""The caller of a server that asks for no key."""
