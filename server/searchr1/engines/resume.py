"""Completions that outlive their engine: one that breaks off is asked for again, and goes on where it was.

The new request's prompt is the old one and the ids so far, its ``max_tokens`` what is left. Whoever reads the
completion sees one stream, without a repeated or a missing character, and a greedy one has the ids of an undisturbed
one. For that:

* **Half characters.** A prompt that ends inside a character makes vLLM's detokenizer repeat the whole prompt's text. So
  a completion is taken up after the last id whose text has come whole; later ids are dropped. They have not been given
  on: ids leave one piece behind their text (``rest`` holds them).
* **Stop strings.** The engine looks for them in the new text alone. One that is cut in two is found here, and ids after
  the one that completes it are dropped, as vLLM does.
* **Seeds.** The engine's random numbers start anew with a request, so each one gets a seed of its own, made from the
  completion's and the number of ids so far. Thus no noise is used twice, but a seeded completion that broke off differs
  from an undisturbed one.
* **Penalties.** ``frequency_penalty`` and ``presence_penalty`` count a completion's tokens, and those before the break
  are part of the prompt then: they are not counted any more.

A completion that has nothing to lose (nothing has come, and it is a run's first) is given up after a few tries, so that
its client can go elsewhere. Any other is asked for until its deadline: an engine that restarts is waited for.
"""

import asyncio
import random
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from io import StringIO
from typing import Final

import msgspec

from searchr1.engines.base import Chunk, Engine, SamplingParams
from searchr1.engines.retry_budget import RetryBudget
from searchr1.errors import EngineClosedError, EngineDrainedError, EngineError, EngineUnavailableError
from searchr1.loop.types import UNFINISHED, Decode, FinishReason, TokenIds

_WAITS_S: Final = (0.1, 0.3, 0.9, 2.7, 5.0)
"""Waits before a completion is asked for again, the last one from then on; longer where the engine asks for it."""
_MAX_FIRST_TRIES: Final = 4
"""Times that a completion with nothing to lose is asked for again."""
_LONGEST_FIRST_WAIT_S: Final = 10.0
"""An engine that asks for more is not waited for where there is nothing to lose."""
_REFUSED_WAIT_S: Final = (0.2, 0.8)
"""Wait before the budget is asked again, at least and at most."""
_PATIENCE_S: Final = 600.0
"""Seconds of waiting, without a new id in between, after which a completion without a deadline is given up."""
_SEED_STEP: Final = 0x9E3779B97F4A7C15
_MAX_SEED: Final = 2**63


@dataclass(frozen=True, slots=True)
class Begun:
    """The part of a completion that another process has read, whose text has been given on already."""

    text: str = ""
    ids: TokenIds = ()
    logprobs: tuple[float, ...] = ()


