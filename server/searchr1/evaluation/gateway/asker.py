"""Many questions at once to a gateway: busy answers are retried, failed runs are counted."""

import time
from collections.abc import Sequence

import httpx

import searchr1_client as sdk
from searchr1.errors import ConfigurationError, GatewayError
from searchr1.evaluation.asking import Take, ask_all
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.records import Extractor, Record, chosen_options, failed_record, run_record

MAX_ATTEMPTS = 8
CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 660.0
"""Longest silence of a run, which is not streamed; the server's own deadline comes first."""

_NOT_OURS_TO_ASK = (401, 403, 404, 405)
_BUSY = (429, 503)
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)


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
        try:
            self._http = sdk.default_async_http_client(
                url,
                timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
                limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            )
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
        async with self._http:
            await self._probe()
            await ask_all(questions, self._ask, take, concurrency=self._concurrency, broken=GatewayError)

    async def _probe(self) -> None:
        """Ask for the models once, so that a gateway that is not there is told at once; a busy one may be soon."""
        try:
            await self._gateway.with_options(max_retries=0, timeout=PROBE_TIMEOUT_S).models.list()
        except sdk.APIResponseValidationError as error:
            raise GatewayError(str(error)) from error
        except sdk.APIConnectionError as error:
            raise GatewayError(self._why_hopeless(error) or str(error)) from error
        except sdk.APIStatusError as error:
            if (reason := self._why_hopeless(error)) is not None:
                raise GatewayError(reason) from error

    async def _ask(self, question: Question) -> Record:
        options = chosen_options(self.options)
        started = time.perf_counter()
        try:
            answer = await self._gateway.research.with_raw_response.create(question.question, **self.options)
            run = answer.parse()
        except sdk.APIResponseValidationError as error:
            raise GatewayError(str(error)) from error
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
