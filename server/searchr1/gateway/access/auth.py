"""Who calls, and what only the admin may: checks of the ``Authorization`` header by routes."""

import hmac
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from searchr1.gateway.errors import ApiError
from searchr1.gateway.openapi import KEY_SCHEME
from searchr1.gateway.services import services_of
from searchr1.http_server.headers import bearer_token
from searchr1.identity import Caller
from searchr1.settings import Settings

_BEARER = HTTPBearer(
    auto_error=False, scheme_name=KEY_SCHEME, description="One of the server's API keys; only where it has any."
)

Credentials = HTTPAuthorizationCredentials | None
"""The ``Authorization`` header as FastAPI's ``HTTPBearer`` reads it; None where it holds no bearer token."""


async def require_key(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry one of the operator's keys; note whose key it is."""
    request.state.caller = services_of(request).keys.caller(request.headers.get("authorization"))


def caller_of(request: Request) -> Caller:
    """Return the caller that ``require_key`` found."""
    caller: Caller = request.state.caller
    return caller


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
    presented = bearer_token(authorization)
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
