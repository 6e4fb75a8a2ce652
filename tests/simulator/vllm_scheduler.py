"""vLLM's own scheduler and block pool, without a model: what it schedules is taken as computed."""

from typing import Any

import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from searchr1.demo.bundle import CHECKPOINT
from tests.simulator.lockstep import Script, ScriptedRun, Step

_MAX_MODEL_LEN = 1024


class OfVllm:
    """vLLM's scheduler under a script, one step at a time."""

    def __init__(self, script: Script) -> None:
        init_none_hash(sha256)
        params = script.params
        self._hasher = get_request_block_hasher(params.block_size, sha256)
        self._scheduler = _scheduler_of(script)
        self._requests: dict[str, tuple[Request, ScriptedRun]] = {}
        self._hits: dict[str, int] = {}
        self._output: Any = None
        self._time = 0.0

    def submit_turn(self, run: ScriptedRun, turn: int, prompt_tokens: int) -> None:
        """Take a request."""
        self._time += 1.0
        request = Request(
            request_id=f"{run.name}.{turn}",
            prompt_token_ids=run.tokens(prompt_tokens),
            sampling_params=SamplingParams(max_tokens=run.turns[turn], ignore_eos=True),
            pooling_params=None,
            arrival_time=self._time,
            priority=run.priority,
            block_hasher=self._hasher,
        )
        self._requests[request.request_id] = request, run
        self._scheduler.add_request(request)

    def step(self) -> Step | None:
        """Begin a step; None where there is nothing to do."""
        before = {name: request.num_preemptions for name, (request, _) in self._requests.items()}
        self._output = self._scheduler.schedule()
        preempted = {name for name, (request, _) in self._requests.items() if request.num_preemptions > before[name]}
        scheduled = dict(self._output.num_scheduled_tokens)
        return Step(scheduled, frozenset(preempted)) if scheduled or preempted else None

    def end_step(self) -> list[tuple[str, int]]:
        """End the step, and return the requests that were finished."""
        names = list(self._output.num_scheduled_tokens)
        sampled = [self._next_token(name) for name in names]
        made = ModelRunnerOutput(
            req_ids=names, req_id_to_index={name: at for at, name in enumerate(names)}, sampled_token_ids=sampled
        )
        for outputs in self._scheduler.update_from_output(self._output, made).values():
            for one in outputs.outputs:
                if one.prefill_stats is not None:
                    self._hits[one.request_id] = one.prefill_stats.num_cached_tokens
        ended = [name for name, (request, _) in self._requests.items() if request.is_finished()]
        for name in ended:
            del self._requests[name]
        return [(name, self._hits.pop(name)) for name in ended]

    def _next_token(self, name: str) -> list[int]:
        """Return the token that follows, or none while the prompt is not whole."""
        request, run = self._requests[name]
        if request.num_computed_tokens < request.num_tokens:
            return []
        return run.tokens(request.num_tokens + 1, request.num_tokens)


def _scheduler_of(script: Script) -> Scheduler:
    params = script.params
    config = VllmConfig(
        model_config=ModelConfig(
            model=str(CHECKPOINT), dtype="float32", skip_tokenizer_init=True, max_model_len=_MAX_MODEL_LEN
        ),
        cache_config=CacheConfig(block_size=params.block_size, enable_prefix_caching=True),
        scheduler_config=SchedulerConfig(
            max_num_seqs=params.max_num_seqs,
            max_num_batched_tokens=params.max_num_batched_tokens,
            max_model_len=_MAX_MODEL_LEN,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            policy=script.policy,
            async_scheduling=False,
        ),
    )
    # One block is vLLM's own.
    config.cache_config.num_gpu_blocks = params.num_blocks + 1
    attention = FullAttentionSpec(block_size=params.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    blocks = KVCacheConfig(
        num_blocks=params.num_blocks + 1,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], attention)],
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=blocks,
        structured_output_manager=StructuredOutputManager(config),
        block_size=params.block_size,
        log_stats=True,
    )