class UnbrokenCompletion:
    """One completion, asked for as often as it takes. Read its ``chunks`` once.

    Args:
        engine, prompt_ids, params, session, priority: what ``Engine.generate`` takes.
        decode: ids to text, as the engine decodes them; without it, a completion is asked for again only while nothing
            of it has come.
        patient: whether there is something to lose even before its first token, such as a run's earlier turns.
        left_s: returns the seconds until the deadline, infinite without one. The caller ends waits at it; none is begun
            that would outlast it, so that the engine's error is what is told.
        budget: what bounds retries.
        on_break: awaited before the rest is asked for, with the number of ids of prompt and completion so far.
        begun: what has come of it before, in another process: its rest is asked for, and ``chunks`` give its ids again
            but not its text.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: TokenIds,
        params: SamplingParams,
        *,
        session: str,
        priority: int = 0,
        decode: Decode | None = None,
        patient: bool = False,
        left_s: Callable[[], float] = lambda: float("inf"),
        budget: RetryBudget,
        on_break: Callable[[int], Awaitable[None]] | None = None,
        begun: Begun = Begun(),
    ) -> None:
        self.finish: FinishReason | None = None
        """Why it ended, once it has."""
        self.num_retries = 0
        """Times that it was asked for again."""
        self.num_resumes = 0
        """Those of them that went on in its middle."""
        self.num_refused = 0
        """Times that the budget had no retry left for it, so that it waited."""
        self._engine, self._prompt_ids, self._params = engine, prompt_ids, params
        self._session, self._priority = session, priority
        self._decode, self._left_s, self._budget = decode, left_s, budget
        self._patient = patient or bool(begun.ids)
        """Whether its end is waited for: always once a token has come, even one that was dropped again."""
        self._on_break = on_break
        # Thousands of these are held at once, token by token.
        self._text = StringIO()
        self._text.write(begun.text)
        self._ids, self._logprobs = array("q", begun.ids), array("d", begun.logprobs)
        self._num_given = 0
        """Ids that have been given on; the others' text may not be whole."""
        self._seam: _Seam | None = None
        self._num_tries, self._waited_s = 0, 0.0
        """Of the time since the last id came."""
        budget.note_completion()

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield the pieces as they come; the last one has ``finish``. Closing it aborts on the engine.

        The ids of a piece may lag behind its text.

        Raises:
            EngineError: the engine failed for good, or there was no time left to try again.
        """
        chunk = None
        if self._text.tell() or self._ids:
            for chunk in self._cut_back(EngineError("ids and text of a completion that was taken up do not agree")):
                yield chunk
        while chunk is None or chunk.finish is None:
            try:
                async with aclosing(self._asked()) as coming:
                    async for chunk in coming:
                        is_aborted = chunk.finish == "abort"
                        if is_aborted:
                            chunk = msgspec.structs.replace(chunk, finish=None)
                        if self._seam is not None:
                            chunk = self._stopped_at(self._seam, chunk)
                        chunk = self._taken(chunk)
                        yield chunk
                        if chunk.finish is not None:
                            return
                        if is_aborted:
                            raise EngineUnavailableError("the engine aborted the completion", passing=True)
                raise EngineUnavailableError("the engine's stream ended without saying why", passing=True)
            except EngineError as error:
                own = await self._ready_again(error)
            for chunk in own:
                yield chunk

    @property
    def text(self) -> str:
        """Its text so far, what it began with included."""
        return self._text.getvalue()

    @property
    def ids(self) -> Sequence[int]:
        """The ids that have come so far. Those from ``num_given`` on may still be dropped for others."""
        return self._ids

    @property
    def logprobs(self) -> Sequence[float]:
        """The logprobs of ``ids``, where they were asked for."""
        return self._logprobs

    @property
    def num_given(self) -> int:
        """Number of the ids that were given on, which stay."""
        return self._num_given

    @property
    def rest(self) -> tuple[TokenIds, tuple[float, ...]]:
        """The ids that have come and were not given on yet, and their logprobs where they were asked for."""
        return tuple(self._ids[self._num_given :]), tuple(self._logprobs[self._num_given :])

    def _asked(self) -> AsyncGenerator[Chunk, None]:
        params, prompt_ids = self._params, self._prompt_ids
        if num_ids := len(self._ids):
            seed = None if params.seed is None else (params.seed + num_ids * _SEED_STEP) % _MAX_SEED
            params = replace(params, max_tokens=params.max_tokens - num_ids, seed=seed)
            prompt_ids = (*prompt_ids, *self._ids)
        return self._engine.generate(prompt_ids, params, session=self._session, priority=self._priority)

    def _taken(self, chunk: Chunk) -> Chunk:
        """Return what is given on of a chunk that has come."""
        # Text that comes is whole up to one of the ids that it comes with, and with it that of all ids before.
        end = len(self._ids) if chunk.text else self._num_given
        self._text.write(chunk.text)
        if chunk.token_ids:
            self._patient = True
            self._ids.extend(chunk.token_ids)
            self._logprobs.extend(chunk.logprobs or ())
            self._num_tries, self._waited_s = 0, 0.0
        if chunk.finish is not None or self._decode is None:
            end = len(self._ids)
        return self._given(chunk.text, end, chunk.finish, chunk.num_cached_tokens)

    def _given(
        self, text: str, end: int, finish: FinishReason | None = None, num_cached_tokens: int | None = None
    ) -> Chunk:
        """Return a chunk of ``text`` with the ids up to ``end`` that were not given on yet."""
        start, self._num_given = self._num_given, end
        self.finish = finish
        logprobs = tuple(self._logprobs[start:end]) if self._params.logprobs else None
        if num_cached_tokens is not None and self.num_resumes:  # Some may be ids of the completion itself.
            num_cached_tokens = min(num_cached_tokens, len(self._prompt_ids))
        return Chunk(text, tuple(self._ids[start:end]), finish, logprobs, num_cached_tokens)

    async def _ready_again(self, error: EngineError) -> list[Chunk]:
        """Return when the rest may be asked for, with chunks that the engine did not send: they come first.

        Where the last of them has ``finish``, there is no rest. Raises ``error`` where to go on makes no sense.
        """
        begun = self._patient
        comes_back = isinstance(error, EngineUnavailableError) and not isinstance(error, EngineClosedError)
        if not error.passing and not (begun and comes_back):
            raise error
        own = self._cut_back(error) if self._ids else []
        if own and own[-1].finish is not None:
            return own
        if not isinstance(error, EngineDrainedError) or self._num_tries:
            await self._wait(error, begun=begun)
        if self._on_break is not None:
            await self._on_break(len(self._prompt_ids) + len(self._ids))
        self._num_tries += 1
        self.num_retries += 1
        self.num_resumes += bool(self._ids)
        return own

    async def _wait(self, error: EngineError, *, begun: bool) -> None:
        """Wait for the engine, and then for the budget. Raises ``error`` where that takes too long."""
        wait_s = max(_WAITS_S[min(self._num_tries, len(_WAITS_S) - 1)], error.retry_after_s or 0.0)
        if not begun and (self._num_tries >= _MAX_FIRST_TRIES or wait_s > _LONGEST_FIRST_WAIT_S):
            raise error
        # Jitter, so that those whom one fault hit do not come back together.
        await self._sleep(wait_s + random.uniform(0.0, min(wait_s / 2, 1.0)), error)
        while not self._budget.try_spend():
            self.num_refused += 1
            self._num_tries += not begun
            if not begun and self._num_tries >= _MAX_FIRST_TRIES:
                raise error
            await self._sleep(random.uniform(*_REFUSED_WAIT_S), error)

    async def _sleep(self, wait_s: float, error: EngineError) -> None:
        self._waited_s += wait_s
        if wait_s > self._left_s() or self._waited_s > _PATIENCE_S:
            raise error
        await asyncio.sleep(wait_s)

    def _cut_back(self, error: EngineError) -> list[Chunk]:
        """Drop the ids whose text is not whole, and return text that they owe, and the end where all had come.

        Raises ``error`` where text and ids can't be brought together.
        """
        if self._decode is None:
            raise error
        text, standing = self.text, len(self._ids)
        while standing and self._spelled(self._ids[:standing]).endswith(UNFINISHED):
            standing -= 1
        spelled = self._spelled(self._ids[:standing])
        if standing < self._num_given or not spelled.startswith(text):
            raise error
        del self._ids[standing:], self._logprobs[standing:]
        own = []
        if owed := spelled[len(text) :]:
            self._text.write(owed)
            own.append(self._given(owed, self._num_given))
        self._seam = _Seam.at_end_of(spelled, self._params.stop)
        stopped = any(stop in spelled for stop in self._params.stop)
        if stopped or len(self._ids) >= self._params.max_tokens:
            own.append(self._given("", len(self._ids), "stop" if stopped else "length"))
        return own

    def _stopped_at(self, seam: "_Seam", chunk: Chunk) -> Chunk:
        """Return ``chunk``, or what of it is before the end of a stop string that began before the break."""
        num_chars = seam.stopped_after(chunk.text)
        if seam.is_past:
            self._seam = None
        if num_chars is None:
            return chunk
        wanted = self._text.tell() + num_chars
        ids = chunk.token_ids
        count = next((n for n in range(len(ids)) if len(self._spelled([*self._ids, *ids[:n]])) >= wanted), len(ids))
        logprobs = None if chunk.logprobs is None else chunk.logprobs[:count]
        return Chunk(chunk.text[:num_chars], ids[:count], "stop", logprobs, chunk.num_cached_tokens)

    def _spelled(self, ids: Sequence[int]) -> str:
        assert self._decode is not None
        spelled, first = self._decode(tuple(ids)), self.text[:1]
        # Some tokenizers drop the space that a text begins with.
        return first + spelled if first.isspace() and spelled and not spelled[0].isspace() else spelled


class _Seam:
    """The text around a break, in which a stop string may stand that the engine can't see."""

    def __init__(self, before: str, stops: tuple[str, ...]) -> None:
        self._text, self._stops = before, stops
        self._break_at = len(before)

    @classmethod
    def at_end_of(cls, text: str, stops: tuple[str, ...]) -> "_Seam | None":
        """Return the seam of a break after ``text``; None where no stop string can be cut in two."""
        num_chars = max(map(len, stops), default=0) - 1
        return cls(text[-num_chars:], stops) if num_chars > 0 else None

    @property
    def is_past(self) -> bool:
        """True once no stop string that began before the break can end any more."""
        return len(self._text) - self._break_at >= max(map(len, self._stops)) - 1

    def stopped_after(self, text: str) -> int | None:
        """Take the next text; return how much of it is before the end of the first stop string across the break."""
        num_before = len(self._text)
        self._text += text
        starts = ((self._text.find(stop), len(stop)) for stop in self._stops)
        ends = [at + length for at, length in starts if 0 <= at < self._break_at]
        return min(ends) - num_before if ends else None
