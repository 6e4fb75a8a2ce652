"""Reading stored runs from a running gateway."""

import json
import random
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from searchr1.errors import ConfigurationError, GatewayError
from searchr1.export.selection import GONE, NOT_ENDED, Selection, Skipped
from searchr1_client.events import Run, RunList

PAGE = 100
"""Runs a page of the listing; the gateway gives no more."""
CONCURRENCY = 8
TIMEOUT_S = 60.0
MAX_ATTEMPTS = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0

_MAY_PASS = (429, 502, 503, 504)
_MAX_MESSAGE_CHARS = 300

T = TypeVar("T", bound=BaseModel)


class GatewayRuns:
    """The stored runs of one gateway, read only. Use it as a context manager.

    Raises:
        ConfigurationError: the address or the key can't be used.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        if not (api_key or "").isascii():
            raise ConfigurationError("the API key holds characters that cannot be sent")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            scheme = httpx.URL(self._url).scheme
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"'{url}' is not a server's address: {error}") from error
        if scheme not in ("http", "https"):
            raise ConfigurationError(f"'{url}' is not a server's address; give one such as http://127.0.0.1:8000")
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT_S)
        self._reached = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def list_ids(self, selection: Selection, skipped: Skipped) -> list[str]:
        """The ids of the ended runs that ``selection`` takes, newest first; its ``limit`` is not applied.

        Raises:
            GatewayError: the gateway can't be reached, refuses, or answers something else.
        """
        ids: list[str] = []
        after: str | None = None
        while True:
            params: dict[str, str | int] = {"limit": PAGE} | ({"after": after} if after else {})
            page = self._get("/v1/research", RunList, params)
            for run in page.data:
                if selection.takes(run):
                    if run.status == "running":
                        skipped.add(NOT_ENDED)
                    else:
                        ids.append(run.id)
            if not page.has_more or page.last_id is None:
                return ids
            after = page.last_id

    def runs(self, ids: Sequence[str], *, required: bool, skipped: Skipped) -> Generator[Run, None, None]:
        """The runs of ``ids`` in that order, a few requests at a time.

        One that is not there is an error where it is ``required``, and else skipped: it expired after it was listed.

        Raises:
            GatewayError: as ``list_ids``.
        """
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            for first in range(0, len(ids), CONCURRENCY):
                for run in pool.map(lambda i: self._run(i, required=required), ids[first : first + CONCURRENCY]):
                    if run is None:
                        skipped.add(GONE)
                    else:
                        yield run

    def _run(self, run_id: str, *, required: bool) -> Run | None:
        try:
            return self._get(f"/v1/research/{_path_part(run_id)}", Run)
        except _NotFoundError as error:
            if required:
                raise GatewayError(f"the gateway refuses: {error}") from error
            return None

    def _get(self, path: str, kind: type[T], params: dict[str, str | int] | None = None) -> T:
        response = self._response(path, params)
        if response.status_code == 404 and path != "/v1/research":
            raise _NotFoundError(_message(response))
        if not response.is_success:
            raise GatewayError(f"the gateway refuses: {_message(response)}")
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise GatewayError(f"{self._url} answers, but not as a Search-R1 gateway does") from error

    def _response(self, path: str, params: dict[str, str | int] | None) -> httpx.Response:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            last = attempt == MAX_ATTEMPTS
            try:
                response = self._http.get(self._url + path, params=params)
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError) and not self._reached:
                    raise GatewayError(f"no gateway answers at {self._url}; start one with: searchr1 serve") from error
                if last:
                    raise GatewayError(f"{self._url} stopped answering: {type(error).__name__} {error}") from error
                time.sleep(_wait_s(None, attempt))
            else:
                self._reached = True
                if last or response.status_code not in _MAY_PASS:
                    return response
                time.sleep(_wait_s(response, attempt))
        raise AssertionError("the last attempt returns or raises")


class _NotFoundError(Exception):
    """The gateway knows no such run."""


def _path_part(run_id: str) -> str:
    if not run_id or not run_id.replace("-", "").replace("_", "").isalnum() or not run_id.isascii():
        raise ConfigurationError(f"{run_id!r} is not a run's id")
    return run_id


def _wait_s(response: httpx.Response | None, attempt: int) -> float:
    """As long as the gateway asks for, else twice as long each time."""
    asked = "" if response is None else response.headers.get("retry-after", "")
    if asked.isdecimal():
        return min(float(asked), LONGEST_WAIT_S)
    return float(min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0))


def _message(response: httpx.Response) -> str:
    """The error's own text, or the status where the body is none of ours."""
    try:
        return str(response.json()["error"]["message"])[:_MAX_MESSAGE_CHARS]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return f"status {response.status_code}"
