"""The check of keys: their lengths, and those that are missing where others depend on them. No key is quoted."""

from collections.abc import Sequence

from searchr1.gateway.doctor.finding import Finding, ok, warning
from searchr1.keys import ADEQUATE_CHARS
from searchr1.settings import Settings
from searchr1.sockets import is_loopback

_RANDOM = "take random ones: openssl rand -hex 32"


async def examine_keys(settings: Settings) -> Sequence[Finding]:
    """Return what is to be said of the keys of clients, the admin and the engine."""
    clients = [*settings.api_keys, *(key for keys in settings.tenant_keys.values() for key in keys)]
    found: list[Finding] = []
    for name, keys in (("clients", clients), ("the admin", [settings.admin_key] if settings.admin_key else [])):
        if num_short := sum(len(key.get_secret_value()) < ADEQUATE_CHARS for key in keys):
            told = f"{num_short} of {len(keys)} keys of {name} have less than {ADEQUATE_CHARS} characters"
            found.append(warning("keys", told, _RANDOM))
    if not clients:
        reach = "this machine" if is_loopback(settings.host) else f"everyone who reaches {settings.host}"
        found.append(warning("keys", f"none are asked for: the server is open to {reach}", "set SEARCHR1_API_KEYS"))
    is_shared = settings.redis_url is not None and settings.engine_url is not None
    if settings.salts_caches and is_shared and settings.engine_session_secret is None:
        told = "each gateway salts the engine's cache for itself, so that they share no cached prefixes"
        found.append(warning("keys", told, "give all gateways one SEARCHR1_ENGINE_SESSION_SECRET"))
    return found or [ok("keys", f"{len(clients)} of clients, {'one' if settings.admin_key else 'none'} of the admin")]
