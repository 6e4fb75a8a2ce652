"""Several vLLM servers as one engine (``vllm-pool``): sticky sessions, failover, servers that come and go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from searchr1.engines.base import ServedEngine
from searchr1.engines.factory import EngineConfig, register
from searchr1.errors import ConfigurationError, EngineUnavailableError


@register("vllm-pool")
@asynccontextmanager
async def open_pool(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Open clients of the servers at all addresses of ``config``; they need not be up yet.

    Where ``config`` names no model, each must be up, and is asked for what it serves.

    Raises:
        ConfigurationError: there is no address, or one that can't be used.
        EngineUnavailableError: a server is to be asked for its model, and is not there, or serves nothing.
    """
    from searchr1.engines.pool.discovery import discovery_of
    from searchr1.engines.pool.pool import PoolTimes, VllmPool
    from searchr1.engines.vllm.http import HttpTimeouts, VllmHttpEngine

    config.require_no_engine_args()
    if not config.urls:
        raise ConfigurationError(f"the engine '{config.kind}' needs the addresses of its servers")
    discovery = discovery_of(config.urls)
    names = dict[str, str]()
    if not config.model:
        for url in sorted(await discovery.addresses()):
            async with VllmHttpEngine(url, "", api_key=config.api_key) as asked:
                if not (served := await asked.models()):
                    raise EngineUnavailableError(f"the engine at {asked.base_url} serves no model")
                names[url] = served[0].name

    def connect(url: str) -> VllmHttpEngine:
        return VllmHttpEngine(
            url,
            names.get(url) or config.model or next(iter(names.values()), ""),
            api_key=config.api_key,
            priority_scheduling=config.priority_scheduling,
            max_model_len=config.max_model_len,
            vocab_size=config.vocab_size,
            timeouts=HttpTimeouts(silence_s=config.silence_s, health_kept_s=0.0),
        )

    async with VllmPool(
        discovery, connect, rolling=config.roll_weights, times=PoolTimes(stuck_s=config.silence_s)
    ) as pool:
        yield pool
