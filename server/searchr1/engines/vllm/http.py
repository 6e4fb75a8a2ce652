"""vLLM over HTTP: token ids in, streamed text and token ids out, through ``POST /v1/completions``.

The stream is read as raw bytes with aiohttp and decoded with msgspec: of the libraries measured, that pair costs the
least CPU per token. One ``VllmHttpEngine`` holds one connection pool for as long as the application lives. Whatever the
server sends is bounded and checked; redirects are not followed.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec

from searchr1.engines.base import Chunk, EngineHealth, SamplingParams
from searchr1.engines.silence import SilenceWatch
from searchr1.engines.vllm.address import ServerAddress
from searchr1.engines.vllm.exchange import Lane, is_passing, start_of_body
from searchr1.engines.vllm.progress import progress_of
from searchr1.engines.vllm.request import SessionHeaders, completion_body
from searchr1.engines.vllm.stream import CompletionReader, error_of_status, event_decoder, message_of
from searchr1.errors import EngineClosedError, EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds
from searchr1.retry_after import retry_after_s

# Below the five seconds after which vLLM closes an idle connection, or a turn after a slow search may meet a dead one.
_KEEPALIVE_S: Final = 4.0
_MODELS_KEPT_S: Final = 30.0
_MAX_ERROR_BYTES: Final = 65_536
_MAX_MODELS_BYTES: Final = 4 * 2**20
_MAX_METRICS_BYTES: Final = 32 * 2**20


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """Timeouts in seconds. None of them bounds a whole completion: that is the caller's deadline."""

    connect_s: float = 5.0
    read_s: float = 120.0
    """Longest silence of one completion, including the wait in the engine's queue before the first token."""
    silence_s: float = 120.0
    """Longest silence of all completions together, while the server shows no other sign of work."""
    probe_s: float = 3.0
    """Time for each short request: health, models, metrics."""
    health_kept_s: float = 1.0
    """Time for which an answer to ``health`` holds."""
    weights_s: float = 600.0
    """Time for the server to read new weights."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server offers."""

    name: str
    max_model_len: int | None
    """Longest prompt and completion together, in tokens, where the server tells."""


