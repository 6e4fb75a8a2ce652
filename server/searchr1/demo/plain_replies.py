"""Replies to the demo's plain messages, without the model: it knows nothing but questions about countries and cities.

The rules in ``follow_ups.py`` turn every message that is no question for the demo into one of three. A run of such a
message ends in its first turn, in the words below, as if the model had written them; nothing is sampled for it.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from searchr1.atlas.talk.wordings.chatter import PLAIN_MESSAGES
from searchr1.engines.base import Chunk, Engine, SamplingParams
from searchr1.loop.profiles.base import Profile
from searchr1.loop.types import TokenIds
from searchr1.rollout import render_prompt
from searchr1.tokenizer import Tokenizer


class PlainReplies:
    """An engine that answers the plain messages itself, and asks another one for everything else."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, profile: Profile) -> None:
        self._engine = engine
        self._replies: Mapping[TokenIds, tuple[str, TokenIds]] = {
            tuple(tokenizer.encode_prompt(render_prompt(profile.prompt(message), tokenizer, profile))): (
                text := f"<think> {thought} </think>\n<answer> {reply} </answer>",
                tuple(tokenizer.encode(text)),
            )
            for message, thought, reply in PLAIN_MESSAGES
        }

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion; see ``Engine``."""
        reply = self._replies.get(tuple(prompt_ids))
        if reply is not None:
            text, ids = reply
            yield Chunk(text, ids, "stop", (0.0,) * len(ids) if params.logprobs else None)
            return
        async with aclosing(self._engine.generate(prompt_ids, params, session=session, priority=priority)) as chunks:
            async for chunk in chunks:
                yield chunk
