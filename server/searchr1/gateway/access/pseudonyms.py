"""The ids by which engines, and routers in front of them, know runs and tenants: they tell nothing of either.

They are HMACs with a secret of the operator's, or a random one of this process. Who reads an engine's log or guesses a
run's id can't tell whose it is, and nobody can choose another tenant's.
"""

import hmac
import secrets

from searchr1.identity import Caller


class Pseudonyms:
    """Maker of such ids; without a ``secret`` they hold for this object alone."""

    def __init__(self, secret: str | None = None) -> None:
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def session(self, caller: Caller, run_id: str) -> str:
        """Return the session of a run: the same for each of its turns, another for every run and tenant."""
        return f"run-{self._digest('session', caller.tenant, run_id)}"

    def cache_salt(self, caller: Caller) -> str:
        """Return the salt of a tenant's cached prefixes, in characters that vLLM takes; a key of none has its own."""
        own = () if caller.tenant or not caller.key_id else ("key", caller.key_id)
        return self._digest("cache", caller.tenant, *own)

    def _digest(self, *parts: str) -> str:
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.digest(self._secret, message, "sha256").hex()[:40]
