"""The ``Idempotency-Key`` header: a request that is sent again is answered with the run that the first one started."""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.routes.run_requests import has_room, hub_of, require_room, require_within_limits
from searchr1.gateway.runs.errors import RunNotFoundError
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.hub import scope_of
from searchr1.gateway.runs.idempotency import Claim, claim_name
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import RunUnreadableError
from searchr1.identity import UNLIMITED

HEADER = "Idempotency-Key"
REPLAYED = "idempotent-replayed"
"""Header of an answer that tells of a run which an earlier request started."""
MAX_KEY_CHARS = 255
_BEGINS_WITHIN_S = 10.0
"""Seconds after its claim in which another replica's run can be found, if it ever can."""
_POLL_S = 0.1

Key = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description="1 to 255 printable ASCII characters of the caller's own, such as a UUID. A request that is sent "
        "again with it is answered with the run that the first one started.",
        json_schema_extra={"pattern": f"^[!-~]([ -~]{{0,{MAX_KEY_CHARS - 2}}}[!-~])?$"},
    ),
]
Begin = Callable[[str], Awaitable[LiveRun]]
"""Starter of the run that has the id it is given."""


@dataclass(frozen=True, slots=True)
class Started:
    """The run of a request."""

    run: RunHandle
    is_replayed: bool = False
    """True where an earlier request with the same key started it."""


async def require_room_or_known_key(request: Request) -> None:
    """Refuse a run that can't begin now or is beyond a limit, unless the request's key has started one already.

    Raises:
        ApiError: the engine is known to be in a state that no run would survive, or the key is malformed.
        NoSlotError: no slot is free.
        LimitReachedError: a limit of requests, tokens or searches is reached.
    """
    key = _key_of(request)
    # Not asked of every request: with Redis, it costs a round trip.
    may_be_refused = not has_room(request) or caller_of(request).limits != UNLIMITED
    if key is not None and may_be_refused and await hub_of(request).keys.knows(_name(request, key)):
        request.state.is_uncounted = True
        return
    await require_room(request)
    await require_within_limits(request)


ROOM_OR_KNOWN_KEY = [Depends(require_room_or_known_key)]
"""Dependencies of a route that begins a run once for each key."""


async def started_once(request: Request, begin: Begin, *, shared: bool) -> Started:
    """Return the run that the request's key has started, or else the one that ``begin`` starts.

    A run that is not ``shared`` is only found on this replica. One that failed or was cancelled, or is gone, is not
    given again.

    Raises:
        ApiError: the key is malformed (400), or belongs to another request (422).
        RunsUnreachableError: the key's run can't be looked up just now.
        LimitReachedError: the key's run is given no more, and the caller may begin none.
    """
    key = _key_of(request)
    if key is None:
        return Started(await begin(_new_id()))
    hub, caller = hub_of(request), caller_of(request)
    keys, name, fingerprint = hub.keys, _name(request, key), await _fingerprint(request)
    due_s = time.monotonic() + _BEGINS_WITHIN_S
    while True:
        mine = Claim(fingerprint, _new_id(), int(time.time()))
        claim = await keys.claim(name, mine, shared=shared)
        if claim == mine:
            try:
                if getattr(request.state, "is_uncounted", False):  # The run of its key is of no use any more.
                    await require_within_limits(request)
                run = await begin(mine.run_id)
            except BaseException:
                await keys.release(name, mine)
                raise
            keys.begun(name, mine)
            return Started(run)
        if claim.fingerprint != fingerprint:
            message = f"This {HEADER} came with another request before; give each request a key of its own."
            raise ApiError(422, message, code="idempotency_key_reused", param=HEADER)
        try:
            handle = await hub.find(claim.run_id, caller, "research")
            if await _is_of_use(handle):
                return Started(handle, is_replayed=True)
        except RunNotFoundError:
            if not keys.is_own(name) and time.monotonic() < due_s and time.time() < claim.claimed_at + _BEGINS_WITHIN_S:
                # The other replica is about to begin it, or to give it up.
                keys.forget(name, claim)
                await asyncio.sleep(_POLL_S)
                continue
        except RunUnreadableError as error:
            hub.note(error)
        await keys.release(name, claim)


async def _is_of_use(run: RunHandle) -> bool:
    if isinstance(run, LiveRun) and not run.ended:
        return True
    return (await run.run()).status not in ("failed", "cancelled")


def _key_of(request: Request) -> str | None:
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not (key.isascii() and key.isprintable() and 1 <= len(key) <= MAX_KEY_CHARS):
        message = f"'{HEADER}' must be one key of 1 to {MAX_KEY_CHARS} printable ASCII characters, such as a UUID."
        raise invalid(message, param=HEADER)
    return key


def _name(request: Request, key: str) -> str:
    return claim_name(scope_of(caller_of(request)), key)


async def _fingerprint(request: Request) -> str:
    """Return a digest of the route and of the body's JSON, whatever its spaces and the order of its fields."""
    body = json.dumps(await request.json(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{request.scope['path']}\0{body}".encode()).hexdigest()


def _new_id() -> str:
    return f"run_{uuid.uuid4().hex}"