class VllmHttpEngine:
    """A vLLM server. Create it where an event loop runs; close it with ``aclose``.

    Args:
        url: its address; see ``ServerAddress``.
        model: the name that it serves.
        api_key: its key, sent as a bearer token.
        priority_scheduling: declare it only for a server that was started with ``--scheduling-policy priority``: any
            other may refuse requests that carry a priority.
        max_model_len: the longest prompt and completion together that will be asked for; ``health`` holds it against
            what the server takes.
        vocab_size: no token id that the server sends may reach it.
        timeouts: see ``HttpTimeouts``.

    Raises:
        ConfigurationError: the address or the key can't be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        priority_scheduling: bool = False,
        max_model_len: int | None = None,
        vocab_size: int | None = None,
        timeouts: HttpTimeouts | None = None,
    ) -> None:
        address = ServerAddress.parse(url, api_key)
        self.base_url = address.url
        self.model = model
        self._priority_scheduling = priority_scheduling
        self._max_model_len = max_model_len
        self._decode = event_decoder(vocab_size)
        self._timeouts = timeouts or HttpTimeouts()
        self._silence = SilenceWatch(self._timeouts.silence_s, signs=self._progress, recovered=self._recovered)
        self._sessions = SessionHeaders()
        self._lanes: set[Lane] = set()
        self._probe_id = 0
        self._last_progress: Hashable | None = None
        self._probing: asyncio.Task[EngineHealth] | None = None
        self._health = EngineHealth(ok=False, reason="unreachable")
        self._health_at = self._models_at = float("-inf")
        headers = {"Accept-Encoding": "identity"}
        if address.authorization is not None:
            headers["Authorization"] = address.authorization
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            headers=headers,
            # What a hostile server sends unasked, packed bodies and cookies, is not unpacked and not kept.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
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
        await self._silence.aclose()
        if self._probing is not None:
            self._probing.cancel()
        await self._http.close()

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion; see ``Engine``. Closing the iterator closes the connection, which aborts on vLLM.

        Raises:
            EngineUnavailableError: refused, timed out, lost the connection, a 5xx, or a server that does not move.
            EngineOverloadedError: a 503 or 429.
            EngineError: the request was refused, or the stream broke the protocol.
        """
        if self._http.closed:
            raise EngineClosedError("the engine's client has been closed")
        if self._silence.stalled:
            raise EngineUnavailableError(f"the engine at {self.base_url} does not move")
        self._probe_id = prompt_ids[0] if prompt_ids else 0
        reader = CompletionReader(
            self._decode, num_prompt_ids=len(prompt_ids), max_tokens=params.max_tokens, logprobs=params.logprobs
        )
        headers, loop = self._sessions.of(session), asyncio.get_running_loop()
        with self._silence.watching((lane := Lane()).fail):
            self._lanes.add(lane)
            try:
                async with await lane.begin(self._post(self._body(prompt_ids, params, priority), headers)) as response:
                    if response.status != 200:
                        raise await self._refused(response)
                    self._sessions.note(session, response.headers)
                    while data := await response.content.readany():
                        if (chunk := reader.feed(data)) is not None:
                            # Bytes that make no token are no sign of work.
                            self._silence.moved()
                            lane.moved_at = math.inf
                            yield chunk
                            lane.moved_at = loop.time()
                    # Yielded after the response's end, so that the connection goes back to the pool.
                    last = reader.end()
            except (aiohttp.ClientError, OSError) as error:
                raise lane.error or self._unavailable(error) from error
            finally:
                self._lanes.discard(lane)
        yield last

    def abandon(self, error: EngineUnavailableError, *, silent_s: float = -1.0, begun_alone: bool = False) -> int:
        """End open completions with ``error``; return their number.

        Those that have brought a token within ``silent_s`` stay, and with ``begun_alone`` those without any yet.
        """
        until = asyncio.get_running_loop().time() - silent_s
        lanes = [lane for lane in self._lanes if lane.moved_at < until and (lane.moved_at or not begun_alone)]
        for lane in lanes:
            lane.fail(error)
        return len(lanes)

    async def models(self) -> list[ServedModel]:
        """Return the models that the server offers. Raises ``EngineError``."""
        return self._served(await self._get("/v1/models", _MAX_MODELS_BYTES))

    async def health(self) -> EngineHealth:
        """Return whether the server answers, moves, and serves the model with enough context. Never raises.

        What it answered is kept for a second, and its models for half a minute: many may ask at once.
        """
        if self._http.closed:
            return EngineHealth(ok=False, reason="stopped")
        if self._silence.suspect or self._silence.stalled:
            return EngineHealth(ok=False, reason="stalled", detail=f"nothing comes from {self.base_url}")
        if self._probing is None and time.monotonic() - self._health_at < self._timeouts.health_kept_s:
            return self._health
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(), name="engine-health")
        return await asyncio.shield(self._probing)

    async def metrics_text(self) -> str:
        """Return the server's metrics in Prometheus' text format. Raises ``EngineError``."""
        return (await self._get("/metrics", _MAX_METRICS_BYTES)).decode(errors="replace")

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Have the server replace its weights by those in ``folder``, a path of its own machine.

        Running completions stand still meanwhile and go on with the new weights; prefixes are computed anew. The server
        has to run with ``VLLM_SERVER_DEV_MODE=1`` and
        ``--worker-extension-cls searchr1.engines.vllm.worker.WorkerExtension``.

        Raises:
            EngineUnavailableError: the server can't be reached, or failed at it: its weights may be half replaced.
            EngineError: it offers no way to do this.
        """
        with self._silence.holding():
            await self._control("/pause?mode=keep&clear_cache=true")
            try:
                await self._control("/collective_rpc", {"method": "take_weights", "args": [str(folder)]})
                await self._control("/update_weight_version", {"new_version": version})
            finally:
                await self._control("/resume")

    async def weights_version(self) -> str:
        """Return what the weights are called that were last taken, or vLLM's name for those of its start.

        Raises:
            EngineError: the server can't be reached, or does not tell.
        """
        body = await self._get("/weight_info", _MAX_ERROR_BYTES)
        try:
            return msgspec.json.decode(body, type=_WeightInfo).weight_version
        except (msgspec.MsgspecError, ValueError) as error:
            raise EngineError(f"{self.base_url}/weight_info did not answer as vLLM does: {error}") from error

    async def _control(self, path: str, body: dict[str, Any] | None = None) -> None:
        timeout = aiohttp.ClientTimeout(total=self._timeouts.weights_s)
        url = self.base_url + path
        try:
            async with self._http.post(url, json=body, timeout=timeout, allow_redirects=False) as response:
                if response.status == 404:
                    raise EngineError(f"{self.base_url} has no {path}: start it with VLLM_SERVER_DEV_MODE=1")
                if response.status != 200:
                    raise await self._refused(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    async def _post(self, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        url = f"{self.base_url}/v1/completions"
        try:
            return await self._http.post(url, data=body, headers=headers, allow_redirects=False)
        except ValueError as error:  # A host's name that no name server takes.
            raise self._unavailable(error) from error

    async def _get(self, path: str, max_bytes: int) -> bytes:
        """Return the body of a 200. Raises ``EngineError``."""
        status, body = await self._fetch(path, max_bytes)
        if status != 200:
            raise self._refusal(status, body)
        return body

    async def _fetch(self, path: str, max_bytes: int) -> tuple[int, bytes]:
        """Return the status and the body, of an error its start. Raises ``EngineError``."""
        timeout = aiohttp.ClientTimeout(total=self._timeouts.probe_s)
        try:
            async with self._http.get(self.base_url + path, timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    return response.status, await start_of_body(response, _MAX_ERROR_BYTES)
                body = await start_of_body(response, max_bytes + 1)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unavailable(error) from error
        if len(body) > max_bytes:
            raise EngineError(f"{self.base_url}{path} answered more than {max_bytes} bytes")
        return 200, body

    async def _probe(self) -> EngineHealth:
        try:
            self._health = await self._look()
        except EngineUnavailableError as error:
            self._health = EngineHealth(ok=False, reason="unreachable", detail=str(error))
        except EngineError as error:
            self._health = EngineHealth(ok=False, reason="unhealthy", detail=str(error))
        if not self._health.ok:
            self._models_at = float("-inf")
        self._health_at = time.monotonic()
        self._probing = None
        return self._health

    async def _look(self) -> EngineHealth:
        status, body = await self._fetch("/health", _MAX_ERROR_BYTES)
        if status == 200:
            if time.monotonic() - self._models_at < _MODELS_KEPT_S:
                return self._health
            status, body = await self._fetch("/v1/models", _MAX_MODELS_BYTES)
        if status != 200:
            reason = "refused_key" if status in (401, 403) else "unhealthy"
            return EngineHealth(ok=False, reason=reason, detail=str(self._refusal(status, body)))
        health = self._fits(self._served(body))
        if health.ok:
            self._models_at = time.monotonic()
        return health

    def _served(self, listed: bytes) -> list[ServedModel]:
        try:
            models = msgspec.json.decode(listed, type=_ModelList)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise EngineError(f"{self.base_url}/v1/models did not answer as vLLM does: {error}") from error
        return [ServedModel(model.id, model.max_model_len) for model in models.data]

    def _fits(self, served: list[ServedModel]) -> EngineHealth:
        found = next((model for model in served if model.name == self.model), None)
        if found is None:
            names = ", ".join(repr(model.name) for model in served[:10])
            detail = f"{self.base_url} serves {names or 'no model'}, not {self.model!r}"
            return EngineHealth(ok=False, reason="model_not_served", detail=detail)
        wanted, given = self._max_model_len, found.max_model_len
        if wanted is not None and given is not None and given < wanted:
            detail = f"{self.base_url} takes {given} tokens of context, and a run may have {wanted}"
            return EngineHealth(ok=False, reason="context_too_short", detail=detail)
        return EngineHealth(ok=True)

    async def _progress(self) -> Hashable | None:
        try:
            return progress_of(await self.metrics_text())
        except EngineError:
            return None

    async def _recovered(self) -> bool:
        """Return whether the server's counters move, or it samples a token."""
        before, self._last_progress = self._last_progress, await self._progress()
        if before is not None and self._last_progress not in (None, before):
            return True
        params = SamplingParams(max_tokens=1, temperature=0.0)
        timeout = aiohttp.ClientTimeout(total=self._timeouts.probe_s)
        headers = {"Content-Type": "application/json"}
        url, body = f"{self.base_url}/v1/completions", self._body((self._probe_id,), params, 0)
        try:
            async with self._http.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status == 200 and bool(await response.content.readany())
        except (aiohttp.ClientError, OSError, ValueError):
            return False

    def _body(self, prompt_ids: TokenIds, params: SamplingParams, priority: int) -> bytes:
        return completion_body(self.model, prompt_ids, params, priority=priority if self._priority_scheduling else None)

    async def _refused(self, response: aiohttp.ClientResponse) -> EngineError:
        try:
            async with asyncio.timeout(self._timeouts.probe_s):
                body = await start_of_body(response, _MAX_ERROR_BYTES)
        except (aiohttp.ClientError, OSError):
            body = b"(the body did not come)"
        return self._refusal(response.status, body, retry_after_s(response.headers.get("Retry-After")))

    def _refusal(self, status: int, body: bytes, wait_s: float | None = None) -> EngineError:
        text = f"the engine at {self.base_url} answered {status}: {message_of(body)}"
        return error_of_status(status, text, retry_after_s=wait_s)

    def _unavailable(self, error: Exception) -> EngineUnavailableError:
        text = f"the engine at {self.base_url}: {str(error) or type(error).__name__}"
        return EngineUnavailableError(text, passing=is_passing(error))


class _Model(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _WeightInfo(msgspec.Struct, frozen=True):
    weight_version: str


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]
