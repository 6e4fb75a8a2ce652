"""Several vLLM servers as one engine: the trainer's rollouts on other machines."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import cycle
from pathlib import Path

from searchr1.engines.base import Chunk, EngineHealth, SamplingParams, ServedEngine, TakesWeights
from searchr1.engines.factory import EngineConfig, register
from searchr1.engines.vllm.http import HttpTimeouts, VllmHttpEngine
from searchr1.errors import ConfigurationError, EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds


class VllmReplicas(TakesWeights):
    """Spreads sessions over ``replicas`` in turn; a session stays where it is, for its prefix cache."""

    def __init__(self, replicas: Sequence[VllmHttpEngine]) -> None:
        self.replicas = tuple(replicas)
        self._next = cycle(self.replicas)
        self._of_session: dict[str, VllmHttpEngine] = {}

    async def health(self) -> EngineHealth:
        """Return the health of the first replica that is not well, or that all are. Never raises."""
        found = await asyncio.gather(*(replica.health() for replica in self.replicas))
        return next((health for health in found if not health.ok), EngineHealth(ok=True))

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion of ``session``'s replica; see ``VllmHttpEngine.generate``."""
        if session not in self._of_session:
            self._of_session[session] = next(self._next)
        replica = self._of_session[session]
        async with aclosing(replica.generate(prompt_ids, params, session=session, priority=priority)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace the weights of all replicas at once by those in ``folder``, which they must see at the same path.

        Raises:
            EngineError: some replicas did not take them; the message says which, and why.
        """
        loading = (replica.take_weights(folder, version=version) for replica in self.replicas)
        failures = [error for error in await asyncio.gather(*loading, return_exceptions=True) if error is not None]
        for error in failures:
            if not isinstance(error, EngineError):
                raise error
        if failures:
            raise EngineError(
                f"new weights did not reach every replica: {'; '.join(map(str, failures))}"
            ) from failures[0]


@register("vllm-replicas")
@asynccontextmanager
async def open_replicas(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Open clients of the servers at all addresses of ``config``, each with the first model that it serves.

    Raises:
        ConfigurationError: there is no address.
        EngineUnavailableError: a server is not there, or serves nothing.
    """
    config.require_no_engine_args()
    if not config.urls:
        raise ConfigurationError(f"the engine '{config.kind}' needs the addresses of its servers")
    async with AsyncExitStack() as stack:
        replicas = []
        for url in config.urls:
            async with VllmHttpEngine(url, "", api_key=config.api_key) as asked:
                served = await asked.models()
                if not served:
                    raise EngineUnavailableError(f"the engine at {asked.base_url} serves no model")
            replica = VllmHttpEngine(
                url,
                served[0].name,
                api_key=config.api_key,
                max_model_len=config.max_model_len,
                vocab_size=config.vocab_size,
                timeouts=HttpTimeouts(silence_s=config.silence_s),
            )
            replicas.append(await stack.enter_async_context(replica))
        yield VllmReplicas(replicas)
