"""Calls as data: each one's method, path, body and the type of its answer."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

from pydantic import BaseModel

from searchr1_client._errors import InvalidArgumentError
from searchr1_client._models import ModelList
from searchr1_client.events import Run, RunDeleted, RunList

T = TypeVar("T", bound=BaseModel)

IDEMPOTENCY_KEY = "Idempotency-Key"

_KEY = re.compile(r"[ -~]{1,255}")
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class ReplayOptions(TypedDict, total=False):
    """Options of a run. One that is left out, or None, is the server's choice; in a replay, the old run's."""

    max_turns: int | None
    max_searches: int | None
    """Searches of the whole run, at most. 0 is closed book: the model answers from its own knowledge."""
    max_tokens: int | None
    """Sampled tokens of the whole run."""
    top_k: int | None
    """Passages per search."""
    temperature: float | None
    """Sampling temperature; 0 is greedy."""
    top_p: float | None
    seed: int | None
    deadline_s: float | None
    """Seconds after which the run ends as ``deadline``."""
    stream_interval_ms: int | None
    """Milliseconds between two pieces of a stream's text; 0 sends each token as it comes."""
    cache: Literal["default", "only"] | None
    """``only`` answers searches from the server's cache alone."""
    logprobs: bool | None
    """Record the sampled tokens' logprobs in the trajectory."""
    store: bool | None
    """False: the server forgets the run when it ends, and its stream can't be taken up again."""


class RunOptions(ReplayOptions, total=False):
    """Options of a new question: ``ReplayOptions`` and those that a replay may not choose."""

    model: str | None
    previous_run_id: str | None
    """The stored run that this question follows: it is asked after that run's question and answer."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request, and the type that its JSON answer has."""

    method: str
    path: str
    answer: type[T]
    body: dict[str, Any] | None = None
    params: dict[str, str | int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were chosen, as JSON values."""
    return {name: value for name, value in options.items() if value is not None}


def create_call(question: str, options: RunOptions, *, key: str | None = None, stream: bool = False) -> Call[Run]:
    """Return the call that asks a question. Sent again, it starts no second run: see ``key_headers``."""
    body = {"question": question, "stream": stream, **given(options)}
    return Call("POST", "/v1/research", Run, body, headers=key_headers(key))


def replay_call(
    run: str | Run,
    options: ReplayOptions,
    *,
    on_miss: Literal["fail", "search"],
    key: str | None = None,
    stream: bool = False,
) -> Call[Run]:
    """Return the call that runs a stored run, or one that carries its ``trajectory``, again.

    Raises:
        InvalidArgumentError: the run has no trajectory.
    """
    if isinstance(run, Run) and run.trajectory is None:
        raise InvalidArgumentError("the run has no trajectory; research.retrieve(run.id) has it once the run has ended")
    what = {"run_id": run} if isinstance(run, str) else {"run": run.model_dump(mode="json")}
    body = {**what, "on_miss": on_miss, "stream": stream, **given(options)}
    return Call("POST", "/v1/research/replay", Run, body, headers=key_headers(key))


def retrieve_call(run_id: str) -> Call[Run]:
    """Return the call that gets a stored run."""
    return Call("GET", _run_path(run_id), Run)


def events_call(run_id: str, after: int) -> Call[Run]:
    """Return the call that streams a stored run's events with a ``seq`` above ``after``; all of them for -1."""
    headers = {"Last-Event-ID": str(after)} if after >= 0 else {}
    return Call("GET", f"{_run_path(run_id)}/events", Run, headers=headers)


def cancel_call(run_id: str) -> Call[Run]:
    """Return the call that ends a run."""
    return Call("POST", f"{_run_path(run_id)}/cancel", Run)


def delete_call(run_id: str) -> Call[RunDeleted]:
    """Return the call that deletes a stored run."""
    return Call("DELETE", _run_path(run_id), RunDeleted)


def list_call(limit: int, after: str | None) -> Call[RunList]:
    """Return the call that lists one page of stored runs."""
    return Call("GET", "/v1/research", RunList, params={"limit": limit, **({"after": after} if after else {})})


def models_call() -> Call[ModelList]:
    """Return the call that lists the served models."""
    return Call("GET", "/v1/models", ModelList)


def key_headers(key: str | None) -> dict[str, str]:
    """Return the header by which the server knows a call that is sent again: ``key``, or a random one.

    Raises:
        InvalidArgumentError: ``key`` is not 1 to 255 printable ASCII characters.
    """
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidArgumentError("an idempotency key is 1 to 255 printable ASCII characters, such as a UUID")
    return {IDEMPOTENCY_KEY: str(uuid.uuid4()) if key is None else key}


def is_run_id(text: str) -> bool:
    """Return True for text that can stand in a path as one run's id."""
    return _RUN_ID.fullmatch(text) is not None


def _run_path(run_id: str) -> str:
    if not is_run_id(run_id):
        raise InvalidArgumentError(f"{run_id!r} is not a run's id")
    return f"/v1/research/{run_id}"


def root_url(base_url: str) -> str:
    """Return a server's base address without ``/v1`` and slashes at its end, so that paths can follow it."""
    return base_url.rstrip("/").removesuffix("/v1")


def auth_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers that present ``api_key``; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
