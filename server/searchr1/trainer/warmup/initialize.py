"""Weights of a fresh model that can already copy: some attention heads are set up as an induction circuit.

Copying a name or a sentence that was never seen takes two heads in a row (Olsson et al., 2022): one that tells every
position which tokens came just before it, and a later one that finds where the present tokens came before and reads
what followed. From random weights a small model needs most of a short training to find this pair for a single token,
and several tokens, which tell passages apart that share a name, much longer. The biases and rotary positions of Qwen2
can express it exactly, so it is written down here, and training refines it. In the spirit of mimetic initialization
(Trockman and Kolter, 2023).

The residual dimensions of the start, in this order: a code of each token, the rest of its embedding, and the codes of
the tokens one, two, … eight before it, which the embedding leaves at zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from searchr1.errors import ConfigurationError

EMBEDDING_STD = 0.1
CODE_SIZES = (32, 32, 12, 12, 12, 12, 12, 12, 12)
"""Dimensions by which a token is told from others: the present one, the one before it, and so on."""
MIN_HEAD_SIZE = 64
MIN_ROPE_THETA = 1e10
"""Enough slow pairs to compare four codes need both."""
NUM_NEAR = 4
"""Heads of layer 0 that look one, two, … tokens back; a head of layer 1 looks as far again, at what these wrote."""
LOOK_BACK_BIAS = (9.0, 3.0)
"""Biases of query and key on fast rotary pairs and on all others; their products peak at one distance."""
FAST = 0.02
"""Radians per token from which a rotary pair tells one distance from the next."""
SLOW = 0.006
"""Radians per token up to which a rotary pair compares contents at any distance that matters."""
RECENT_HEADS = (1, 2)
"""Heads of layer 1 and above that start out looking at the last few dozen tokens, unless they get another task."""
RECENT = (0.003, 0.08)
"""Radians per token of the pairs that prefer the last few dozen tokens."""
RECENT_BIAS = 6.2
"""Bias of these pairs together: about four nats over a hundred tokens."""


@dataclass(frozen=True, slots=True)
class Match:
    """A head that attends to what followed the present tokens before."""

    sizes: Sequence[int]
    """Dimensions of the present token's code, of the one before it, … that are compared."""
    gains: Sequence[float]
    """Weight of each in queries and keys."""
    copies: float
    """Size of what it adds to the embedding that it predicts, in multiples of an embedding."""


_FOUR = (12, 12, 12, 12)
_FOUR_GAINS = (2.8, 2.2, 2.2, 2.2)
MATCHES = (
    (2, 0, Match((6,) * 8, (3.6,) + (2.8,) * 7, 8.0)),
    (2, 1, Match(_FOUR, _FOUR_GAINS, 2.0)),
    (2, 2, Match((32, 12), (2.5, 1.2), 8.0)),
    (2, 3, Match(_FOUR, _FOUR_GAINS, 2.0)),
    (3, 0, Match(_FOUR, _FOUR_GAINS, 2.0)),
    (4, 0, Match(_FOUR, _FOUR_GAINS, 2.0)),
)
"""The heads that match, by layer and head. Many tokens tell passages apart, few find a name that stands in other words
than before. None is in layer 1: what it copied would be so large beside the codes that the next layer's norm would
shrink these."""
OTHERS_COPY = 0.4
"""Share of what they read that all other heads of these layers add."""
MLP_SCALE = 0.5
"""The feed-forward layers' outputs, beside those of a fresh model: less noise over the codes."""


@torch.no_grad()
def start_with_induction(model: Qwen2ForCausalLM, *, seed: int) -> None:
    """Overwrite the embedding and the attention layers of a freshly built ``model``, in place.

    Raises:
        ConfigurationError: it has fewer than three layers, or is too small for the heads that look back.
    """
    layers = [cast(Qwen2Attention, layer.self_attn) for layer in model.model.layers]
    theta = cast(dict[str, float], model.config.rope_parameters)["rope_theta"]
    hidden, heads = model.config.hidden_size, model.config.num_attention_heads
    if len(layers) < 3 or heads < NUM_NEAR or layers[0].head_dim < MIN_HEAD_SIZE or theta < MIN_ROPE_THETA:
        raise ConfigurationError(
            f"starting with induction needs three layers, {NUM_NEAR} heads of {MIN_HEAD_SIZE} or more, and a rotary "
            f"base of {MIN_ROPE_THETA:g} or more"
        )
    random = torch.Generator().manual_seed(seed)
    layout = _Layout(hidden)
    _embed(model.model.embed_tokens.weight, layout, random)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.mul_(MLP_SCALE)
    for attention in layers[1:]:
        basis = _orthonormal(hidden, random)
        attention.v_proj.weight.copy_(basis)
        attention.o_proj.weight.copy_(OTHERS_COPY * EMBEDDING_STD * basis.T)
        for number in RECENT_HEADS:
            _prefer_recent(attention, _head(attention, number), theta)
    _look_near(layers[0], layout, theta)
    _look_far(layers[1], layout, theta)
    for number, head, match in MATCHES:
        if number < len(layers):
            _set_match(layers[number], head, match, layout, theta, random)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of the residual dimensions."""

    hidden: int

    @property
    def embedding(self) -> slice:
        return slice(0, self.hidden - sum(CODE_SIZES[1:]))

    def code(self, back: int) -> slice:
        """Return the dimensions of the code of the token ``back`` before; 0 is the present one's."""
        if back == 0:
            return slice(0, CODE_SIZES[0])
        start = self.hidden - sum(CODE_SIZES[back:])
        return slice(start, start + CODE_SIZES[back])

    def scale(self, num_codes: int) -> float:
        """Return the RMS of a residual vector whose embedding and first ``num_codes`` codes are set, all else 0."""
        filled = self.embedding.stop + sum(CODE_SIZES[1 : num_codes + 1])
        return EMBEDDING_STD * float((filled / self.hidden) ** 0.5)


