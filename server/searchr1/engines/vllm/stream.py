"""One completion's stream, as vLLM's HTTP server writes it: bytes in, chunks out, and nothing taken on trust.

Events are decoded with msgspec, whose schema also checks every token id against the vocabulary, in C.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

from searchr1.engines.base import Chunk
from searchr1.engines.vllm.sse import SseSplitter
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.loop.types import FinishReason, TokenIds

LARGEST_VOCABULARY: Final = 2**24
"""Bound of token ids where the vocabulary is not known; no tokenizer comes near it."""

_FINISH: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length", "abort": "abort"}
_MAX_MESSAGE_CHARS: Final = 300
# The first event repeats the prompt's ids; any event may hold all sampled ids, where the reader was behind.
_LINE_BYTES: Final = 262_144
_LINE_BYTES_PER_ID: Final = 512
_STREAM_BYTES_PER_ID: Final = 4096

Id = TypeVar("Id", bound=int)
Count = Annotated[int, msgspec.Meta(ge=0)]


class _Logprobs(msgspec.Struct, frozen=True, gc=False):
    token_logprobs: tuple[float, ...] = ()


class _Choice(msgspec.Struct, Generic[Id], frozen=True, gc=False):
    index: Literal[0] = 0
    text: str = ""
    token_ids: tuple[Id, ...] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Count | None = None


class _Usage(msgspec.Struct, frozen=True, gc=False):
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None


class Event(msgspec.Struct, Generic[Id], frozen=True, gc=False):
    """An event of the stream, as far as it is read."""

    choices: tuple[_Choice[Id], ...] = ()
    usage: _Usage | None = None
    error: Any = None


def event_decoder(vocab_size: int | None) -> Callable[[bytes], Event[int]]:
    """Return the decoder of events whose token ids are below ``vocab_size``."""
    token_id = Annotated[int, msgspec.Meta(ge=0, lt=vocab_size or LARGEST_VOCABULARY)]
    decoder: msgspec.json.Decoder[Event[int]] = msgspec.json.Decoder(Event[token_id])
    return decoder.decode


class CompletionReader:
    """A reader that makes chunks of one response's bytes. It holds the last one back until its token usage has come.

    Memory and time are bounded by the length of the prompt and by ``max_tokens``, whatever the server sends.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Event[int]],
        *,
        num_prompt_ids: int,
        max_tokens: int,
        logprobs: bool = False,
    ) -> None:
        num_ids = num_prompt_ids + max_tokens
        self._decode = decode
        self._splitter = SseSplitter(_LINE_BYTES + _LINE_BYTES_PER_ID * num_ids)
        self._bytes_left = _LINE_BYTES + _STREAM_BYTES_PER_ID * num_ids
        self._num_prompt_ids = num_prompt_ids
        self._max_tokens = max_tokens
        self._ids_left = max_tokens
        self._logprobs = logprobs
        self._last: Chunk | None = None
        self._usage: _Usage | None = None

    def feed(self, data: bytes) -> Chunk | None:
        """Return the chunks that ``data`` completes as one, the chunk with ``finish`` excepted. Raises ``EngineError``.

        Events arrive together when the reader is behind; joined here, each costs the layers above nothing.
        """
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise EngineError("the engine sent far more bytes than the completion can have")
        chunks: list[Chunk] = []
        for payload in self._splitter.feed(data):
            if payload == b"[DONE]":
                continue
            event = self._event(payload)
            if event.usage is not None:
                self._usage = event.usage
            for choice in event.choices:
                chunk = self._chunk(choice)
                if self._last is not None:
                    if chunk.text or chunk.token_ids:
                        raise EngineError("the engine went on after it had ended the completion")
                elif chunk.finish is None:
                    chunks.append(chunk)
                else:
                    self._last = chunk
        return _join(chunks)

    def end(self) -> Chunk:
        """Return the last chunk. Raises ``EngineError`` if the response ended before the completion did."""
        last, usage = self._last, self._usage
        if last is None:
            text = "the engine's stream ended before its completion did"
            # A stream that broke off passes; one without any token is none of vLLM's.
            raise (
                EngineError(text) if self._ids_left == self._max_tokens else EngineUnavailableError(text, passing=True)
            )
        num_cached_tokens = None
        if usage is not None:
            num_ids = self._max_tokens - self._ids_left
            if usage.completion_tokens is not None and usage.completion_tokens != num_ids:
                raise EngineError(
                    f"the engine says that it sampled {usage.completion_tokens} tokens, and sent {num_ids}"
                )
            if usage.prompt_tokens_details is not None:
                num_cached_tokens = usage.prompt_tokens_details.cached_tokens
        if num_cached_tokens is not None:
            num_cached_tokens = min(num_cached_tokens, self._num_prompt_ids)
        return Chunk(last.text, last.token_ids, last.finish, last.logprobs, num_cached_tokens)

    def _event(self, payload: bytes) -> Event[int]:
        try:
            event = self._decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise EngineError(f"the engine sent an event that can't be read: {error}") from error
        if event.error is not None:
            # vLLM validates some requests, and finds its queue full, only after it has answered 200.
            code = event.error.get("code") if isinstance(event.error, dict) else None
            text = f"the engine failed within its stream: {message_of(payload)}"
            raise error_of_status(code if isinstance(code, int) else 0, text)
        return event

    def _chunk(self, choice: _Choice[int]) -> Chunk:
        ids = choice.token_ids
        if ids:
            self._ids_left -= len(ids)
            if self._ids_left < 0:
                raise EngineError(f"the engine sent more than the {self._max_tokens} tokens that it was asked for")
        elif ids is None:
            raise EngineError("the engine sent text without token ids: it is too old, or no vLLM")
        elif choice.text and self._ids_left == self._max_tokens:
            raise EngineError("the engine sent text before any token id")
        finish = None
        if choice.finish_reason is not None and (finish := _FINISH.get(choice.finish_reason)) is None:
            raise EngineError(f"the engine ended the completion for an unknown reason: {_shown(choice.finish_reason)}")
        logprobs = choice.logprobs.token_logprobs if choice.logprobs is not None else None
        if self._logprobs and len(logprobs or ()) != len(ids):
            raise EngineError(f"the engine sent {len(logprobs or ())} logprobs for {len(ids)} tokens")
        return Chunk(choice.text, ids, finish, logprobs)


