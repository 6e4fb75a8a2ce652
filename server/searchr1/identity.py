"""The caller's identity, which access, budgets and stored runs share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """One API key of one tenant. Callers of one tenant share cached searches, runs and that tenant's budget."""

    tenant: str = ""
    key_id: str = ""
    """Hash that tells keys apart without being one."""
    former_key_id: str = ""
    """Hash that the release before gave the same key: its runs are still found by it."""


ANYONE = Caller()
"""The caller of a server that asks for no key."""
