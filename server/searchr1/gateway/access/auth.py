"""Who calls, and what it may do: checks of the ``Authorization`` header by routes.

A route is the one that the request's path leads to, and nothing else of a request says what it needs: a URL that is put
together with the ``Host`` header may name another path.
"""

import hmac
from collections.abc import Collection
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from searchr1.gateway.errors import ApiError
from searchr1.gateway.openapi import KEY_SCHEME
from searchr1.gateway.services import Services, services_of
from searchr1.http_server.headers import bearer_token
from searchr1.identity import Caller
from searchr1.keyring.stored_key import Scope
from searchr1.settings import Settings

_BEARER = HTTPBearer(
    auto_error=False, scheme_name=KEY_SCHEME, description="One of the server's API keys; only where it has any."
)

_ADMIN: Final[tuple[Scope, ...]] = ("admin",)

Credentials = HTTPAuthorizationCredentials | None
"""The ``Authorization`` header as FastAPI's ``HTTPBearer`` reads it; None where it holds no bearer token."""


async def require_key(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry one of the operator's keys; note whose key it is.

    The key needs the scope ``read`` for what changes nothing, and ``infer`` for all else.
    """
    scope: Scope = "read" if request.scope["method"] in ("GET", "HEAD") else "infer"
    _enter(request, (scope,))


async def require_any_key(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request without a key that has one of the scopes ``read`` and ``infer``."""
    _enter(request, ("read", "infer"))


def _enter(request: Request, scopes: Collection[Scope]) -> None:
    services = services_of(request)
    access = services.access.keys.access(request.headers.get("authorization"))
    access.require(scopes)
    request.state.caller = access.caller
    services.access.usage.requested(access.caller)


def caller_of(request: Request) -> Caller:
    """Return the caller that ``require_key`` found."""
    caller: Caller = request.state.caller
    return caller


def check_admin(services: Services, authorization: str | None) -> None:
    """Refuse a request with neither the admin key nor a stored one of the scope ``admin`` in its header.

    Raises:
        ApiError: 401, it is not there; 403, the server has none, or the key lacks the scope.
    """
    settings = services.settings
    if is_admin(settings, authorization):
        return
    if settings.admin_key is None and not settings.has_stored_keys:
        raise ApiError(403, "This server has no admin key: set SEARCHR1_ADMIN_KEY.", code="permission_denied")
    if not settings.has_stored_keys:
        raise ApiError(401, "The admin key is missing or wrong.", code="invalid_api_key")
    access = services.access.keys.access(authorization)
    access.require(_ADMIN)
    services.access.usage.requested(access.caller)


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
