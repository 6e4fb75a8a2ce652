"""vLLM as an engine: a server over HTTP (``vllm-http``), or one that this process owns (``vllm``)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from searchr1.engines.base import ServedEngine
from searchr1.engines.factory import EngineConfig, register


@register("vllm-http")
@asynccontextmanager
async def open_http(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Open a client of the vLLM server at the one address of ``config``; the server need not be up yet."""
    from searchr1.engines.vllm.http import HttpTimeouts, VllmHttpEngine

    config.require_no_engine_args()
    async with VllmHttpEngine(
        config.url(),
        config.model,
        api_key=config.api_key,
        priority_scheduling=config.priority_scheduling,
        max_model_len=config.max_model_len,
        vocab_size=config.vocab_size,
        timeouts=HttpTimeouts(silence_s=config.silence_s),
    ) as engine:
        yield engine


@register("vllm")
@asynccontextmanager
async def open_in_process(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Start a vLLM that this process owns, and stop it at the end of the block."""
    from searchr1.engines.vllm.args import VllmInProcessConfig, check_engine_args
    from searchr1.engines.vllm.in_process import VllmInProcessEngine

    config.require_no_url()
    check_engine_args(config.engine_args)
    wanted = VllmInProcessConfig(
        model=config.place(),
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        kv_cache_gib=config.kv_cache_gib,
        gpu_memory_share=config.gpu_memory_share,
        enforce_eager=config.enforce_eager,
        priority_scheduling=config.priority_scheduling,
        engine_args=config.engine_args,
        silence_s=config.silence_s,
    )
    async with VllmInProcessEngine(wanted) as engine:
        yield engine
