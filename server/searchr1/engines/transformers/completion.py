"""A completion in progress on the transformers engine: its random numbers, its text, and where it ends."""

import asyncio
from dataclasses import dataclass, field

import torch

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.types import UNFINISHED, FinishReason, TokenIds
from searchr1.tokenizer import Tokenizer


@dataclass(slots=True, eq=False)
class Completion:
    """A completion in progress: its tokens, and the text that is in chunks. Not thread-safe but for ``left``."""

    prompt_ids: TokenIds
    params: SamplingParams
    max_tokens: int
    """Tokens of the completion, at most."""
    priority: int
    """Lower ones are admitted first."""
    number: int
    """Order of arrival."""
    out: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    left: bool = False
    """True once nobody listens any more."""
    ids: list[int] = field(init=False)
    """Ids of the prompt and the completion."""
    _uniforms: list[float] = field(init=False)
    _text: str = ""
    _told: int = 0
    """Characters of ``_text`` in earlier chunks."""
    _logprobs: list[float] = field(default_factory=list)
    """Logprobs of the tokens that are in no chunk yet."""
    _before: list[int] = field(default_factory=list)
    """The tokens whose text came last: some tokenizers decode a token by what precedes it."""
    _pending: list[int] = field(default_factory=list)
    """The tokens after those, whose text is unfinished."""

    def __post_init__(self) -> None:
        self.ids = list(self.prompt_ids)
        random = torch.Generator()
        if self.params.seed is None:
            random.seed()
        else:
            random.manual_seed(self.params.seed)
        # All at once: the number of its step alone says which of them a token takes.
        self._uniforms = torch.rand(self.max_tokens, generator=random, dtype=torch.float64).tolist()

    @property
    def last_id(self) -> int:
        """Id that the model reads next."""
        return self.ids[-1]

    @property
    def num_sampled(self) -> int:
        """Tokens sampled so far."""
        return len(self.ids) - len(self.prompt_ids)

    @property
    def longest(self) -> int:
        """Tokens of the prompt and of the longest completion."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def uniform(self) -> float:
        """Random number in [0, 1) that chooses the next token."""
        return self._uniforms[self.num_sampled]

    def add(self, token: int, logprob: float, tokenizer: Tokenizer, end_ids: frozenset[int]) -> Chunk | None:
        """Take a sampled token; return a chunk when one is due."""
        self.ids.append(token)
        self._logprobs.append(logprob)
        finish = self._read(token, tokenizer, end_ids)
        num_new = len(self._logprobs)
        if finish is None and num_new < self.params.stream_interval:
            return None
        logprobs = tuple(self._logprobs) if self.params.logprobs else None
        chunk = Chunk(self._text[self._told :], tuple(self.ids[-num_new:]), finish, logprobs)
        self._told = len(self._text)
        self._logprobs.clear()
        return chunk

    def _read(self, token: int, tokenizer: Tokenizer, end_ids: frozenset[int]) -> FinishReason | None:
        old = len(self._text)
        self._pending.append(token)
        text = tokenizer.decode((*self._before, *self._pending))
        # Bytes that end no character are told with the next one that does, and like in vLLM never if none does.
        if not text.endswith(UNFINISHED):
            self._text += text[len(tokenizer.decode(tuple(self._before))) :]
            self._before, self._pending = self._pending, []
        starts = ((self._text.find(stop, max(0, old + 1 - len(stop))), stop) for stop in self.params.stop)
        ends = [at + len(stop) for at, stop in starts if at >= 0]
        if ends:
            self._text = self._text[: min(ends)]
            return "stop"
        if token in end_ids:
            return "stop"
        return "length" if self.num_sampled == self.max_tokens else None
