"""Rewriting: a conversation's last message as a question that stands for itself, by one short completion."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import aiohttp
import msgspec

from searchr1.engines.base import Engine, SamplingParams
from searchr1.errors import ConfigurationError, EngineError
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn
from searchr1.settings import Settings
from searchr1.tokenizer import ReservedTextError, Tokenizer

MAX_TOKENS = 160
"""Tokens of a rewritten question, at most."""
MAX_CHARS = 600
_MAX_ANSWER_BYTES = 262_144
PROMPT = (
    "Rewrite the last message of the conversation as one question that can be understood without the conversation. "
    "Name what it refers to. Keep its language. If it already can be understood, repeat it. "
    "Write the question alone, on one line.\n\n{conversation}\n\nLast message: {question}\n\nRewritten question:"
)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_LABEL = re.compile(r"^(?:rewritten |standalone )?question: *", re.IGNORECASE)


class RewriteError(Exception):
    """A conversation was not rewritten; ``str()`` says why, for the log."""


class Rewriter(Protocol):
    """A source of rewritten questions."""

    async def rewrite(self, turns: Sequence[Turn]) -> str:
        """Return the last of ``turns``, none of them an instruction, as a question that stands for itself.

        What comes back is not checked yet. Raises ``RewriteError``.
        """
        ...


class RulesRewriter:
    """Rewrites what is asked of the demo's world, by rules."""

    async def rewrite(self, turns: Sequence[Turn]) -> str:
        """See ``Rewriter``. A message that the rules don't understand stays as it is."""
        from searchr1.demo.follow_ups import standalone  # Other gateways have no use for the demo's wordings.

        # The first one loads the world, which takes a second.
        return await asyncio.to_thread(standalone, turns)


class EngineRewriter:
    """Rewrites with the model that is served."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine, self._tokenizer = engine, tokenizer

    async def rewrite(self, turns: Sequence[Turn]) -> str:
        """See ``Rewriter``. The completion is aborted after its first line."""
        prompt = _prompt(turns)
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0)
        text = ""
        try:
            ids = tuple(self._tokenizer.encode_prompt(self._tokenizer.render(prompt)))
            async with aclosing(self._engine.generate(ids, params, session=f"rewrite_{uuid.uuid4().hex}")) as chunks:
                async for chunk in chunks:
                    text += chunk.text
                    if "\n" in text.strip() and "<think>" not in text:
                        break
        except (EngineError, ReservedTextError, ConfigurationError) as error:
            raise RewriteError(f"the served model did not rewrite: {error}") from error
        return text


class HttpRewriter:
    """Rewrites with any server that speaks OpenAI's chat completions, at ``url``."""

    def __init__(self, url: str, model: str, http: aiohttp.ClientSession) -> None:
        base = url.rstrip("/")
        self._url = f"{base}/chat/completions" if re.search(r"/v\d+\w*$", base) else f"{base}/v1/chat/completions"
        self._model, self._http = model, http

    async def rewrite(self, turns: Sequence[Turn]) -> str:
        """See ``Rewriter``."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": _prompt(turns)}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
        try:
            async with self._http.post(self._url, json=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise RewriteError(f"the rewriting server answered {response.status}")
                raw = await response.content.read(_MAX_ANSWER_BYTES)
                return _content(raw)
        except (aiohttp.ClientError, OSError) as error:
            raise RewriteError(f"the rewriting server can't be reached: {type(error).__name__}") from error


async def rewritten(turns: Sequence[Turn], rewriter: Rewriter, *, reserved: Sequence[str]) -> str:
    """Return the last of ``turns``, which are no instructions, as a question that stands for itself.

    Raises:
        RewriteError: the rewriter failed, or what it wrote is no question of one line.
    """
    dialogue = [turn for turn in turns if turn.role not in INSTRUCTION_ROLES]
    written = await rewriter.rewrite(dialogue)
    return written if written == dialogue[-1].text else _checked(written, reserved)


@asynccontextmanager
async def open_rewriter(settings: Settings, engine: Engine, tokenizer: Tokenizer) -> AsyncIterator[Rewriter | None]:
    """Open the rewriter that ``settings`` ask for; None where conversations are not rewritten."""
    if settings.conversation != "rewrite":
        yield None
    elif settings.rewriter == "rules":
        yield RulesRewriter()
    elif settings.rewrite_url is None:
        yield EngineRewriter(engine, tokenizer)
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


def _prompt(turns: Sequence[Turn]) -> str:
    earlier = "\n".join(f"{turn.role}: {turn.text.strip()}" for turn in turns[:-1] if turn.text.strip())
    return PROMPT.replace("{conversation}", earlier).replace("{question}", turns[-1].text.strip())


def _content(raw: bytes) -> str:
    try:
        answer = msgspec.json.decode(raw, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RewriteError("the rewriting server's answer is no chat completion") from error
    if not answer.choices or answer.choices[0].message.content is None:
        raise RewriteError("the rewriting server's answer is empty")
    return answer.choices[0].message.content


def _checked(text: str, reserved: Sequence[str]) -> str:
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
