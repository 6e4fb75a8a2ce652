"""The policy and the critic: loading them, and computing logprobs, entropies and values of sampled tokens.

Everything is computed at sampled positions alone: the logits of observations are never needed, and for a large
vocabulary they are most of the memory.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from searchr1.engines.transformers.attention import NAME as CAUSAL_BLOCKS
from searchr1.trainer.checkpoints import quietly, read_model
from searchr1.trainer.rl.lora import LoraLinear
from searchr1.trainer.rl.output_layer import chosen_stats
from searchr1.trainer.rl.packing import pack

CHUNK_TOKENS = 1024
"""Sampled positions whose logits are in memory at once."""
CPU_LOGITS = 2**23
"""Logits that a CPU has in memory at once: as float32 they fit into its last cache, and are read again and again."""
_CAUSAL = ("llama", "qwen2", "qwen3")
"""Kinds of models whose attention is causal and nothing else, so that a CPU may compute it in blocks."""


class TokenStats(NamedTuple):
    """Logprobs and entropies of a batch's tokens; shape [B, T-1], belonging to ``ids[:, 1:]``, 0 where not sampled.

    A tuple, because FSDP has to find the tensors in a module's output.
    """

    logprobs: torch.Tensor
    """[B, T-1] float32, nats; carries the gradient."""
    entropy: torch.Tensor
    """[B, T-1] float32, nats; of the distribution that the token was sampled from. Carries the gradient too."""


def load_policy(
    folder: Path | str, device: torch.device, *, dtype: torch.dtype = torch.float32, whole: bool = True
) -> PreTrainedModel:
    """Load the model of a Hugging Face folder, in float32 unless it is frozen: an optimizer's steps are small.

    One that is not ``whole`` stays on the CPU: ``ProcessGroup.shard`` gets it to ``device`` layer by layer.

    Raises:
        ConfigurationError: there is no such model.
    """
    return _on(read_model(folder, dtype), device, whole=whole)


class Policy(nn.Module):
    """A model as one module from token ids to ``TokenStats``, so that it can be sharded as a whole."""

    def __init__(self, model: PreTrainedModel, *, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.model = model
        self._dtype = dtype

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> TokenStats:
        """Return the stats of ``ids`` [B, T] where ``mask`` [B, T]; see ``token_stats``."""
        return token_stats(self.model, ids, mask, dtype=self._dtype)


class Critic(nn.Module):
    """A model of values: the policy's architecture and weights with a linear head that starts at zero."""

    def __init__(
        self, folder: Path | str, device: torch.device, *, dtype: torch.dtype = torch.bfloat16, whole: bool = True
    ) -> None:
        super().__init__()
        self._dtype = dtype
        with quietly():
            base: PreTrainedModel = AutoModel.from_pretrained(folder, dtype=torch.float32)
        self.base = _on(base, device, whole=whole)
        self.head = nn.Linear(base.config.hidden_size, 1, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return values [B, T-1]: at ``[:, t]`` the expected return before token ``t + 1`` is sampled, where ``mask``.

        ``ids`` and ``mask`` have shape [B, T]; elsewhere the values are 0.
        """
        predicted = mask[:, 1:]
        hidden = _hidden(self.base, ids, predicted, self._dtype)
        values = torch.zeros(predicted.shape, device=ids.device)
        return values.masked_scatter(predicted, self.head(hidden.float())[:, 0])


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the transformer layers of ``model``, with or without a head."""
    untyped: Any = model
    layers: nn.ModuleList = untyped.get_decoder().layers
    return layers


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Make ``model`` compute its layers again in the backward pass instead of keeping their activations."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in decoder_layers(model):
        # Transformers does so in training mode alone. Only the layer itself is put into it: its parts' dropout, if
        # the model has any, stays off, because old and new logprobs have to be of the same function.
        layer.training = True


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each layer of ``model`` in place: one program for all layers and for batches of any shape."""
    for layer in decoder_layers(model):
        layer.compile(dynamic=True)


def token_stats(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, *, dtype: torch.dtype = torch.bfloat16
) -> TokenStats:
    """Return logprob and entropy of each token where ``mask``; ``ids`` and ``mask`` have shape [B, T].

    ``dtype`` is that of the matrix products, which only a model in float32 needs to be told: bfloat16 or float32. What
    comes after the last of them is float32. Rows are padded on the right: attention is causal, so no token sees it.
    """
    untyped: Any = model
    predicted = mask[:, 1:]
    hidden = _hidden(untyped.base_model, ids, predicted, dtype)
    head = untyped.lm_head
    weight = head.whole_weight() if isinstance(head, LoraLinear) else head.weight
    logprobs, entropy = chosen_stats(
        hidden,
        ids[:, 1:][predicted],
        weight,
        head.bias,
        dtype=dtype if weight.dtype == torch.float32 else weight.dtype,
        chunk_tokens=min(CHUNK_TOKENS, max(1, CPU_LOGITS // len(weight))) if ids.device.type == "cpu" else CHUNK_TOKENS,
    )
    zeros = torch.zeros(predicted.shape, device=ids.device)
    return TokenStats(zeros.masked_scatter(predicted, logprobs), zeros.masked_scatter(predicted, entropy))


def _hidden(base: PreTrainedModel, ids: torch.Tensor, predicted: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the last layer's output [n, H] at the positions before those of ``ids`` [B, T] that are ``predicted``.

    ``predicted`` [B, T-1] belongs to ``ids[:, 1:]``.
    """
    untyped: Any = base
    with _autocast(ids.device, dtype):
        if untyped.config._attn_implementation != CAUSAL_BLOCKS:
            whole: torch.Tensor = untyped(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
            return whole[predicted]
        packed = pack(ids[:, :-1], predicted)
        row: torch.Tensor = untyped(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packing=packed.packing
        ).last_hidden_state
        return row[0, packed.at]


def _on(model: PreTrainedModel, device: torch.device, *, whole: bool) -> PreTrainedModel:
    if device.type == "cpu" and model.config.model_type in _CAUSAL:
        model.set_attn_implementation(CAUSAL_BLOCKS)
    if whole:
        model.to(device)  # type: ignore[arg-type]
    return model


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
