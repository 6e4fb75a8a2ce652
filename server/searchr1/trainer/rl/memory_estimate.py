"""Estimates of the memory that a run takes on each GPU, from its configuration and its model's shape alone.

Arithmetic, no measurement: what is kept, what a pass adds to it at its peak, and what the engine has. Sizes are of the
GPU that has most: the first, where it alone samples. ``FILLED`` leaves room for an allocator's fragments.

An update is counted at the moments that can be its peak: while a chunk's logits are there, in the middle of the
backward pass, when the gradient of the embedding is summed over the processes, and in the optimizer's step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.sections import LoraSection
from searchr1.trainer.rl.shapes import ModelShape, shape_of

GIB: Final = 2**30
GPU_GIB: Final = (24, 40, 48, 80, 96, 141)
"""Sizes of GPUs: the smallest of them that is enough is told."""
FILLED: Final = 0.95
"""Share of a GPU that the sum may come to."""
CONTEXT_GIB: Final = 1.5
"""CUDA's context and NCCL's buffers of the trainer's process; a guess from common reports."""
ASLEEP_GIB: Final = 2.0
"""What a vLLM that sleeps keeps of its GPU, its context included; likewise."""
LEAST_CACHE_GIB: Final = 2.0
"""KV cache without which an engine is not worth starting."""
CHUNK_TOKENS: Final = 1024
"""``policy.CHUNK_TOKENS``, without importing torch."""
PROMPT_TOKENS: Final = 256
"""A prompt's, added to ``max_trajectory_tokens`` for the longest row."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """GiB on the fullest GPU."""

    kept: float
    """Weights, gradients, the optimizer's state and the reference, whatever the trainer does."""
    added: float
    """Added at the peak of an update: of a forward and backward pass, or of the optimizer's step."""
    engine_weights: float
    share: float
    """Share of the GPU that the engine takes while it is awake; 0 where it is on other machines."""
    sleeps: bool

    def update(self, gpu_gib: float) -> float:
        """Return the peak of an update on a GPU of this size."""
        engine = self.engine(gpu_gib)
        return CONTEXT_GIB + self.kept + self.added + (min(engine, ASLEEP_GIB) if self.sleeps else engine)

    def rollouts(self, gpu_gib: float) -> float:
        """Return what is taken while the engine samples."""
        return CONTEXT_GIB + self.kept + self.engine(gpu_gib)

    def engine(self, gpu_gib: float) -> float:
        """Return what an engine that is awake takes."""
        return self.share * gpu_gib

    def fits(self, gpu_gib: float) -> bool:
        """Return whether update and rollouts fit, and the engine's weights and some KV cache into its share."""
        has_room = self.share == 0 or self.engine(gpu_gib) >= self.engine_weights + LEAST_CACHE_GIB
        return has_room and max(self.update(gpu_gib), self.rollouts(gpu_gib)) <= FILLED * gpu_gib


def estimate(config: TrainConfig, shape: ModelShape, num_gpus: int) -> Estimate:
    """Return the memory of a run on ``num_gpus`` GPUs of one machine, each of which has a process."""
    is_awake = not config.rollout.engine_urls
    return Estimate(
        kept=_kept(config, shape, num_gpus) / GIB,
        added=max(_pass(config, shape, num_gpus), _step(config, shape, num_gpus)) / GIB,
        engine_weights=shape.params * (4 if config.rollout.engine_dtype == "float32" else 2) / GIB,
        share=config.rollout.gpu_memory_share if is_awake else 0.0,
        sleeps=config.rollout.sleep and is_awake,
    )


def memory_table(files: Iterable[Path], configs: Sequence[TrainConfig], nums_gpus: Sequence[int]) -> str:
    """Return a Markdown table with a row for each of ``configs``, read from ``files``, and each number of GPUs.

    Raises:
        ConfigurationError: the shape of a model is not known.
    """
    lines = [
        "| configuration | GPUs | kept | added | update on 80 GiB | rollouts on 80 GiB | enough |",
        "|---|---|---|---|---|---|---|",
    ]
    for file, config in zip(files, configs, strict=True):
        shape = shape_of(config.model)
        for num_gpus in nums_gpus:
            found = estimate(config, shape, num_gpus)
            enough = next((f"{size} GiB" for size in GPU_GIB if found.fits(size)), f"more than {GPU_GIB[-1]} GiB")
            lines.append(
                f"| `{file.stem}` | {num_gpus} | {found.kept:.1f} | {found.added:.1f} | {found.update(80):.1f} | "
                f"{found.rollouts(80):.1f} | {enough} |"
            )
    return "\n".join(lines)


