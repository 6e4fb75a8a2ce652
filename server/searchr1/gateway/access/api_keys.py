"""API keys: ``Authorization: Bearer KEY``, compared in constant time. Without configured keys everyone may call."""

import hashlib
import hmac

from searchr1.gateway.errors import ApiError
from searchr1.http_server.headers import bearer_token
from searchr1.identity import ANYONE, Caller
from searchr1.keys import owners
from searchr1.settings import Settings

_SALT = b"searchr1 key id"


class ApiKeys:
    """The keys that clients of one server may send, and whose each is."""

    def __init__(self, settings: Settings) -> None:
        self._owners = {
            key.encode(): tenant
            for key, tenant in owners(settings.api_keys, settings.tenant_keys, settings.admin_key).items()
        }
        self._callers: dict[bytes, Caller] = {}
        """Of keys that were used: a key's id is slow to compute."""

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller whose key stands in the ``Authorization`` header; ``ANYONE`` where the server has no keys.

        Raises:
            ApiError: 401, the header holds none of the server's keys.
        """
        if not self._owners:
            return ANYONE
        presented = bearer_token(authorization)
        if not presented:
            message = "No API key was given. Send it as 'Authorization: Bearer KEY'."
            raise ApiError(401, message, code="missing_api_key")
        # All are compared, so that the time tells nothing about which one matched.
        matches = [key for key in self._owners if hmac.compare_digest(presented, key)]
        if not matches:
            raise ApiError(401, "The API key is not one of this server's keys.", code="invalid_api_key")
        [key] = matches
        if key not in self._callers:
            former_id = hashlib.sha256(key).hexdigest()[:16]
            self._callers[key] = Caller(tenant=self._owners[key], key_id=_key_id(key), former_key_id=former_id)
        return self._callers[key]


def _key_id(key: bytes) -> str:
    """Return what stands in Redis for a key: slow to compute, so that who reads it there can't try keys at a rate.

    It hangs on the key alone. Thus it is the same on all replicas and after a restart, and stays as it is when the
    operator adds or drops another key.
    """
    return hashlib.scrypt(key, salt=_SALT, n=2**13, r=8, p=1, dklen=16).hex()
