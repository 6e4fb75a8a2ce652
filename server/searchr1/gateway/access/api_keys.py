"""API keys: ``Authorization: Bearer KEY``, compared in constant time. Without configured keys everyone may call."""

import hashlib
import hmac
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from searchr1.gateway.access.stored_keys import StoredKeys
from searchr1.gateway.errors import ApiError
from searchr1.http_server.headers import bearer_token
from searchr1.identity import ANYONE, Caller
from searchr1.keyring.stored_key import Scope, StoredKey
from searchr1.keys import owners
from searchr1.settings import Settings

_SALT = b"searchr1 key id"
_OF_SETTINGS: Final[frozenset[Scope]] = frozenset({"infer", "read"})
"""What keys of the settings may do; the admin key opens ``/admin`` alone."""


@dataclass(frozen=True, slots=True)
class Access:
    """A caller, and what it may do."""

    caller: Caller
    scopes: frozenset[Scope]

    def require(self, scopes: Collection[Scope]) -> None:
        """Refuse a caller that has none of ``scopes``. Raises ``ApiError`` 403."""
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(f"'{scope}'" for scope in scopes)
            message = f"This API key lacks the scope {wanted}, which this needs."
            raise ApiError(403, message, code="insufficient_scope")


_ANYONE: Final = Access(ANYONE, _OF_SETTINGS)


class ApiKeys:
    """The keys that clients of one server may send, and whose each is. ``now`` gives Unix time."""

    def __init__(
        self, settings: Settings, stored: StoredKeys | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._owners = {
            key.encode(): tenant
            for key, tenant in owners(settings.api_keys, settings.tenant_keys, settings.admin_key).items()
        }
        self._stored, self._now = stored, now
        self._asks = settings.asks_for_keys
        self._callers: dict[bytes, Caller] = {}
        """Of keys of the settings that were used: such a key's id is slow to compute."""

    @property
    def stored(self) -> list[StoredKey]:
        """The stored keys, as they were read last."""
        return [] if self._stored is None else list(self._stored.ring)

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller whose key stands in the ``Authorization`` header. Raises as ``access`` does."""
        return self.access(authorization).caller

    def access(self, authorization: str | None) -> Access:
        """Return what the key in the ``Authorization`` header opens; ``ANYONE``'s where the server has no keys.

        Raises:
            ApiError: 401, the header holds none of the server's keys, or one that has expired or was revoked.
        """
        if not self._asks:
            return _ANYONE
        presented = bearer_token(authorization)
        if not presented:
            message = "No API key was given. Send it as 'Authorization: Bearer KEY'."
            raise ApiError(401, message, code="missing_api_key")
        # All are compared, so that the time tells nothing about which one matched.
        matches = [key for key in self._owners if hmac.compare_digest(presented, key)]
        stored = None if self._stored is None else self._stored.ring.match(presented)
        if matches:
            return Access(self._of_settings(matches[0]), _OF_SETTINGS)
        if stored is None:
            raise ApiError(401, "The API key is not one of this server's keys.", code="invalid_api_key")
        return self._of_stored(stored)

    def _of_settings(self, key: bytes) -> Caller:
        if key not in self._callers:
            former_id = hashlib.sha256(key).hexdigest()[:16]
            self._callers[key] = Caller(tenant=self._owners[key], key_id=_key_id(key), former_key_id=former_id)
        return self._callers[key]

    def _of_stored(self, key: StoredKey) -> Access:
        # Only who holds the secret comes here and is told.
        state = key.state(self._now())
        if state == "revoked":
            raise ApiError(401, "This API key was revoked.", code="revoked_api_key")
        if state == "expired":
            raise ApiError(401, "This API key has expired.", code="expired_api_key")
        return Access(Caller(key.tenant, key.id, limits=key.key_limits()), frozenset(key.scopes))


def _key_id(key: bytes) -> str:
    """Return what stands in Redis for a key: slow to compute, so that who reads it there can't try keys at a rate.

    It hangs on the key alone. Thus it is the same on all replicas and after a restart, and stays as it is when the
    operator adds or drops another key.
    """
    return hashlib.scrypt(key, salt=_SALT, n=2**13, r=8, p=1, dklen=16).hex()
