"""API keys: ``Authorization: Bearer KEY``, compared in constant time. Without configured keys everyone may call."""

import hmac

from fastapi import Request

from searchr1.gateway.errors import ApiError
from searchr1.gateway.services import services_of


async def require_key(request: Request) -> None:
    """Refuse a request that does not carry one of the operator's keys."""
    keys = services_of(request).settings.api_keys
    if not keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        message = "No API key was given. Send it as 'Authorization: Bearer KEY'."
        raise ApiError(401, message, code="missing_api_key")
    presented = given.strip().encode("utf-8", "surrogateescape")
    matches = [hmac.compare_digest(presented, key.get_secret_value().encode()) for key in keys]
    if not any(matches):
        raise ApiError(401, "The API key is not one of this server's keys.", code="invalid_api_key")
