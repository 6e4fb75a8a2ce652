"""Penalties, top-k and min-p on the transformers engine, in vLLM's order and with its meanings."""

import math
from collections.abc import Sequence

import torch

from searchr1.engines.base import UNSHAPED, Shaping
from searchr1.engines.transformers.completion import Completion


@torch.inference_mode()
def shaped(logits: torch.Tensor, sequences: Sequence[Completion]) -> torch.Tensor:
    """Return ``logits``, shape [rows, vocabulary], as the parameters of each row's sequence shape them."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.params.shaping != UNSHAPED]
    if not rows:
        return logits
    logits = logits.clone()
    for row in rows:
        params, ids = sequences[row].params, sequences[row].ids
        _penalize(logits[row], ids, len(sequences[row].prompt_ids), params.shaping)
        _cut(logits[row], params.shaping, params.temperature)
    return logits


def _penalize(logits: torch.Tensor, ids: Sequence[int], num_prompt_ids: int, shaping: Shaping) -> None:
    if shaping.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(ids)), device=logits.device)
        found = logits[seen]
        logits[seen] = torch.where(found > 0, found / shaping.repetition_penalty, found * shaping.repetition_penalty)
    if shaping.frequency_penalty or shaping.presence_penalty:
        sampled = torch.tensor(ids[num_prompt_ids:], dtype=torch.long, device=logits.device)
        counts = torch.bincount(sampled, minlength=len(logits))
        logits.sub_(shaping.frequency_penalty * counts + shaping.presence_penalty * (counts > 0))


def _cut(logits: torch.Tensor, shaping: Shaping, temperature: float) -> None:
    if shaping.min_p > 0:
        # A probability's part of the highest one, at this temperature, is a distance between logits.
        logits[logits < logits.max() + temperature * math.log(shaping.min_p)] = -torch.inf
    if 0 < shaping.top_k < len(logits):
        logits[logits < logits.topk(shaping.top_k).values[-1]] = -torch.inf