def layer_bytes(shape: ModelShape, itemsize: int) -> int:
    """Return what a layer saves of one token for its backward pass, in bytes.

    A norm saves its input in float32, what it scales and its result; attention its queries, keys, values and result,
    and that again for the projection behind it; the feed-forward part the gate before and after its activation, the
    other half, and their product.
    """
    norms = 2 * shape.hidden * (4 + 2 * itemsize)
    attention = itemsize * (3 * shape.query_width + 2 * shape.kv_width)
    return norms + attention + 4 * itemsize * shape.intermediate


def _kept(config: TrainConfig, shape: ModelShape, num_gpus: int) -> float:
    """Return the bytes of what every GPU has its part of."""
    in_half = config.optimizer.dtype == "bfloat16"
    total = 0.0
    for params, trained in _trained_models(config, shape):
        stored = params if config.lora is None else params + trained
        # float32: the weights, and of what is trained the gradient and AdamW's two moments.
        total += 4 * stored + 12 * trained
        if in_half and num_gpus == 1:
            total += 2 * stored
    if config.loss.kl_coef > 0 and config.lora is None:
        total += shape.params * (2 if in_half else 4)
    return total / num_gpus


def _step(config: TrainConfig, shape: ModelShape, num_gpus: int) -> float:
    """Return the bytes that AdamW adds in its step: a root of each entry's second moment, of one model at a time."""
    return max(4 * trained for _, trained in _trained_models(config, shape)) / num_gpus


def _trained_models(config: TrainConfig, shape: ModelShape) -> list[tuple[int, int]]:
    """Return the parameters of policy and critic, and how many of them are trained."""
    models = [shape.params] + ([shape.critic_params] if config.open_algorithm().needs_critic else [])
    return [(params, params if config.lora is None else _adapter_params(config.lora, shape)) for params in models]


def _adapter_params(section: LoraSection, shape: ModelShape) -> int:
    return shape.layers * sum(section.rank * sum(shape.linear(name)) for name in section.targets)


def _pass(config: TrainConfig, shape: ModelShape, num_gpus: int) -> float:
    """Return the bytes that a forward and backward pass of the policy adds at its peak."""
    section, itemsize = config.optimizer, 2 if config.optimizer.dtype == "bfloat16" else 4
    tokens = max(section.max_tokens_per_pass, PROMPT_TOKENS + config.rollout.max_trajectory_tokens)
    root, layer, one_layer = shape.root_params, shape.layer_params, tokens * layer_bytes(shape, itemsize)
    if section.activation_checkpointing:
        saved, again = shape.layers * tokens * shape.hidden * itemsize, one_layer
    else:
        saved, again = shape.layers * one_layer, 0
    # Gradients of the widest part of a layer and of the residual stream.
    backward = tokens * itemsize * (3 * shape.intermediate + 2 * shape.hidden)
    # Logits twice over in float32 and once in the pass's type, and the gradient of the output layer.
    logits = CHUNK_TOKENS * shape.vocab * (8 + itemsize) + shape.vocab * shape.hidden * itemsize
    if config.lora is not None:
        logits -= shape.vocab * shape.hidden * itemsize
    if num_gpus == 1:
        return saved + max(logits, again + backward)
    gathered = root * itemsize
    if config.lora is not None:
        return gathered + saved + max(logits, 2 * layer * itemsize + again + backward)
    # One layer computes while the next is gathered; a gradient is cast to float32 before it is summed.
    in_layer = gathered + root * itemsize + 2 * layer * itemsize + layer * (itemsize + 4) + again + backward
    at_the_end = gathered + root * (itemsize + 4)
    return max(gathered + saved + logits, saved + in_layer, at_the_end)
