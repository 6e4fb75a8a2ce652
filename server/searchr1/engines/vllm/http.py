"""vLLM over HTTP: token ids in, streamed text and token ids out, through ``POST /v1/completions``.

The stream is read as raw bytes with aiohttp and decoded with msgspec: of the libraries measured, that pair costs the
least CPU per token. One ``VllmHttpEngine`` holds one connection pool for as long as the application lives.
"""

import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.vllm.sse import SseSplitter
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.loop.types import FinishReason, TokenIds

_FINISH: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length", "abort": "abort"}
# Below the five seconds after which vLLM closes an idle connection, or a turn after a slow search may meet a dead one.
_KEEPALIVE_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """Timeouts in seconds. None of them bounds a whole completion: that is the caller's deadline."""

    connect_s: float = 5.0
    read_s: float = 120.0
    """Longest silence, including the wait in the engine's queue before the first token."""
    probe_s: float = 3.0
    """Time for each short request: health, models, metrics."""
    weights_s: float = 600.0
    """Time for the server to read new weights."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server offers."""

    name: str
    max_model_len: int | None
    """Longest prompt and completion together, in tokens, where the server tells."""


class VllmHttpEngine:
    """A vLLM server at ``base_url`` (without ``/v1``). Create it where an event loop runs; close it with ``aclose``.

    ``model`` is the name that the server serves. Declare ``priority_scheduling`` only for a server that was started
    with ``--scheduling-policy priority``: any other may refuse requests that carry a priority.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        priority_scheduling: bool = False,
        timeouts: HttpTimeouts | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._priority_scheduling = priority_scheduling
        self._timeouts = timeouts or HttpTimeouts()
        headers = {"Accept-Encoding": "identity"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeouts.connect_s, sock_read=self._timeouts.read_s
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; running completions are aborted."""
        await self._http.close()

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion; see ``Engine``. Closing the iterator closes the connection, which aborts on vLLM.

        Raises:
            EngineUnavailableError: refused, timed out, lost the connection, or a 5xx.
            EngineOverloadedError: a 503 or 429.
            EngineError: the request was refused, or the stream broke the protocol.
        """
        body = self._body(prompt_ids, params, priority)
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": f"{session}-{secrets.token_hex(4)}",
            "X-Session-ID": session,
        }
        try:
            async with await self._post(body, headers) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                reader = _CompletionReader()
                async for data in response.content.iter_any():
                    if (chunk := reader.feed(data)) is not None:
                        yield chunk
                # Yielded after the response's end, so that the connection goes back to the pool.
                last = reader.end()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error
        yield last

    async def models(self) -> list[ServedModel]:
        """Return the models that the server offers. Raises ``EngineError``."""
        try:
            listed = msgspec.json.decode(await self._get("/v1/models"), type=_ModelList)
        except msgspec.DecodeError as error:
            raise EngineError(f"{self.base_url}/v1/models did not answer as vLLM does: {error}") from error
        return [ServedModel(model.id, model.max_model_len) for model in listed.data]

    async def ready(self) -> bool:
        """Return whether ``/health`` answers 200 in time. Never raises."""
        try:
            await self._get("/health")
        except EngineError:
            return False
        return True

    async def metrics_text(self) -> str:
        """Return the server's metrics in Prometheus' text format. Raises ``EngineError``."""
        return (await self._get("/metrics")).decode()

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Have the server replace its weights by those in ``folder``, a path of its own machine.

        Running completions stand still meanwhile and go on with the new weights; prefixes are computed anew. The server
        has to run with ``VLLM_SERVER_DEV_MODE=1`` and
        ``--worker-extension-cls searchr1.engines.vllm.worker.WorkerExtension``.

        Raises:
            EngineUnavailableError: the server can't be reached, or failed at it: its weights may be half replaced.
            EngineError: it offers no way to do this.
        """
        await self._control("/pause?mode=keep&clear_cache=true")
        try:
            await self._control("/collective_rpc", {"method": "take_weights", "args": [str(folder)]})
            await self._control("/update_weight_version", {"new_version": version})
        finally:
            await self._control("/resume")

    async def _control(self, path: str, body: dict[str, Any] | None = None) -> None:
        timeout = aiohttp.ClientTimeout(total=self._timeouts.weights_s)
        try:
            async with self._http.post(self.base_url + path, json=body, timeout=timeout) as response:
                if response.status == 404:
                    raise EngineError(f"{self.base_url} has no {path}: start it with VLLM_SERVER_DEV_MODE=1")
                if response.status != 200:
                    raise await self._refusal(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error

    async def _post(self, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send a completion request; once more if a pooled connection turns out to be closed before any answer."""
        url = f"{self.base_url}/v1/completions"
        try:
            return await self._http.post(url, data=body, headers=headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._http.post(url, data=body, headers=headers)

    async def _get(self, path: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._timeouts.probe_s)
        try:
            async with self._http.get(self.base_url + path, timeout=timeout) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                return await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error

    def _body(self, prompt_ids: TokenIds, params: SamplingParams, priority: int) -> bytes:
        shaping = params.shaping
        body: dict[str, Any] = {
            "model": self.model,
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
        if self._priority_scheduling:
            body["priority"] = priority
        return msgspec.json.encode(body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> EngineError:
        message = _message_of(await response.read())
        return _error_of_status(response.status, f"the engine at {self.base_url} answered {response.status}: {message}")

    def _unavailable(self, error: Exception) -> EngineUnavailableError:
        return EngineUnavailableError(f"the engine at {self.base_url}: {str(error) or type(error).__name__}")


class _Logprobs(msgspec.Struct, frozen=True, gc=False):
    token_logprobs: tuple[float, ...] = ()


class _Choice(msgspec.Struct, frozen=True, gc=False):
    text: str = ""
    token_ids: TokenIds | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens_details: _PromptDetails | None = None


class _Event(msgspec.Struct, frozen=True, gc=False):
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: Any = None


class _Model(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


_EVENT = msgspec.json.Decoder(_Event)


class _CompletionReader:
    """Turns the bytes of one response into chunks. Holds the last one back until its token usage has come."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._last: Chunk | None = None
        self._num_cached_tokens: int | None = None

    def feed(self, data: bytes) -> Chunk | None:
        """Return the chunks that ``data`` completes as one, the chunk with ``finish`` excepted. Raises ``EngineError``.

        Events arrive together when the reader is behind; joined here, each costs the layers above nothing.
        """
        chunks: list[Chunk] = []
        for payload in self._splitter.feed(data):
            if payload == b"[DONE]":
                continue
            event = _decode(payload)
            if event.usage is not None and event.usage.prompt_tokens_details is not None:
                self._num_cached_tokens = event.usage.prompt_tokens_details.cached_tokens
            for choice in event.choices:
                chunk = _chunk(choice)
                if chunk.finish is None:
                    chunks.append(chunk)
                else:
                    self._last = chunk
        return _join(chunks)

    def end(self) -> Chunk:
        """Return the last chunk. Raises ``EngineError`` if the response ended before the completion did."""
        if self._last is None:
            raise EngineError("the engine's stream ended before its completion did")
        last = self._last
        return Chunk(last.text, last.token_ids, last.finish, last.logprobs, self._num_cached_tokens)


def _decode(payload: bytes) -> _Event:
    try:
        event = _EVENT.decode(payload)
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine sent an event that can't be read: {error}") from error
    if event.error is not None:
        # vLLM validates some requests, and finds its queue full, only after it has answered 200.
        code = event.error.get("code") if isinstance(event.error, dict) else None
        text = f"the engine failed within its stream: {_message_of(payload)}"
        raise _error_of_status(code if isinstance(code, int) else 0, text)
    return event


def _error_of_status(status: int, text: str) -> EngineError:
    if status in (429, 503):
        return EngineOverloadedError(text)
    return EngineUnavailableError(text) if status >= 500 else EngineError(text)


def _chunk(choice: _Choice) -> Chunk:
    if choice.token_ids is None:
        raise EngineError("the engine sent text without token ids: it is too old, or no vLLM")
    finish = None
    if choice.finish_reason is not None and (finish := _FINISH.get(choice.finish_reason)) is None:
        raise EngineError(f"the engine ended the completion for an unknown reason: {choice.finish_reason}")
    logprobs = choice.logprobs.token_logprobs if choice.logprobs is not None else None
    return Chunk(choice.text, choice.token_ids, finish, logprobs)


def _join(chunks: list[Chunk]) -> Chunk | None:
    if len(chunks) < 2:
        return chunks[0] if chunks else None
    logprobs = None
    if chunks[0].logprobs is not None:
        logprobs = tuple(value for chunk in chunks for value in chunk.logprobs or ())
    ids = tuple(token for chunk in chunks for token in chunk.token_ids)
    return Chunk("".join(chunk.text for chunk in chunks), ids, None, logprobs)


def _message_of(body: bytes) -> str:
    """Return vLLM's own words in an error body, or the start of a body that holds none."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = None
    while isinstance(found, dict):
        found = found.get("error", found.get("message", found.get("detail")))
    return found if isinstance(found, str) and found else body[:300].decode(errors="replace").strip()
