"""A starting point that can already copy: two attention heads of a fresh model are set up as an induction circuit.

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

EMBEDDING_STD = 0.1
PREVIOUS_BIAS = (9.0, 3.0)
"""Biases of query and key on fast and slow rotary pairs; their products peak at distance one."""
NUM_FAST_PAIRS = 10
NUM_MATCH_PAIRS = 18
"""Slowest rotary pairs, on which the induction head compares tokens, whatever their distance."""
MATCH_GAIN = 2.0
PREVIOUS_GAIN = 0.12
COPY_GAIN = 2.0


@torch.no_grad()
def start_with_induction(model: Qwen2ForCausalLM, *, seed: int) -> None:
    """Overwrite head 0 of the first two layers of a freshly built ``model``, and its embedding, in place."""
    random = torch.Generator().manual_seed(seed)
    first, second = (cast(Qwen2Attention, model.model.layers[i].self_attn) for i in (0, 1))
    hidden, size = model.config.hidden_size, first.head_dim
    theta = cast(dict[str, float], model.config.rope_parameters)["rope_theta"]
    head = slice(0, size)
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD, generator=random)
    basis = _orthonormal(hidden, random)
    read, copied = basis[:size], basis[size : 2 * size]
    shift = _orthonormal(hidden, random)

    _look_back(first, distance=1, theta=theta)
    first.v_proj.weight[head] = read
    first.o_proj.weight[:, head] = PREVIOUS_GAIN * shift @ read.T

    match = torch.zeros(size, hidden)
    slow = torch.arange(size // 2 - NUM_MATCH_PAIRS, size // 2)
    rows = torch.cat([slow, slow + size // 2])
    match[rows] = MATCH_GAIN * read[: 2 * NUM_MATCH_PAIRS]
    second.q_proj.weight[head] = match
    second.k_proj.weight[head] = match @ shift.T
    second.v_proj.weight[head] = copied
    second.o_proj.weight[:, head] = COPY_GAIN * copied.T


def _look_back(attention: Qwen2Attention, *, distance: int, theta: float) -> None:
    """Make head 0 attend to the token ``distance`` before, by biases that the rotary positions turn against each other.

    The score at a distance is a sum of cosines, one per rotary pair, that are all at their peak at ``distance`` only.
    """
    pairs = attention.head_dim // 2
    angles = distance * theta ** (-torch.arange(pairs) / pairs)
    fast, slow = PREVIOUS_BIAS
    size = torch.where(torch.arange(pairs) < NUM_FAST_PAIRS, fast, slow)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[: 2 * pairs] = 0.0
    attention.k_proj.bias[: 2 * pairs] = torch.cat([size, torch.zeros(pairs)])
    attention.q_proj.bias[: 2 * pairs] = torch.cat([size * torch.cos(angles), -size * torch.sin(angles)])


def _orthonormal(size: int, random: torch.Generator) -> torch.Tensor:
    q: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=random)).Q
    return q
