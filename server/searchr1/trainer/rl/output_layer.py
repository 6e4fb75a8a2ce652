"""Logprobs and entropies out of the output layer, with the logits of a few tokens in memory at a time.

For a large vocabulary the logits are most of a pass's memory, and reading and writing them most of the layer's time. So
they are not kept for the backward pass, which computes them again, chunk by chunk, and their gradient, written by hand,
takes their place.

Shapes: n tokens, H the hidden size, V the vocabulary.
"""

from typing import Any

import torch
from torch.nn.functional import linear


def chosen_stats(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    dtype: torch.dtype,
    chunk_tokens: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logprobs of ``targets`` [n] and the entropies of their distributions, both [n] float32, in nats.

    ``hidden`` [n, H] comes out of the last layer; ``weight`` [V, H] and ``bias`` [V] are the output layer's. The matrix
    products are in ``dtype``, everything after them in float32. The logits of ``chunk_tokens`` are in memory at once.
    """
    stats: Any = _ChosenStats
    found: tuple[torch.Tensor, torch.Tensor] = stats.apply(hidden, targets, weight, bias, dtype, chunk_tokens)
    return found


class _ChosenStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        chunk_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.dtype, ctx.chunk_tokens = dtype, chunk_tokens
        # An entropy that no loss reads has no gradient then, instead of one of zeros.
        ctx.set_materialize_grads(False)
        logprobs, entropies = (torch.empty(len(targets), device=hidden.device) for _ in range(2))
        w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
        for start in range(0, len(targets), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            log_p = _log_softmax(hidden[part].to(dtype), w, b)
            logprobs[part] = log_p.gather(-1, targets[part, None])[:, 0]
            entropies[part] = -(log_p.exp() * log_p).sum(-1)
        ctx.save_for_backward(hidden, targets, weight, bias, entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, targets, weight, bias, entropies = ctx.saved_tensors
        of_logprobs, of_entropies = gradients
        w, b = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        for_hidden = torch.zeros_like(hidden)
        # A CPU's chunks are small and many: a sum in bfloat16 would lose of what each adds. A GPU's are few.
        summed = torch.float32 if w.device.type == "cpu" else w.dtype
        for_weight = torch.zeros_like(w, dtype=summed) if ctx.needs_input_grad[2] else None
        for_bias = torch.zeros_like(b, dtype=summed) if b is not None and ctx.needs_input_grad[3] else None
        for start in range(0, len(targets), ctx.chunk_tokens):
            part = slice(start, start + ctx.chunk_tokens)
            h = hidden[part].to(ctx.dtype)
            log_p = _log_softmax(h, w, b)
            # With g and e the gradients of logprob and entropy H, that of logit j is
            # g (1 where j is the target - p_j) - e p_j (log p_j + H).
            p = log_p.exp()
            if of_entropies is not None:
                scale = log_p.add_(entropies[part, None]).mul_(of_entropies[part, None])
                if of_logprobs is not None:
                    scale.add_(of_logprobs[part, None])
                p.mul_(scale).neg_()
            elif of_logprobs is not None:
                p.mul_(of_logprobs[part, None]).neg_()
            if of_logprobs is not None:
                p.scatter_add_(-1, targets[part, None], of_logprobs[part, None])
            for_logits = p.to(ctx.dtype)
            for_hidden[part] = for_logits @ w
            if for_weight is not None:
                for_weight += for_logits.T @ h
            if for_bias is not None:
                for_bias.add_(for_logits.sum(0))
        return (
            for_hidden,
            None,
            None if for_weight is None else for_weight.to(weight.dtype),
            None if for_bias is None else for_bias.to(bias.dtype),
            None,
            None,
        )


def _log_softmax(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return log probabilities [n, V] float32."""
    return linear(hidden, weight, bias).float().log_softmax(-1)
