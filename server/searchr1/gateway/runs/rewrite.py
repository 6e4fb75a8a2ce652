"""Rewriting: a conversation's last message as a question that stands for itself, by one short completion."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import msgspec

from searchr1.engines.base import Engine, SamplingParams
from searchr1.engines.resume import UnbrokenCompletion
from searchr1.engines.retry_budget import RetryBudget
from searchr1.errors import ConfigurationError, EngineError
from searchr1.loop.conversation import Turn
from searchr1.settings import Settings
from searchr1.tokenizer import ReservedTextError, Tokenizer
from searchr1.trace_context import TRACE_HEADERS
from searchr1.turns import Turns

MAX_TOKENS = 160
"""Tokens of a rewritten question, at most."""
MAX_CHARS = 600
_MAX_ANSWER_BYTES = 262_144
_MAX_TOLD = 1_000_000
"""Tokens that another server's ``usage`` is believed to have cost, at most."""
PROMPT = (
    "Rewrite the last message of the conversation as one question that can be understood without the conversation. "
    "Name what it refers to. Keep its language. If it already can be understood, repeat it. "
    "Write the question alone, on one line.\n\n{conversation}\n\nLast message: {question}\n\nRewritten question:"
)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_LABEL = re.compile(r"^(?:rewritten |standalone )?question: *", re.IGNORECASE)


class RewriteError(Exception):
    """A conversation was not rewritten; ``str()`` says why, for the log."""


Write = Callable[[Turns, Callable[[], float]], Awaitable[str]]
"""Waits for its turn, then writes; the second argument returns the seconds left. Raises ``RewriteError``."""


@dataclass(slots=True)
class TokenCounts:
    """Tokens that a rewriting has taken so far, which count for the caller's key."""

    read: int = 0
    sampled: int = 0


@dataclass(frozen=True, slots=True)
class Rewriting:
    """One rewriting before it begins: how it is written, and what it takes of the engine while it is."""

    write: Write
    num_ids: int = 0
    """Length of its prompt in tokens; 0 where the engine does not write it."""
    max_tokens: int = 0
    session: str = ""
    """The name by which the engine knows it."""
    taken: TokenCounts = field(default_factory=TokenCounts)
    """It grows while it is written, and stands whether that ends well or not."""


class Rewriter(Protocol):
    """A source of rewritten questions."""

    def prepare(self, turns: Sequence[Turn], *, cache_salt: str | None = None) -> Rewriting:
        """Return how the last of ``turns``, none of them an instruction, becomes a question that stands for itself.

        What is written is not checked yet. Raises ``RewriteError``.
        """
        ...


class RulesRewriter:
    """Rewrites what is asked of the demo's world, by rules."""

    def prepare(self, turns: Sequence[Turn], *, cache_salt: str | None = None) -> Rewriting:
        """See ``Rewriter``. A message that the rules don't understand stays as it is."""

        async def write(seat: Turns, left_s: Callable[[], float]) -> str:
            from searchr1.demo.follow_ups import standalone  # Other gateways have no use for the demo's wordings.

            await seat.begin(0)
            # The first one loads the world, which takes a second.
            return await asyncio.to_thread(standalone, turns)

        return Rewriting(write)