def _embed(weight: torch.Tensor, layout: _Layout, random: torch.Generator) -> None:
    """Fill in random embeddings whose codes all have the same length, part by part, so that all matches score alike."""
    weight.zero_()
    weight[:, layout.embedding] = torch.randn(len(weight), layout.embedding.stop, generator=random)
    start = 0
    for size in (6, 6, CODE_SIZES[0] - 12):
        part = weight[:, start : start + size]
        part *= size**0.5 / part.norm(dim=-1, keepdim=True)
        start += size
    weight *= EMBEDDING_STD


def _look_near(attention: Qwen2Attention, layout: _Layout, theta: float) -> None:
    for number in range(NUM_NEAR):
        head = _head(attention, number)
        look_back(attention, head, distance=number + 1, theta=theta)
        _copy_dimensions(attention, head, [(layout.code(0), layout.code(number + 1))], layout.scale(0))


def _look_far(attention: Qwen2Attention, layout: _Layout, theta: float) -> None:
    head = _head(attention, 1)
    look_back(attention, head, distance=NUM_NEAR, theta=theta)
    moves = [(layout.code(back), layout.code(back + NUM_NEAR)) for back in range(1, NUM_NEAR + 1)]
    _copy_dimensions(attention, head, moves, layout.scale(NUM_NEAR))


def _copy_dimensions(
    attention: Qwen2Attention, head: slice, moves: Sequence[tuple[slice, slice]], scale: float
) -> None:
    """Make ``head`` write some residual dimensions of what it reads into others, as many as fit in each."""
    attention.v_proj.weight[head] = 0.0
    attention.o_proj.weight[:, head] = 0.0
    place = head.start
    for source, target in moves:
        for offset in range(min(source.stop - source.start, target.stop - target.start)):
            attention.v_proj.weight[place, source.start + offset] = 1.0
            attention.o_proj.weight[target.start + offset, place] = scale
            place += 1


def _set_match(
    attention: Qwen2Attention, number: int, match: Match, layout: _Layout, theta: float, random: torch.Generator
) -> None:
    head = _head(attention, number)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[head] = 0.0
        projection.bias[head] = 0.0
    pairs = attention.head_dim // 2
    places = [pair + half for pair in reversed(_pairs(pairs, theta, 0.0, SLOW)) for half in (0, pairs)]
    for back, (size, gain) in enumerate(zip(match.sizes, match.gains, strict=True)):
        for offset in range(size):
            place = head.start + places.pop(0)
            attention.q_proj.weight[place, layout.code(back).start + offset] = gain
            attention.k_proj.weight[place, layout.code(back + 1).start + offset] = gain
    read = _orthonormal(layout.embedding.stop, random)[: attention.head_dim]
    attention.v_proj.weight[head] = 0.0
    attention.v_proj.weight[head, layout.embedding] = read
    attention.o_proj.weight[:, head] = 0.0
    attention.o_proj.weight[layout.embedding, head] = match.copies * EMBEDDING_STD * read.T


def look_back(attention: Qwen2Attention, head: slice, *, distance: int, theta: float) -> None:
    """Make one head attend to the token ``distance`` before, by biases that rotary positions turn against each other.

    The score at a distance is a sum of cosines, one per rotary pair, that are all at their peak at ``distance`` only.
    """
    pairs = attention.head_dim // 2
    angles = distance * theta ** (-torch.arange(pairs) / pairs)
    fast, slow = LOOK_BACK_BIAS
    size = torch.full((pairs,), slow)
    size[_pairs(pairs, theta, FAST, torch.inf)] = fast
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[head] = 0.0
    attention.k_proj.bias[head] = torch.cat([size, torch.zeros(pairs)])
    attention.q_proj.bias[head] = torch.cat([size * torch.cos(angles), -size * torch.sin(angles)])


def _prefer_recent(attention: Qwen2Attention, head: slice, theta: float) -> None:
    """Add biases whose score falls with the distance."""
    chosen = _pairs(attention.head_dim // 2, theta, *RECENT)
    bias = torch.zeros(attention.head_dim)
    bias[chosen] = RECENT_BIAS / len(chosen) ** 0.5
    attention.q_proj.bias[head] += bias
    attention.k_proj.bias[head] += bias


def _pairs(pairs: int, theta: float, least: float, most: float) -> list[int]:
    """Return rotary pairs that turn by more than ``least`` and up to ``most`` radians per token, the fastest first."""
    return [pair for pair in range(pairs) if least < theta ** (-pair / pairs) <= most]


def _head(attention: Qwen2Attention, number: int) -> slice:
    return slice(number * attention.head_dim, (number + 1) * attention.head_dim)


def _orthonormal(size: int, random: torch.Generator) -> torch.Tensor:
    q: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=random)).Q
    return q
