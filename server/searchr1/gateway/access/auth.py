"""API keys: ``Authorization: Bearer KEY``, compared in constant time. Without configured keys everyone may call."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from searchr1.gateway.errors import ApiError
from searchr1.gateway.services import services_of
from searchr1.identity import ANYONE, Caller
from searchr1.settings import Settings

_BEARER = HTTPBearer(auto_error=False, description="One of the server's API keys; only where it has any.")

Credentials = HTTPAuthorizationCredentials | None
"""The ``Authorization`` header as FastAPI's ``HTTPBearer`` reads it; None where it holds no bearer token."""


async def require_key(request: Request, credentials: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry one of the operator's keys; note whose key it is."""
    request.state.caller = _caller(services_of(request).settings, presented_key(credentials))


def presented_key(credentials: Credentials) -> bytes:
    """Return the key that a request presents, to be compared with configured ones; empty where it presents none."""
    return b"" if credentials is None else credentials.credentials.strip().encode("utf-8", "surrogateescape")


def caller_of(request: Request) -> Caller:
    """Return the caller that ``require_key`` found."""
    caller: Caller = request.state.caller
    return caller


def _caller(settings: Settings, presented: bytes) -> Caller:
    keys = _keys(settings)
    if not keys:
        return ANYONE
    if not presented:
        message = "No API key was given. Send it as 'Authorization: Bearer KEY'."
        raise ApiError(401, message, code="missing_api_key")
    # All are compared, so that the time tells nothing about which one matched.
    matches = [tenant for tenant, key in keys if hmac.compare_digest(presented, key)]
    if not matches:
        raise ApiError(401, "The API key is not one of this server's keys.", code="invalid_api_key")
    return Caller(tenant=matches[0], key_id=hashlib.sha256(presented).hexdigest()[:16])


def _keys(settings: Settings) -> list[tuple[str, bytes]]:
    """Return all keys with their tenants; keys of no tenant have the empty one."""
    owned = [(tenant, key) for tenant, keys in settings.tenant_keys.items() for key in keys]
    return [(t, key.get_secret_value().encode()) for t, key in [*owned, *(("", key) for key in settings.api_keys)]]
