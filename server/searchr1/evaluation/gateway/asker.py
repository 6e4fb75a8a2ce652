"""Many questions at once to a gateway: busy answers are retried, failed runs are counted."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import httpx

import searchr1_client as sdk
from searchr1.errors import ConfigurationError, GatewayError
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.records import Extractor, Record, chosen_options, failed_record, run_record

MAX_ATTEMPTS = 8
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 660.0
"""Longest silence of a run, which is not streamed; the server's own deadline comes first."""
FAILURES_IN_A_ROW = 20
"""Failed questions that end an evaluation, or two for each concurrent request: the gateway is broken, not a run."""

_NOT_OURS_TO_ASK = (401, 403, 404, 405)
_BUSY = (429, 503)
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)

Take = Callable[[Record], None]


def may_pass(failure: sdk.APIConnectionError | sdk.APIStatusError) -> bool:
    """Return whether to ask again: the gateway is busy, or the connection was lost. A run that failed stays failed."""
    return failure.status_code in _BUSY if isinstance(failure, sdk.APIStatusError) else failure.retryable


PATIENCE = sdk.RetryPolicy(longest_wait_s=30.0, longest_retry_after_s=30.0, may_pass=may_pass)


class Asker:
    """One pass over questions through one pooled client.

    Raises:
        ConfigurationError: the address or the key can't be used.
    """

    def __init__(
        self, url: str, api_key: str | None, options: sdk.RunOptions, extractor: Extractor, concurrency: int
    ) -> None:
        self.options = options
        self.extractor: Extractor = extractor
        self._url = url
        self._concurrency = concurrency
        self._failures_in_a_row = 0
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        try:
            self._gateway = sdk.AsyncSearchR1(
                base_url=url,
                api_key=api_key or "",
                max_retries=MAX_ATTEMPTS - 1,
                retry_policy=PATIENCE,
                http_client=self._http,
            )
        except sdk.SearchR1Error as error:
            raise ConfigurationError(str(error)) from error

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Ask ``questions``, ``concurrency`` at a time, and hand each record to ``take`` as its run ends. Once only.

        Raises:
            GatewayError: the gateway cannot be reached, refuses everything, or fails question after question.
        """
        waiting = iter(questions)
        gave_up: ExceptionGroup[GatewayError] | None = None
        try:
            async with self._http, asyncio.TaskGroup() as workers:
                for _ in range(min(self._concurrency, len(questions))):
                    workers.create_task(self._work(waiting, take))
        except* GatewayError as group:
            gave_up = group
        if gave_up is not None:
            raise gave_up.exceptions[0]

    async def _work(self, waiting: Iterator[Question], take: Take) -> None:
        for question in waiting:
            record = await self._ask(question)
            take(record)
            self._count(record)

    def _count(self, record: Record) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if record.failed else 0
        if self._failures_in_a_row >= max(FAILURES_IN_A_ROW, 2 * self._concurrency):
            raise GatewayError(f"{self._failures_in_a_row} questions in a row failed, the last with: {record.error}")

    async def _ask(self, question: Question) -> Record:
        options = chosen_options(self.options)
        started = time.perf_counter()
        try:
            answer = await self._gateway.research.with_raw_response.create(question.question, **self.options)
            run = answer.parse()
        except sdk.APIResponseValidationError as error:
            raise GatewayError(f"{self._url} answers, but not as a Search-R1 gateway does") from error
        except (sdk.APIStatusError, sdk.APIConnectionError) as error:
            if (reason := self._why_hopeless(error)) is not None:
                raise GatewayError(reason) from error
            wall_s = time.perf_counter() - started
            return failed_record(question, error, options=options, wall_s=wall_s, extractor=self.extractor)
        wall_s = answer.http_response.elapsed.total_seconds()
        return run_record(question, run, options=options, wall_s=wall_s, extractor=self.extractor)

    def _why_hopeless(self, error: sdk.APIStatusError | sdk.APIConnectionError) -> str | None:
        """Return what to tell the user where every other question would fail in the same way."""
        if isinstance(error, sdk.APIStatusError):
            bad_option = error.status_code in (400, 422) and error.param not in (None, "question")
            return f"the gateway refuses: {error}" if bad_option or error.status_code in _NOT_OURS_TO_ASK else None
        if isinstance(error.__cause__, _NO_CONNECTION):
            return f"no gateway answers at {self._url}; start one with: searchr1 serve"
        return None
