"""A starting point that can already copy: a few attention heads of a fresh model are set up as an induction circuit.

Copying a name that was never seen takes two heads in a row (Olsson et al., 2022): one that tells every position which
token came just before it, and a later one that finds where the present token came before and reads what followed. From
random weights a small model needs most of a short training to find this pair. The biases and rotary positions of Qwen2
can express it exactly, so it is written down here, and training refines it. In the spirit of mimetic initialisation
(Trockman and Kolter, 2023).
"""

from typing import cast

import torch
from torch import nn
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from searchr1.errors import ConfigurationError

EMBEDDING_STD = 0.1
PREVIOUS_BIAS = (9.0, 3.0)
"""Biases of query and key on fast and slow rotary pairs; their products peak at one distance."""
NUM_FAST_PAIRS = 10
NUM_SHIFTS = 2
"""Heads of layer 0 that look one, two, … tokens back."""
NUM_MATCH_PAIRS = (17, 3)
"""Slowest rotary pairs, on which the induction head compares the last token and the one before, at any distance."""
MATCH_GAIN = 2.5
PREVIOUS_GAIN = 0.12
RECENT_HEADS = (1, 2)
"""Heads of layer 1 and above that start out looking at the last few dozen tokens, most at the nearest."""
RECENT_PAIRS = slice(6, 14)
RECENT_BIAS = 2.2
COPY_GAIN = (2.0, 0.4)
"""Of the induction head, and of all others."""


@torch.no_grad()
def start_with_induction(model: Qwen2ForCausalLM, *, seed: int) -> None:
    """Overwrite the embedding and parts of the attention layers of a freshly built ``model``, in place.

    Layer 0, heads 0 and 1: look one and two tokens back. Layer 1, head 0: look where these two came before. From layer
    1 on, every head writes down what it reads, so that what is left to learn is where to look.

    Raises:
        ConfigurationError: fewer than two layers or heads, or heads too small for the rotary pairs that this uses.
    """
    if (
        len(model.model.layers) < 2
        or model.config.num_attention_heads < 2
        or cast(Qwen2Attention, model.model.layers[0].self_attn).head_dim < 2 * sum(NUM_MATCH_PAIRS)
    ):
        raise ConfigurationError("starting with induction needs two layers, two heads and a head size of 40 or more")
    random = torch.Generator().manual_seed(seed)
    first, *others = (cast(Qwen2Attention, layer.self_attn) for layer in model.model.layers)
    hidden, size = model.config.hidden_size, first.head_dim
    theta = cast(dict[str, float], model.config.rope_parameters)["rope_theta"]
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD, generator=random)

    read = _orthonormal(hidden, random)[:size]
    shifts = [_orthonormal(hidden, random) for _ in range(NUM_SHIFTS)]
    for number, shift in enumerate(shifts):
        head = slice(number * size, (number + 1) * size)
        look_back(first, head, distance=number + 1, theta=theta)
        first.v_proj.weight[head] = read
        first.o_proj.weight[:, head] = PREVIOUS_GAIN * shift @ read.T

    for layer in others:
        basis = _orthonormal(hidden, random)
        layer.v_proj.weight.copy_(basis)
        layer.o_proj.weight.copy_(COPY_GAIN[1] * basis.T)
        for number in RECENT_HEADS:
            if number >= model.config.num_attention_heads:
                continue
            _prefer_recent(layer, slice(number * size, (number + 1) * size))
    induction = others[0]
    induction.o_proj.weight[:, :size] *= COPY_GAIN[0] / COPY_GAIN[1]
    one, two = NUM_MATCH_PAIRS
    pairs = size // 2
    last = _on_pairs(read, slice(pairs - one, pairs))
    before = _on_pairs(read, slice(pairs - one - two, pairs - one))
    induction.q_proj.weight[:size] = MATCH_GAIN * (last + before @ shifts[0].T)
    induction.k_proj.weight[:size] = MATCH_GAIN * (last @ shifts[0].T + before @ shifts[1].T)


def _on_pairs(rows: torch.Tensor, pairs: slice) -> torch.Tensor:
    """Place as many ``rows`` as fit onto the two halves of these rotary ``pairs``; the rest of the head stays zero."""
    placed = torch.zeros_like(rows)
    half = len(rows) // 2
    placed[:half][pairs] = rows[:half][pairs]
    placed[half:][pairs] = rows[half:][pairs]
    return placed


def look_back(attention: Qwen2Attention, head: slice, *, distance: int, theta: float) -> None:
    """Make one head attend to the token ``distance`` before, by biases that rotary positions turn against each other.

    The score at a distance is a sum of cosines, one per rotary pair, that are all at their peak at ``distance`` only.
    """
    pairs = attention.head_dim // 2
    angles = distance * theta ** (-torch.arange(pairs) / pairs)
    fast, slow = PREVIOUS_BIAS
    size = torch.where(torch.arange(pairs) < NUM_FAST_PAIRS, fast, slow)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[head] = 0.0
    attention.k_proj.bias[head] = torch.cat([size, torch.zeros(pairs)])
    attention.q_proj.bias[head] = torch.cat([size * torch.cos(angles), -size * torch.sin(angles)])


def _prefer_recent(attention: Qwen2Attention, head: slice) -> None:
    """Add biases whose score falls with the distance, by about four nats over a hundred tokens."""
    bias = torch.zeros(attention.head_dim)
    bias[RECENT_PAIRS] = RECENT_BIAS
    attention.q_proj.bias[head] += bias
    attention.k_proj.bias[head] += bias


def _orthonormal(size: int, random: torch.Generator) -> torch.Tensor:
    q: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=random)).Q
    return q
