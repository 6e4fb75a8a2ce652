"""A probe of an engine whose weights were replaced: does it say something, and from probabilities that are numbers?"""

import asyncio
import math
from contextlib import aclosing
from typing import Final

from searchr1.engines.base import Engine, SamplingParams
from searchr1.errors import EngineError
from searchr1.loop.types import TokenIds

_WITHIN_S: Final = 60.0


async def probe(engine: Engine, prompt_ids: TokenIds, *, num_tokens: int, session: str, name: str) -> None:
    """Raise ``EngineError``, which calls the engine by ``name``, unless it goes on greedily with finite logprobs."""
    params = SamplingParams(max_tokens=num_tokens, temperature=0.0, logprobs=True)
    ids: list[int] = []
    logprobs: list[float] = []
    try:
        async with (
            asyncio.timeout(_WITHIN_S),
            aclosing(engine.generate(prompt_ids, params, session=session)) as chunks,
        ):
            async for chunk in chunks:
                ids += chunk.token_ids
                logprobs += chunk.logprobs or ()
    except TimeoutError as error:
        raise EngineError(f"{name} said nothing within {_WITHIN_S:g} s") from error
    if not ids or not all(map(math.isfinite, logprobs)):
        raise EngineError(f"{name} sampled {len(ids)} tokens, with logprobs {logprobs}")
