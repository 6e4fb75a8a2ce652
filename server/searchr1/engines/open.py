"""From the server's settings to a running engine: a remote vLLM, or one that this process owns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from searchr1.engines.base import ServedEngine
from searchr1.engines.vllm import VllmEngine
from searchr1.settings import Settings


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[ServedEngine]:
    """Open the engine that ``settings`` name, and close it at the end of the block.

    A remote engine need not be up yet: the gateway tells by ``/readyz``. One of our own is started here.

    Raises:
        ConfigurationError: vLLM is not installed, or the model can't be served.
        EngineUnavailableError: the engine of our own does not start.
    """
    if settings.engine_url is not None:
        key = settings.engine_api_key.get_secret_value() if settings.engine_api_key else None
        async with VllmEngine(
            settings.engine_url, settings.model, api_key=key, priority_scheduling=settings.engine_priority
        ) as remote:
            yield remote
        return
