"""The run store that the settings choose: Redis where they name one, else memory."""

from searchr1.gateway.runs.store.base import RunStore
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.redis_client import open_redis
from searchr1.settings import Settings


def open_run_store(settings: Settings) -> RunStore:
    """Return the store that the settings choose. It connects with its first call."""
    if settings.redis_url is None:
        return MemoryRunStore(ttl_s=settings.run_ttl_s, max_bytes=settings.run_memory_mib * 2**20)
    url = settings.redis_url.get_secret_value()
    return RedisRunStore(open_redis(url), open_redis(url), ttl_s=settings.run_ttl_s)
