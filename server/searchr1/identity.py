"""The caller's identity, which access, budgets and stored runs share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """One API key of one tenant. Callers of one tenant share cached searches and that tenant's budget."""

    tenant: str = ""
    key_id: str = ""
    """Hash that tells keys apart without being one."""


ANYONE = Caller()
"""The caller of a server that asks for no key."""
