"""API keys: ``Authorization: Bearer KEY``, compared in constant time. Without configured keys everyone may call."""

import functools
import hashlib
import hmac
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from searchr1.gateway.errors import ApiError
from searchr1.gateway.services import services_of
from searchr1.identity import ANYONE, Caller
from searchr1.keys import owners
from searchr1.settings import Settings

_BEARER = HTTPBearer(auto_error=False, description="One of the server's API keys; only where it has any.")
_SALT = b"searchr1 key id"

Credentials = HTTPAuthorizationCredentials | None
"""The ``Authorization`` header as FastAPI's ``HTTPBearer`` reads it; None where it holds no bearer token."""


async def require_key(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry one of the operator's keys; note whose key it is."""
    request.state.caller = check_key(services_of(request).settings, request.headers.get("authorization"))


def caller_of(request: Request) -> Caller:
    """Return the caller that ``require_key`` found."""
    caller: Caller = request.state.caller
    return caller


def check_key(settings: Settings, authorization: str | None) -> Caller:
    """Return the caller whose key stands in the ``Authorization`` header; ``ANYONE`` where the server has no keys.

    Raises:
        ApiError: 401, the header holds none of the server's keys.
    """
    if not settings.asks_for_keys:
        return ANYONE
    presented = _presented(authorization)
    if not presented:
        message = "No API key was given. Send it as 'Authorization: Bearer KEY'."
        raise ApiError(401, message, code="missing_api_key")
    keys = owners(settings.api_keys, settings.tenant_keys, settings.admin_key)
    # All are compared, so that the time tells nothing about which one matched.
    matches = [(key, tenant) for key, tenant in keys.items() if hmac.compare_digest(presented, key.encode())]
    if not matches:
        raise ApiError(401, "The API key is not one of this server's keys.", code="invalid_api_key")
    [(key, tenant)] = matches
    return Caller(tenant=tenant, key_id=_key_id(key), former_key_id=hashlib.sha256(key.encode()).hexdigest()[:16])


def check_admin(settings: Settings, authorization: str | None) -> None:
    """Refuse a request without the admin key in its ``Authorization`` header; empty ones never match.

    Raises:
        ApiError: 401, it is not there; 403, the server has none.
    """
    if settings.admin_key is None:
        raise ApiError(403, "This server has no admin key: set SEARCHR1_ADMIN_KEY.", code="permission_denied")
    if not is_admin(settings, authorization):
        raise ApiError(401, "The admin key is missing or wrong.", code="invalid_api_key")


def is_admin(settings: Settings, authorization: str | None) -> bool:
    """Tell whether the ``Authorization`` header holds the admin key; never where there is none, or an empty one."""
    key = b"" if settings.admin_key is None else settings.admin_key.get_secret_value().encode()
    presented = _presented(authorization)
    return bool(key and presented) and hmac.compare_digest(presented, key)


def check_may_list(settings: Settings, authorization: str | None) -> None:
    """Refuse to list runs where no key tells callers apart, but to the admin.

    Raises:
        ApiError: 403, the server has no API keys, and the header not the admin key.
    """
    if settings.asks_for_keys or is_admin(settings, authorization):
        return
    message = (
        "This server has no API keys to tell whose runs are whose, so it lists none. Name a run by its id, send the "
        "server's admin key, or set SEARCHR1_API_KEYS."
    )
    raise ApiError(403, message, code="permission_denied")


def _presented(authorization: str | None) -> bytes:
    """Return the bearer token of the header, to be compared with configured keys; empty where there is none."""
    scheme, token = get_authorization_scheme_param(authorization)
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


@functools.lru_cache(maxsize=10_000)
def _key_id(key: str) -> str:
    """Return what stands in Redis for a key: slow to compute, so that who reads it there can't try keys at a rate.

    It hangs on the key alone. Thus it is the same on all replicas and after a restart, and stays as it is when the
    operator adds or drops another key.
    """
    return hashlib.scrypt(key.encode(), salt=_SALT, n=2**13, r=8, p=1, dklen=16).hex()
