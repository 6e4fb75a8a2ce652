"""What one completion's request says to a vLLM server, and to a router in front of it: body and headers."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from searchr1.engines.base import SamplingParams
from searchr1.loop.types import TokenIds
from searchr1.trace_context import TRACE_HEADERS

_MAX_SESSIONS: Final = 16_384
_MAX_TOKEN_CHARS: Final = 1024


def completion_body(model: str, prompt_ids: TokenIds, params: SamplingParams, *, priority: int | None) -> bytes:
    """Return the body of ``POST /v1/completions``; no ``priority`` is for a server that may refuse one."""
    shaping = params.shaping
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt_ids,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        # Written out because the server's defaults come from the checkpoint's generation_config.json.
        "top_k": shaping.top_k,
        "min_p": shaping.min_p,
        "repetition_penalty": shaping.repetition_penalty,
        "frequency_penalty": shaping.frequency_penalty,
        "presence_penalty": shaping.presence_penalty,
        "stop": params.stop,
        "include_stop_str_in_output": True,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if params.seed is not None:
        body["seed"] = params.seed
    if params.logprobs:
        body["logprobs"] = 0
    if params.stream_interval > 1:
        body["stream_interval"] = params.stream_interval
    if params.cache_salt is not None:
        body["cache_salt"] = params.cache_salt
    if priority is not None:
        body["priority"] = priority
    return msgspec.json.encode(body)


class SessionHeaders:
    """The headers by which routers keep a session on one replica, and what they want to have sent back.

    vLLM's router and production-stack read ``X-Session-ID``. llm-d answers with an ``x-session-token``, which has to
    come back with the session's next request. The tokens of the newest sessions are kept.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, str] = OrderedDict()

    def of(self, session: str) -> dict[str, str]:
        """Return the headers of one more request of ``session``."""
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": f"{session}-{secrets.token_hex(4)}",
            "X-Session-ID": session,
        }
        if token := self._tokens.get(session):
            headers["x-session-token"] = token
        headers.update(TRACE_HEADERS.get())
        return headers

    def note(self, session: str, answered: Mapping[str, str]) -> None:
        """Take the headers of a response to ``session``."""
        token = answered.get("x-session-token")
        if token is None or not token.isascii() or not token.isprintable() or len(token) > _MAX_TOKEN_CHARS:
            return
        self._tokens[session] = token
        self._tokens.move_to_end(session)
        if len(self._tokens) > _MAX_SESSIONS:
            self._tokens.popitem(last=False)
