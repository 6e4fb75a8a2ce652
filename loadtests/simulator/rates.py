"""What a simulated vLLM is: its sizes and its step time, with two presets."""

from dataclasses import dataclass, replace
from typing import Literal

EnginePolicy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParams:
    """Sizes and rates of one vLLM replica.

    A step takes ``step_s``, and ``prefill_token_s`` for each prompt token that it computes, ``decode_s`` for each
    sequence that it writes a token of, ``context_token_s`` for each token of context that those sequences read.
    """

    name: str
    num_blocks: int
    """Blocks that requests can hold; vLLM's ``num_gpu_blocks`` counts one more, which it keeps for itself."""
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    step_s: float
    prefill_token_s: float
    decode_s: float
    context_token_s: float

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for sizes with which decoding alone could exhaust a step."""
        if self.max_num_batched_tokens <= self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must exceed max_num_seqs")

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.block_size


SMOLLM2_135M_CPU = EngineParams(
    name="SmolLM2-135M on two CPU cores",
    num_blocks=363,
    block_size=128,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    step_s=0.020,
    prefill_token_s=0.00090,
    decode_s=0.0060,
    context_token_s=0.0,
)
"""vLLM 0.32 on two cores with AMX, eager, ``VLLM_CPU_KVCACHE_SPACE=1``: 46,592 tokens in blocks of 128.

The three rates, and the prompts of ``traces.SHAPES["growing"]``, are fitted by hand to one measurement each of three
policies with 48 runs of 4 completions of 40 tokens that grow to 2,300 tokens: ``docs/results/simulator.md`` has both.
"""

SEVEN_B_H100 = EngineParams(
    name="7B (multi-head attention) on an H100",
    num_blocks=6250,
    block_size=16,
    max_num_seqs=256,
    max_num_batched_tokens=8192,
    step_s=0.0065,
    prefill_token_s=0.000050,
    decode_s=0.000020,
    context_token_s=0.00000018,
)
"""A 7B model in bfloat16 on one H100 with 80 GB, from its sizes and the published speed of the card.

Weights of 14 GB at 3.35 TB/s are read in 4.2 ms; 6.5 ms a step leaves a third for launches and sampling. Prefill:
20,000 tokens/s (14 GFLOP a token, some 28 % of 989 TFLOP/s). KV cache of multi-head attention, as Llama-2-7B has it:
524 kB a token, so that 52 GB hold 100,000 tokens, and reading one costs 0.16 µs at the card's bandwidth.
``max_num_seqs`` and ``max_num_batched_tokens`` are vLLM's.
"""

SEVEN_B_GROUPED_H100 = replace(
    SEVEN_B_H100, name="7B (grouped queries) on an H100", num_blocks=56_250, context_token_s=0.00000002
)
"""The same with grouped queries, as Qwen2.5-7B has them: 57 kB a token, so that 900,000 tokens fit."""

PRESETS = {"smollm2-cpu": SMOLLM2_135M_CPU, "7b-h100": SEVEN_B_H100, "7b-grouped-h100": SEVEN_B_GROUPED_H100}
