"""``GET /admin/keys``: the stored keys, and what keys are used for."""

import time
from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from searchr1.gateway.errors import ApiError
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.routes.admin import require_admin
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.services import services_of
from searchr1.keyring.stored_key import Scope, StoredKey
from searchr1.keyring.usage import Usage, UsageError

router = APIRouter(route_class=GuardedRoute, responses=ERRORS, dependencies=[Depends(require_admin)])


class KeyUsage(BaseModel):
    """What a key was used for since its first use; without Redis, since this gateway's start."""

    requests: int
    runs: int
    tokens_in: int = Field(description="Tokens of prompts and observations.")
    tokens_out: int = Field(description="Tokens that the model sampled.")
    searches: int
    last_used_at: int | None = Field(description="Unix time, seconds; null for never.")


class KeyLimitsInfo(BaseModel):
    """The limits of a key; null is none."""

    requests_per_minute: int | None
    concurrent_runs: int | None
    tokens_per_day: int | None
    searches_per_window: int | None


class KeyInfo(BaseModel):
    """A stored key. Nothing here opens anything."""

    id: str
    name: str
    tenant: str | None
    scopes: tuple[Scope, ...]
    state: Literal["active", "expired", "revoked"]
    created_at: int = Field(description="Unix time, seconds.")
    expires_at: int | None
    revoked_at: int | None
    limits: KeyLimitsInfo
    usage: KeyUsage


class OtherUsage(BaseModel):
    """The usage of a key that is not stored: one of the settings', or one that is gone."""

    id: str = Field(description="A hash of the key.")
    usage: KeyUsage


class KeyList(BaseModel):
    """All stored keys, newest first."""

    data: list[KeyInfo]
    others: list[OtherUsage]


@router.get("/admin/keys", summary="List API keys and their usage")
async def keys(request: Request) -> KeyList:
    """List the stored keys as this gateway knows them, and the usage of all keys."""
    access = services_of(request).access
    try:
        usage = await access.usage.read()
    except UsageError as error:
        raise ApiError(503, "The usage of keys can't be reached just now.", code="store_unavailable") from error
    stored = sorted(access.keys.stored, key=lambda key: key.created_at, reverse=True)
    now = time.time()
    listed = [_info(key, usage.pop(key.id, Usage()), now) for key in stored]
    return KeyList(data=listed, others=[OtherUsage(id=one, usage=_usage(usage[one])) for one in sorted(usage)])


def _info(key: StoredKey, usage: Usage, now: float) -> KeyInfo:
    limits = key.limits
    return KeyInfo(
        id=key.id,
        name=key.name,
        tenant=key.tenant or None,
        scopes=key.scopes,
        state=key.state(now),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        limits=KeyLimitsInfo(
            requests_per_minute=limits.requests_per_minute,
            concurrent_runs=limits.concurrent_runs,
            tokens_per_day=limits.tokens_per_day,
            searches_per_window=limits.searches_per_window,
        ),
        usage=_usage(usage),
    )


def _usage(usage: Usage) -> KeyUsage:
    return KeyUsage(
        requests=usage.requests,
        runs=usage.runs,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        searches=usage.searches,
        last_used_at=usage.last_used_at or None,
    )
