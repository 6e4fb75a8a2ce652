"""Transports, sync and async: the one place each where requests are sent, and sent again."""

import asyncio
import re
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic

import httpx
from pydantic import ValidationError

from searchr1_client._errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ClientClosedError,
    InvalidArgumentError,
    SearchR1Error,
    connection_error,
    status_error,
)
from searchr1_client._request import Call, T, root_url
from searchr1_client._retries import RetryPolicy

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 660.0
"""Seconds to wait for an answer: a run that is not streamed is silent until it ends, and has a deadline of its own."""
SILENCE_TIMEOUT_S = 120.0
"""Seconds of silence in a stream; the server sends heartbeats far more often."""
CANCEL_TIMEOUT_S = 3.0
_HOST = re.compile(r"[^\s%/@]+")
_LAST_PORT = 65535


class NotGiven:
    """The type of ``NOT_GIVEN``."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()
"""Default of an argument for which None means something."""


@dataclass(frozen=True, slots=True)
class Config:
    """A client's configuration: a server's address, headers, timeouts and retries."""

    base_url: str
    headers: Mapping[str, str]
    timeout: float | httpx.Timeout | NotGiven | None
    max_retries: int
    retry_policy: RetryPolicy
    own_http_client: bool
    """True where the httpx client is the user's; so is its timeout then, where none is given here."""

    def request(self, call: Call[Any], *, stream: bool) -> dict[str, Any]:
        """Return the arguments of httpx's ``build_request``."""
        return {
            "method": call.method,
            "url": root_url(self.base_url) + call.path,
            "params": call.params or None,
            "json": call.body,
            "headers": {**self.headers, **call.headers},
            "timeout": self._timeout(stream=stream),
        }

    def _timeout(self, *, stream: bool) -> Any:
        if not isinstance(self.timeout, NotGiven):
            return self.timeout
        if self.own_http_client:
            return httpx.USE_CLIENT_DEFAULT
        return httpx.Timeout(SILENCE_TIMEOUT_S if stream else ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class RawResponse(Generic[T]):
    """An answer with its HTTP side, as the methods of ``with_raw_response`` return it."""

    http_response: httpx.Response
    answer: type[T]

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self.http_response.status_code

    @property
    def headers(self) -> httpx.Headers:
        """The HTTP headers."""
        return self.http_response.headers

    @property
    def request_id(self) -> str | None:
        """Value of the answer's ``x-request-id`` header."""
        request_id: str | None = self.http_response.headers.get("x-request-id")
        return request_id

    def parse(self) -> T:
        """Return what the method returns without ``with_raw_response``. Raises ``APIResponseValidationError``."""
        try:
            return self.answer.model_validate_json(self.http_response.content)
        except ValidationError as error:
            url = self.http_response.request.url
            raise APIResponseValidationError(f"{url} answers, but not as a Search-R1 gateway does") from error


class SyncTransport:
    """A transport that sends calls through an ``httpx.Client``."""

    def __init__(self, http: httpx.Client, config: Config) -> None:
        self.http, self.config = http, config

    def call(self, call: Call[T]) -> RawResponse[T]:
        """Send a call and read its answer. Raises ``APIConnectionError`` or ``APIStatusError``."""
        return RawResponse(self.send(call), call.answer)

    def send(self, call: Call[Any], *, stream: bool = False, max_retries: int | None = None) -> httpx.Response:
        """Return a successful response; with ``stream``, unread and the caller's to close. Raises as ``call`` does."""
        retries = self.config.max_retries if max_retries is None else max_retries
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._send_once(call, stream=stream)
            except (APIConnectionError, APIStatusError) as failure:
                if attempt > retries or not self.config.retry_policy.may_pass(failure):
                    raise
                pause_s = self.config.retry_policy.wait_s(failure, attempt)
            time.sleep(pause_s)

    def _send_once(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        try:
            request = built(self.http, self.config.request(call, stream=stream))
            response = self.http.send(request, stream=True)
            if response.is_success and stream:
                return response
            try:
                response.read()
            finally:
                response.close()
        except httpx.RequestError as error:
            raise connection_error(error) from error
        except httpx.StreamError as error:
            raise ClientClosedError("the client was closed during the call") from error
        if not response.is_success:
            raise status_error(response)
        return response

    def best_effort(self, call: Call[Any]) -> None:
        """Send a call once, each step of it bounded; a failure is nobody's concern."""
        if self.http.is_closed:
            return
        request = self.config.request(call, stream=False) | {"timeout": CANCEL_TIMEOUT_S}
        try:
            self.http.send(self.http.build_request(**request))
        except (httpx.RequestError, httpx.StreamError):
            return


class AsyncTransport:
    """A transport that sends calls through an ``httpx.AsyncClient``."""

    def __init__(self, http: httpx.AsyncClient, config: Config, leaving: set[asyncio.Task[None]] | None = None) -> None:
        """``leaving`` holds the tasks that go on though the code that awaited them was cancelled."""
        self.http, self.config = http, config
        self.leaving: set[asyncio.Task[None]] = set() if leaving is None else leaving

    async def call(self, call: Call[T]) -> RawResponse[T]:
        """See ``SyncTransport.call``."""
        return RawResponse(await self.send(call), call.answer)

    async def send(self, call: Call[Any], *, stream: bool = False, max_retries: int | None = None) -> httpx.Response:
        """See ``SyncTransport.send``."""
        retries = self.config.max_retries if max_retries is None else max_retries
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._send_once(call, stream=stream)
            except (APIConnectionError, APIStatusError) as failure:
                if attempt > retries or not self.config.retry_policy.may_pass(failure):
                    raise
                pause_s = self.config.retry_policy.wait_s(failure, attempt)
            await asyncio.sleep(pause_s)

    async def _send_once(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        try:
            request = built(self.http, self.config.request(call, stream=stream))
            response = await self.http.send(request, stream=True)
            if response.is_success and stream:
                return response
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise connection_error(error) from error
        except httpx.StreamError as error:
            raise ClientClosedError("the client was closed during the call") from error
        if not response.is_success:
            raise status_error(response)
        return response

    async def best_effort(self, call: Call[Any]) -> None:
        """See ``SyncTransport.best_effort``; bounded as a whole."""
        if self.http.is_closed:
            return
        request = self.config.request(call, stream=False) | {"timeout": CANCEL_TIMEOUT_S}
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self.http.send(self.http.build_request(**request))
        except (httpx.RequestError, httpx.StreamError, TimeoutError):
            return

    async def to_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``; it goes on to its end where this is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)
        await asyncio.shield(task)


def built(http: httpx.Client | httpx.AsyncClient, parts: dict[str, Any]) -> httpx.Request:
    """Return the request of ``parts``. Raises ``ClientClosedError`` and ``InvalidArgumentError``."""
    if http.is_closed:
        raise ClientClosedError("the client is closed; make another one")
    try:
        return http.build_request(**parts)
    except (ValueError, TypeError, RecursionError, httpx.InvalidURL) as error:
        raise InvalidArgumentError(f"the call can't be put into a request: {error}") from error


def check_config(base_url: str, api_key: str | None) -> None:
    """Refuse what can't be sent. Raises ``SearchR1Error``."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise SearchR1Error(f"{base_url!r} is not a server's address: {error}") from error
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.host) or (url.port or 0) > _LAST_PORT:
        raise SearchR1Error(f"{base_url!r} is not a server's address; give one such as http://127.0.0.1:8000")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise SearchR1Error("the API key holds characters that can't be sent")
