"""Stored runs of a running gateway, read through the SDK."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import httpx

import searchr1_client as sdk
from searchr1.errors import ConfigurationError, GatewayError
from searchr1.export.selection import GONE, NOT_ENDED, Selection, Skipped

PAGE = 100
"""Runs a page of the listing; the gateway gives no more."""
CONCURRENCY = 8
TIMEOUT_S = 60.0
MAX_ATTEMPTS = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0

_MAY_PASS = (429, 502, 503, 504)
_MAX_MESSAGE_CHARS = 300

T = TypeVar("T")


class GatewayRuns:
    """The stored runs of one gateway, read only. Use it as a context manager.

    Raises:
        ConfigurationError: the address or the key can't be used.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._reached = False
        policy = sdk.RetryPolicy(
            first_wait_s=FIRST_WAIT_S,
            longest_wait_s=LONGEST_WAIT_S,
            longest_retry_after_s=LONGEST_WAIT_S,
            may_pass=self._may_pass,
        )
        try:
            hooks = {"response": [self._note_reached]}
            self._http = sdk.default_http_client(url, timeout=TIMEOUT_S, event_hooks=hooks)
            self._gateway = sdk.SearchR1(
                base_url=url,
                api_key=api_key or "",
                max_retries=MAX_ATTEMPTS - 1,
                retry_policy=policy,
                http_client=self._http,
            )
        except sdk.SearchR1Error as error:
            raise ConfigurationError(str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def list_ids(self, selection: Selection, skipped: Skipped) -> list[str]:
        """Return the ids of the ended runs that ``selection`` takes, newest first; its ``limit`` is not applied.

        Raises:
            GatewayError: the gateway can't be reached, refuses, or answers something else.
        """
        ids: list[str] = []
        after: str | None = None
        while True:
            page = self._page(after)
            for run in page.data:
                if selection.takes(run):
                    if run.status == "running":
                        skipped.add(NOT_ENDED)
                    else:
                        ids.append(run.id)
            if not page.has_more or page.last_id is None:
                return ids
            after = page.last_id

    def runs(self, ids: Sequence[str], *, required: bool, skipped: Skipped) -> Generator[sdk.Run, None, None]:
        """Yield the runs of ``ids`` in that order, a few requests at a time.

        One that is not there is an error where it is ``required``, and else skipped: it expired after it was listed.

        Raises:
            GatewayError: as ``list_ids``.
            ConfigurationError: an id can't be one.
        """
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            for first in range(0, len(ids), CONCURRENCY):
                for run in pool.map(lambda i: self._run(i, required=required), ids[first : first + CONCURRENCY]):
                    if run is None:
                        skipped.add(GONE)
                    else:
                        yield run

    def _page(self, after: str | None) -> sdk.RunList:
        try:
            return self._answer(lambda: self._gateway.research.list(limit=PAGE, after=after))
        except sdk.NotFoundError as error:
            raise GatewayError(f"the gateway refuses: {_message(error)}") from error

    def _run(self, run_id: str, *, required: bool) -> sdk.Run | None:
        try:
            return self._answer(lambda: self._gateway.research.retrieve(run_id))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        except sdk.NotFoundError as error:
            if required:
                raise GatewayError(f"the gateway refuses: {_message(error)}") from error
            return None

    def _answer(self, call: Callable[[], T]) -> T:
        """Make a call; of its errors, only that there is no such run is left to the caller."""
        try:
            return call()
        except sdk.NotFoundError:
            raise
        except sdk.APIStatusError as error:
            raise GatewayError(f"the gateway refuses: {_message(error)}") from error
        except sdk.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, httpx.ConnectError) and not self._reached:
                raise GatewayError(f"no gateway answers at {self._url}; start one with: searchr1 serve") from error
            raise GatewayError(f"{self._url} stopped answering: {type(cause).__name__} {cause}") from error
        except sdk.APIResponseValidationError as error:
            raise GatewayError(str(error)) from error

    def _note_reached(self, _: httpx.Response) -> None:
        self._reached = True

    def _may_pass(self, failure: sdk.APIConnectionError | sdk.APIStatusError) -> bool:
        """Return whether to try again: not where no gateway ever answered, which waiting does not mend."""
        if isinstance(failure, sdk.APIStatusError):
            return failure.status_code in _MAY_PASS
        return self._reached or not isinstance(failure.__cause__, httpx.ConnectError)


def _message(error: sdk.APIStatusError) -> str:
    """Return the error's own text, or the status where the body is none of ours."""
    inner = error.body.get("error") if isinstance(error.body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return f"status {error.status_code}" if message is None else str(message)[:_MAX_MESSAGE_CHARS]
