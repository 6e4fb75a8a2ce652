"""The engine for where vLLM is not installed: transformers in this process."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from searchr1.engines.base import ServedEngine
from searchr1.engines.factory import EngineConfig, register
from searchr1.errors import ConfigurationError, missing_package


@register("transformers")
@asynccontextmanager
async def open_transformers(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Load the model of ``config`` with transformers; blocks while it loads.

    Raises:
        ConfigurationError: transformers is not installed, or there is no such model, dtype or device.
    """
    config.require_no_url()
    config.require_no_engine_args()
    try:
        import torch

        from searchr1.engines.transformers.engine import TransformersEngine
    except ImportError as error:
        raise ConfigurationError(
            missing_package("the engine 'transformers'", error.name or "torch", "train")
        ) from error
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype, None)
    if config.dtype != "auto" and not isinstance(dtype, torch.dtype):
        raise ConfigurationError(f"torch has no dtype {config.dtype!r}")
    engine = TransformersEngine.load(
        config.place(),
        device=config.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=dtype,
        max_batch=config.max_num_seqs,
        **({} if config.kv_cache_gib is None else {"kv_cache_gib": config.kv_cache_gib}),
    )
    async with aclosing(engine):
        yield engine
