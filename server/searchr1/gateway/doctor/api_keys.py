"""The check of keys: their lengths, the stored ones, and those that others depend on. No key is quoted."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.keyring.key_place import KeyPlace
from searchr1.keyring.key_store import KeysUnreadableError
from searchr1.keyring.opening import open_keys
from searchr1.keys import ADEQUATE_CHARS
from searchr1.settings import Settings
from searchr1.sockets import is_loopback

_RANDOM: Final = "take random ones: openssl rand -hex 32"
_ANSWER_S: Final = 5.0
_SOON_S: Final = 7 * 86_400


async def examine_keys(settings: Settings) -> Sequence[Finding]:
    """Return what is to be said of the keys of clients, the admin and the engine."""
    clients = [*settings.api_keys, *(key for keys in settings.tenant_keys.values() for key in keys)]
    found: list[Finding] = []
    for name, keys in (("clients", clients), ("the admin", [settings.admin_key] if settings.admin_key else [])):
        if num_short := sum(len(key.get_secret_value()) < ADEQUATE_CHARS for key in keys):
            told = f"{num_short} of {len(keys)} keys of {name} have less than {ADEQUATE_CHARS} characters"
            found.append(warning("keys", told, _RANDOM))
    if settings.key_place is not None:
        found += await _stored_keys(settings.key_place)
    elif not clients:
        reach = "this machine" if is_loopback(settings.host) else f"everyone who reaches {settings.host}"
        found.append(warning("keys", f"none are asked for: the server is open to {reach}", "set SEARCHR1_API_KEYS"))
    is_shared = settings.redis_url is not None and settings.engine_url is not None
    if settings.salts_caches and is_shared and settings.engine_session_secret is None:
        told = "each gateway salts the engine's cache for itself, so that they share no cached prefixes"
        found.append(warning("keys", told, "give all gateways one SEARCHR1_ENGINE_SESSION_SECRET"))
    return found or [ok("keys", f"{len(clients)} of clients, {'one' if settings.admin_key else 'none'} of the admin")]


async def _stored_keys(place: KeyPlace) -> Sequence[Finding]:
    """Return what is to be said of the keys that ``searchr1 keys`` keeps."""
    store = open_keys(place)
    try:
        async with asyncio.timeout(_ANSWER_S):
            reading = await store.read()
    except TimeoutError:
        return [wrong("keys", f"{store.name} does not answer", "start it, or mend its address")]
    except KeysUnreadableError as error:
        return [wrong("keys", str(error), "a server does not start with it: see docs/guides/keys.md")]
    finally:
        await store.aclose()
    keys, now = [] if reading is None else reading.keys, time.time()
    states = Counter(key.state(now) for key in keys)
    found = (
        [warning("keys", fault, "make that key anew: searchr1 keys create") for fault in reading.faults]
        if reading
        else []
    )
    if not states["active"]:
        told = (
            f"no key in {store.name} opens anything: {states['expired']} have expired, {states['revoked']} are revoked"
        )
        found.append(warning("keys", told, "searchr1 keys create"))
    ending = [key for key in keys if key.state(now) == "active" and key.state(now + _SOON_S) != "active"]
    if ending:
        told = (
            f"{len(ending)} of {states['active']} keys expire within a week: {', '.join(key.id for key in ending[:5])}"
        )
        found.append(warning("keys", told, "searchr1 keys create, and give the new ones out"))
    return found or [ok("keys", f"{states['active']} stored ones are active")]