class EngineRewriter:
    """Rewrites with the model that is served."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, retries: RetryBudget) -> None:
        self._engine, self._tokenizer, self._retries = engine, tokenizer, retries

    def prepare(self, turns: Sequence[Turn], *, cache_salt: str | None = None) -> Rewriting:
        """See ``Rewriter``. The completion is aborted after its first line."""
        try:
            ids = tuple(self._tokenizer.encode_prompt(self._tokenizer.render(_prompt(turns))))
        except (ReservedTextError, ConfigurationError) as error:
            raise _not_written(error) from error
        session, taken = f"rewrite_{uuid.uuid4().hex}", TokenCounts()
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, cache_salt=cache_salt)

        async def write(seat: Turns, left_s: Callable[[], float]) -> str:
            priority = await seat.begin(len(ids))
            taken.read = len(ids)
            completion = UnbrokenCompletion(
                self._engine,
                ids,
                params,
                session=session,
                priority=priority,
                decode=self._tokenizer.decode,
                left_s=left_s,
                budget=self._retries,
                on_break=seat.lost,
            )
            try:
                return await _first_line(completion, taken)
            except EngineError as error:
                raise _not_written(error) from error

        return Rewriting(write, num_ids=len(ids), max_tokens=MAX_TOKENS, session=session, taken=taken)


def _not_written(error: Exception) -> RewriteError:
    return RewriteError(f"the served model did not rewrite: {error}")


async def _first_line(completion: UnbrokenCompletion, taken: TokenCounts) -> str:
    text = ""
    async with aclosing(completion.chunks()) as chunks:
        async for chunk in chunks:
            text += chunk.text
            taken.sampled += len(chunk.token_ids)
            if "\n" in text.strip() and "<think>" not in text:
                break
    return text


class HttpRewriter:
    """Rewrites with any server that speaks OpenAI's chat completions, at ``url``."""

    def __init__(self, url: str, model: str, http: aiohttp.ClientSession) -> None:
        base = url.rstrip("/")
        self._url = f"{base}/chat/completions" if re.search(r"/v\d+\w*$", base) else f"{base}/v1/chat/completions"
        self._model, self._http = model, http

    def prepare(self, turns: Sequence[Turn], *, cache_salt: str | None = None) -> Rewriting:
        """See ``Rewriter``. The tokens that it has taken are what the server's ``usage`` tells."""
        taken = TokenCounts()

        async def write(seat: Turns, left_s: Callable[[], float]) -> str:
            await seat.begin(0)
            answer = await self._ask(_prompt(turns))
            taken.read, taken.sampled = (_told(answer.usage, name) for name in ("prompt_tokens", "completion_tokens"))
            return _content(answer)

        return Rewriting(write, taken=taken)

    async def _ask(self, prompt: str) -> "_Answer":
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
        try:
            headers = TRACE_HEADERS.get()
            async with self._http.post(self._url, json=body, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise RewriteError(f"the rewriting server answered {response.status}")
                raw = await response.content.read(_MAX_ANSWER_BYTES)
                return _read(raw)
        except (aiohttp.ClientError, OSError) as error:
            raise RewriteError(f"the rewriting server can't be reached: {type(error).__name__}") from error


def checked(written: str, dialogue: Sequence[Turn], *, reserved: Sequence[str]) -> str:
    """Return what was written for ``dialogue`` as a question of one line.

    Raises:
        RewriteError: it is no such question.
    """
    return written if written == dialogue[-1].text else _question_in(written, reserved)


@asynccontextmanager
async def open_rewriter(
    settings: Settings, engine: Engine, tokenizer: Tokenizer, retries: RetryBudget
) -> AsyncIterator[Rewriter | None]:
    """Open the rewriter that ``settings`` ask for; None where conversations are not rewritten."""
    if settings.conversation != "rewrite":
        yield None
    elif settings.rewriter == "rules":
        yield RulesRewriter()
    elif settings.rewrite_url is None:
        yield EngineRewriter(engine, tokenizer, retries)
    else:
        key = settings.rewrite_api_key
        headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            yield HttpRewriter(settings.rewrite_url, settings.rewrite_model or "", http)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: Any = None


def _prompt(turns: Sequence[Turn]) -> str:
    earlier = "\n".join(f"{turn.role}: {turn.text.strip()}" for turn in turns[:-1] if turn.text.strip())
    return PROMPT.replace("{conversation}", earlier).replace("{question}", turns[-1].text.strip())


def _read(raw: bytes) -> _Answer:
    try:
        return msgspec.json.decode(raw, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RewriteError("the rewriting server's answer is no chat completion") from error


def _told(usage: Any, name: str) -> int:
    """Return a count of an answer's ``usage``; 0 where it does not tell."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return min(max(count, 0), _MAX_TOLD) if isinstance(count, int) else 0


def _content(answer: _Answer) -> str:
    if not answer.choices or answer.choices[0].message.content is None:
        raise RewriteError("the rewriting server's answer is empty")
    return answer.choices[0].message.content


def _question_in(text: str, reserved: Sequence[str]) -> str:
    lines = _THOUGHT.sub("", text).strip().splitlines()
    question = _LABEL.sub("", lines[0].strip()).strip() if lines else ""
    if len(question) > 1 and question[0] == question[-1] == '"':
        question = question[1:-1].strip()
    if not any(c.isalnum() for c in question):
        raise RewriteError("what was written is empty")
    if len(question) > MAX_CHARS:
        raise RewriteError(f"what was written has more than {MAX_CHARS} characters")
    if any(token in question for token in reserved) or not question.isprintable():
        raise RewriteError("what was written holds reserved text")
    return question