def error_of_status(status: int, text: str, *, retry_after_s: float | None = None) -> EngineError:
    """Return the error that an HTTP status of the engine, or of a router before it, stands for."""
    if status in (429, 503):
        return EngineOverloadedError(text, retry_after_s=retry_after_s)
    if status >= 500:
        # A dead vLLM says 500 until its process ends, which is soon; what is not implemented stays so.
        return EngineUnavailableError(text, passing=status != 501, retry_after_s=retry_after_s)
    return EngineError(text)


def message_of(body: bytes) -> str:
    """Return vLLM's own words in an error body, or the start of a body that holds none; in one line, for the log."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = None
    while isinstance(found, dict):
        found = found.get("error", found.get("message", found.get("detail")))
    return _shown(found if isinstance(found, str) and found else body[:_MAX_MESSAGE_CHARS].decode(errors="replace"))


def _shown(text: str) -> str:
    """Return the start of foreign text as one line without control characters."""
    cut = text[: 4 * _MAX_MESSAGE_CHARS]
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())[:_MAX_MESSAGE_CHARS]


def _join(chunks: list[Chunk]) -> Chunk | None:
    if len(chunks) < 2:
        return chunks[0] if chunks else None
    logprobs = None
    if chunks[0].logprobs is not None:
        logprobs = tuple(value for chunk in chunks for value in chunk.logprobs or ())
    ids: TokenIds = tuple(token for chunk in chunks for token in chunk.token_ids)
    return Chunk("".join(chunk.text for chunk in chunks), ids, None, logprobs)
