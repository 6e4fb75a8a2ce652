"""An engine on plain transformers: one sequence at a time, no server. For validation and small tests."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.types import FinishReason, TokenIds
from searchr1.tokenizer import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a character decodes to while its last bytes are still to come."""


class TransformersEngine:
    """Serves an already loaded model. Calls run one after the other, each forward pass in a thread."""

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, *, end_ids: frozenset[int]) -> None:
        self._model, self._tokenizer, self._end_ids = model, tokenizer, end_ids
        self._lock = asyncio.Lock()

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine.generate``. One chunk per token; ``session`` and ``priority`` change nothing here."""
        async with self._lock:
            sequence = _Sequence(self._model, params)
            pending = list(prompt_ids)
            sampled: list[int] = []
            shown = ""
            for count in range(1, params.max_tokens + 1):
                token, logprob = await asyncio.to_thread(sequence.next_token, pending)
                pending = [token]
                sampled.append(token)
                text = self._tokenizer.decode(tuple(sampled))
                text, reason = self._cut(text, token, count, params)
                if reason is None:
                    text = text.removesuffix(UNFINISHED)
                yield Chunk(text[len(shown) :], (token,), reason, (logprob,) if params.logprobs else None)
                if reason is not None:
                    return
                shown = text

    def _cut(self, text: str, token: int, count: int, params: SamplingParams) -> tuple[str, FinishReason | None]:
        ends = [at + len(stop) for stop in params.stop if (at := text.find(stop)) >= 0]
        if ends:
            return text[: min(ends)], "stop"
        if token in self._end_ids:
            return text, "stop"
        return text, "length" if count == params.max_tokens else None


class _Sequence:
    """One completion in progress: the key-value cache and the sampler."""

    def __init__(self, model: PreTrainedModel, params: SamplingParams) -> None:
        self._model, self._params = model, params
        self._cache = DynamicCache()
        self._random = torch.Generator()
        if params.seed is not None:
            self._random.manual_seed(params.seed)
        else:
            self._random.seed()

    @torch.inference_mode()
    def next_token(self, new_ids: list[int]) -> tuple[int, float]:
        """Read ``new_ids`` and sample what follows; return the token and its logprob at temperature 1."""
        device: Any = self._model.device
        autocast = torch.autocast(device.type, torch.bfloat16) if self._model.dtype == torch.float32 else nullcontext()
        with autocast:
            output = self._model(
                input_ids=torch.tensor([new_ids], device=device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits = output.logits[0, -1].float().cpu()
        token = int(logits.argmax()) if self._params.temperature == 0 else self._sample(logits)
        return token, float(logits.log_softmax(-1)[token])

    def _sample(self, logits: torch.Tensor) -> int:
        probabilities, ids = (logits / self._params.temperature).softmax(-1).sort(descending=True)
        outside = probabilities.cumsum(0) - probabilities >= self._params.top_p
        probabilities = probabilities.masked_fill(outside, 0.0)
        return int(ids[torch.multinomial(probabilities, 1, generator=self._random)])
