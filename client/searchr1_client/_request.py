"""What the server can be asked, as data: each call's method, path, body and the type of its answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

from pydantic import BaseModel

from searchr1_client._models import ModelList
from searchr1_client.events import Run, RunDeleted, RunList

T = TypeVar("T", bound=BaseModel)

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class ReplayOptions(TypedDict, total=False):
    """How to run a question. What is left out, or None, is the server's choice; in a replay, the old run's."""

    max_turns: int | None
    max_searches: int | None
    """0 is closed book: the model answers from its own knowledge."""
    max_tokens: int | None
    """Sampled tokens of the whole run."""
    top_k: int | None
    """Passages per search."""
    temperature: float | None
    """0 is greedy."""
    top_p: float | None
    seed: int | None
    deadline_s: float | None
    """Seconds after which the run ends as ``deadline``."""
    cache: Literal["default", "only"] | None
    """``only`` answers searches from the server's cache alone."""
    logprobs: bool | None
    """Record the sampled tokens' logprobs in the trajectory."""
    store: bool | None
    """False: the server forgets the run when it ends, and its stream can't be taken up again."""


class RunOptions(ReplayOptions, total=False):
    """``ReplayOptions``, and what only a new question may choose."""

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
    """The options that were chosen, as JSON values."""
    return {name: value for name, value in options.items() if value is not None}


def create_call(question: str, options: RunOptions, *, stream: bool = False) -> Call[Run]:
    """Ask a question."""
    return Call("POST", "/v1/research", Run, {"question": question, "stream": stream, **given(options)})


def replay_call(
    run: str | Run, options: ReplayOptions, *, on_miss: Literal["fail", "search"], stream: bool = False
) -> Call[Run]:
    """Run a stored run, or one that carries its ``trajectory``, again. Raises ``ValueError`` for a run without one."""
    if isinstance(run, Run) and run.trajectory is None:
        raise ValueError("the run has no trajectory; research.retrieve(run.id) has it once the run has ended")
    what = {"run_id": run} if isinstance(run, str) else {"run": run.model_dump(mode="json")}
    body = {**what, "on_miss": on_miss, "stream": stream, **given(options)}
    return Call("POST", "/v1/research/replay", Run, body)


def retrieve_call(run_id: str) -> Call[Run]:
    """A stored run as it stands."""
    return Call("GET", _run_path(run_id), Run)


def events_call(run_id: str, after: int) -> Call[Run]:
    """A stored run's events with a ``seq`` above ``after``; all of them for -1."""
    headers = {"Last-Event-ID": str(after)} if after >= 0 else {}
    return Call("GET", f"{_run_path(run_id)}/events", Run, headers=headers)


def cancel_call(run_id: str) -> Call[Run]:
    """End a run."""
    return Call("POST", f"{_run_path(run_id)}/cancel", Run)


def delete_call(run_id: str) -> Call[RunDeleted]:
    """Forget a stored run."""
    return Call("DELETE", _run_path(run_id), RunDeleted)


def list_call(limit: int, after: str | None) -> Call[RunList]:
    """One page of stored runs."""
    return Call("GET", "/v1/research", RunList, params={"limit": limit, **({"after": after} if after else {})})


def models_call() -> Call[ModelList]:
    """The served models."""
    return Call("GET", "/v1/models", ModelList)


def is_run_id(text: str) -> bool:
    """Whether it can stand in a path as one run's id."""
    return _RUN_ID.fullmatch(text) is not None


def _run_path(run_id: str) -> str:
    if not is_run_id(run_id):
        raise ValueError(f"{run_id!r} is not a run's id")
    return f"/v1/research/{run_id}"


def root_url(base_url: str) -> str:
    """A server's base address, with or without its ``/v1``, as paths are put after it."""
    return base_url.rstrip("/").removesuffix("/v1")


def research_url(base_url: str) -> str:
    """The address of ``/v1/research`` under a server's base address."""
    return root_url(base_url) + "/v1/research"


def auth_headers(api_key: str | None) -> dict[str, str]:
    """The headers that show ``api_key``; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
