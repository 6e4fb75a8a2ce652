"""Asking the gateway many questions at once, patiently: busy answers are retried, failed runs are counted."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence

import httpx
from pydantic import ValidationError

from searchr1.errors import ConfigurationError, GatewayError
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.records import Extractor, Record, failed_record, run_record
from searchr1_client._errors import APIStatusError, status_error
from searchr1_client._request import RunOptions, auth_headers, create_call, given, research_url
from searchr1_client.events import Run

MAX_ATTEMPTS = 8
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 660.0
"""A run that is not streamed is silent until it ends; the server's own deadline comes first."""
FAILURES_IN_A_ROW = 20
"""That many, or two for each concurrent request, say that the gateway is broken and not a run."""

_NOT_OURS_TO_ASK = (401, 403, 404, 405)
_BUSY = (429, 503)
_DROPPED_CONNECTION = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)

Take = Callable[[Record], None]


class Asker:
    """One pass over questions through one pooled client."""

    def __init__(
        self, url: str, api_key: str | None, options: RunOptions, extractor: Extractor, concurrency: int
    ) -> None:
        self.options = options
        self.extractor: Extractor = extractor
        self._url = url
        self._api_key = api_key
        self._concurrency = concurrency
        self._failures_in_a_row = 0
        _check(url, api_key)

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Ask ``questions``, ``concurrency`` at a time, and hand each record to ``take`` as its run ends."""
        waiting = iter(questions)
        gave_up: ExceptionGroup[GatewayError] | None = None
        try:
            async with self._client() as client, asyncio.TaskGroup() as workers:
                for _ in range(min(self._concurrency, len(questions))):
                    workers.create_task(self._work(client, waiting, take))
        except* GatewayError as group:
            gave_up = group
        if gave_up is not None:
            raise gave_up.exceptions[0]

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=auth_headers(self._api_key),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
        )

    async def _work(self, client: httpx.AsyncClient, waiting: Iterator[Question], take: Take) -> None:
        for question in waiting:
            record = await self._ask(client, question)
            take(record)
            self._count(record)

    def _count(self, record: Record) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if record.failed else 0
        if self._failures_in_a_row >= max(FAILURES_IN_A_ROW, 2 * self._concurrency):
            raise GatewayError(f"{self._failures_in_a_row} questions in a row failed, the last with: {record.error}")

    async def _ask(self, client: httpx.AsyncClient, question: Question) -> Record:
        attempt = 1
        while True:
            started = time.perf_counter()
            try:
                run = await self._post(client, question)
            except (APIStatusError, httpx.RequestError) as error:
                if attempt < MAX_ATTEMPTS and _may_pass(error):
                    await asyncio.sleep(wait_s(error, attempt))
                    attempt += 1
                    continue
                if (reason := self._why_hopeless(error)) is not None:
                    raise GatewayError(reason) from error
                wall_s = time.perf_counter() - started
                return failed_record(
                    question, error, options=given(self.options), wall_s=wall_s, extractor=self.extractor
                )
            wall_s = time.perf_counter() - started
            return run_record(question, run, options=given(self.options), wall_s=wall_s, extractor=self.extractor)

    async def _post(self, client: httpx.AsyncClient, question: Question) -> Run:
        call = create_call(question.question, self.options)
        response = await client.post(research_url(self._url), json=call.body)
        if not response.is_success:
            raise status_error(response)
        try:
            return Run.model_validate_json(response.content)
        except ValidationError as error:
            raise GatewayError(f"{self._url} answers, but not as a Search-R1 gateway does") from error

    def _why_hopeless(self, error: APIStatusError | httpx.RequestError) -> str | None:
        """What to tell the user where every other question would fail in the same way."""
        if isinstance(error, APIStatusError):
            bad_option = error.status_code in (400, 422) and error.param not in (None, "question")
            return f"the gateway refuses: {error}" if bad_option or error.status_code in _NOT_OURS_TO_ASK else None
        if isinstance(error, _NO_CONNECTION):
            return f"no gateway answers at {self._url}; start one with: searchr1 serve"
        return None


def _may_pass(error: APIStatusError | httpx.RequestError) -> bool:
    if isinstance(error, APIStatusError):
        return error.status_code in _BUSY
    return isinstance(error, (*_NO_CONNECTION, *_DROPPED_CONNECTION))


def wait_s(error: APIStatusError | httpx.RequestError, attempt: int) -> float:
    """As long as the gateway asks for, else twice as long each time; never all clients at once."""
    if isinstance(error, APIStatusError) and error.retry_after_s is not None:
        return min(error.retry_after_s, LONGEST_WAIT_S) * random.uniform(1.0, 1.2)
    return float(min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0))


def _check(url: str, api_key: str | None) -> None:
    try:
        scheme = httpx.URL(url).scheme
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"'{url}' is not a server's address: {error}") from error
    if scheme not in ("http", "https"):
        raise ConfigurationError(f"'{url}' is not a server's address; give one such as http://127.0.0.1:8000")
    if not (api_key or "").isascii():
        raise ConfigurationError("the API key holds characters that cannot be sent")
