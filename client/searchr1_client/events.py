"""The wire types: every event that a run sends, defined once for the server and every client.

Each event is one JSON object. ``type`` tells which; ``seq`` counts from 0 without gaps; ``t_ms`` is the time since the
run started. A type that this version does not know parses as ``UnknownEvent``, so that newer servers break no client.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

T = TypeVar("T")

RunStatus = Literal["completed", "exhausted", "truncated", "cancelled", "deadline", "failed"]
CacheState = Literal["hit", "miss", "stale"]
Listed = Annotated[list[T], Field(fail_fast=True)]
"""A list of which the first wrong item is told alone: a server that is sent a long one should not make an error of
each."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class WirePassage(_Wire):
    """A passage as shown to people. ``index`` counts from 1 over all searches of the run."""

    index: int
    title: str
    url: str | None = None
    snippet: str
    score: float | None = None


class Citation(_Wire):
    """A passage of this run that contains the answer: ``snippet[start:end]`` of passage ``index`` spells it."""

    index: int
    title: str
    url: str | None = None
    start: int
    end: int


class Usage(_Wire):
    """The cost of a run, in tokens, searches and milliseconds."""

    prompt_tokens: int = 0
    """Tokens of the question's prompt."""
    completion_tokens: int = 0
    """Tokens that the model generated, over all turns."""
    observation_tokens: int = 0
    """Tokens put in after actions: passages and retry texts."""
    reasoning_tokens: int = 0
    """The part of ``completion_tokens`` that is not the answer's own text: reasoning, queries, tags."""
    cached_tokens: int = 0
    """Input tokens, summed over turns, that the engine served from its prefix cache, where it tells."""
    turns: int = 0
    searches: int = 0
    cost_usd: float | None = None
    """Price of the searches that reached a provider; None where the operator has set no prices."""
    first_token_ms: float | None = None
    """Time from the run's start to the model's first visible text."""
    duration_ms: float = 0.0


class WireError(_Wire):
    """The failure of a run or a search."""

    code: str
    message: str


class Event(_Wire):
    """The fields that all events share."""

    seq: int
    run_id: str
    turn: int
    t_ms: float


class RunStarted(Event):
    """The first event."""

    type: Literal["run.started"] = "run.started"
    model: str
    question: str
    created: int = 0
    """Unix time, seconds."""


class RunQueued(Event):
    """The run waits for its start. Sent again when its place changes, and never to runs that start at once."""

    type: Literal["run.queued"] = "run.queued"
    place: int
    """Runs that are expected to start before it."""


class ThinkDelta(Event):
    """Reasoning text as it streams."""

    type: Literal["think.delta"] = "think.delta"
    text: str


class SearchStarted(Event):
    """The model asked for a search."""

    type: Literal["search.started"] = "search.started"
    query: str


class SearchCompleted(Event):
    """The search's passages, as they entered the context."""

    type: Literal["search.completed"] = "search.completed"
    query: str
    passages: list[WirePassage]
    cache: CacheState
    age_s: float | None = None
    """Seconds since the provider answered, where a cache did."""
    provider: str = ""
    """Name of the provider that found the passages."""
    duration_ms: float


class SearchFailed(Event):
    """The search did not work; the model went on with an empty result."""

    type: Literal["search.failed"] = "search.failed"
    query: str
    error: WireError
    provider: str = ""
    """Name of the provider that failed, where one did."""
    duration_ms: float


class ActionInvalid(Event):
    """The turn held no action that can be taken. Answer deltas of this turn are void."""

    type: Literal["action.invalid"] = "action.invalid"
    reason: str


class AnswerDelta(Event):
    """Answer text as it streams; void unless ``answer.completed`` follows in the same turn."""

    type: Literal["answer.delta"] = "answer.delta"
    text: str


class AnswerCompleted(Event):
    """The answer and the passages that contain it."""

    type: Literal["answer.completed"] = "answer.completed"
    text: str
    citations: list[Citation]


class RunCompleted(Event):
    """The last event of a run that did not fail."""

    type: Literal["run.completed"] = "run.completed"
    status: RunStatus
    usage: Usage


class RunFailed(Event):
    """The last event of a run that failed."""

    type: Literal["run.failed"] = "run.failed"
    error: WireError
    usage: Usage


class UnknownEvent(Event):
    """An event of a type that this version does not know; its fields are kept."""

    model_config = ConfigDict(extra="allow")
    type: str


KnownEvent = (
    RunStarted
    | RunQueued
    | ThinkDelta
    | SearchStarted
    | SearchCompleted
    | SearchFailed
    | ActionInvalid
    | AnswerDelta
    | AnswerCompleted
    | RunCompleted
    | RunFailed
)

EVENT_TYPES = (
    "run.started",
    "run.queued",
    "think.delta",
    "search.started",
    "search.completed",
    "search.failed",
    "action.invalid",
    "answer.delta",
    "answer.completed",
    "run.completed",
    "run.failed",
)
TERMINAL_TYPES = ("run.completed", "run.failed")


def _tag_of(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in EVENT_TYPES else "unknown"


AnyEvent = Annotated[
    Annotated[RunStarted, Tag("run.started")]
    | Annotated[RunQueued, Tag("run.queued")]
    | Annotated[ThinkDelta, Tag("think.delta")]
    | Annotated[SearchStarted, Tag("search.started")]
    | Annotated[SearchCompleted, Tag("search.completed")]
    | Annotated[SearchFailed, Tag("search.failed")]
    | Annotated[ActionInvalid, Tag("action.invalid")]
    | Annotated[AnswerDelta, Tag("answer.delta")]
    | Annotated[AnswerCompleted, Tag("answer.completed")]
    | Annotated[RunCompleted, Tag("run.completed")]
    | Annotated[RunFailed, Tag("run.failed")]
    | Annotated[UnknownEvent, Tag("unknown")],
    Discriminator(_tag_of),
]

_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent)


def parse_event(data: str | bytes) -> KnownEvent | UnknownEvent:
    """Parse one event's JSON. Raises ``pydantic.ValidationError`` where it is not an event at all."""
    event: KnownEvent | UnknownEvent = _ADAPTER.validate_json(data)
    return event


class Run(_Wire):
    """A whole run as one JSON object, as ``stream: false`` returns it and as it is stored."""

    id: str
    object: Literal["research.run"] = "research.run"
    created: int
    """Unix time, seconds."""
    model: str
    question: str
    status: RunStatus | Literal["running"]
    answer: str | None = None
    citations: Listed[Citation] = Field(default_factory=list)
    steps: Listed["Step"] = Field(default_factory=list)
    usage: Usage
    error: WireError | None = None
    trajectory: "Trajectory | None" = None
    """Every token of the run, once it has ended; only ``GET /v1/research/{run_id}`` gives it."""


class Step(_Wire):
    """One turn of a run."""

    turn: int
    reasoning: str = ""
    query: str | None = None
    passages: Listed[WirePassage] = Field(default_factory=list)
    cache: CacheState | None = None
    age_s: float | None = None
    provider: str | None = None
    duration_ms: float | None = None
    search_error: WireError | None = None
    invalid: str | None = None


class TrajectoryPassage(_Wire):
    """A passage as the search gave it, within the server's bound; ``title`` and ``text`` made the model's context."""

    id: str
    title: str
    text: str
    url: str | None = None
    score: float | None = None


class TrajectorySearch(_Wire):
    """One search of a run: its passages, or why there are none."""

    turn: int
    query: str
    passages: Listed[TrajectoryPassage] = Field(default_factory=list)
    cache: CacheState | None = None
    age_s: float | None = None
    provider: str = ""
    error: WireError | None = None
    duration_ms: float


class TrajectorySegment(_Wire):
    """A run of tokens that was tokenized alone. All segments' ``token_ids`` in order are the trajectory."""

    kind: Literal["prompt", "completion", "observation", "retry"]
    turn: int
    """Turn that it belongs to; 0 for the prompt."""
    text: str
    token_ids: Listed[int]
    """Ids that stand in the context."""
    loss_mask: Listed[Literal[0, 1]]
    """Mask over ``token_ids``: 1 where the policy sampled it, so that training may take a loss on it."""
    sampled_ids: Listed[int] = Field(default_factory=list)
    """Ids that the engine sampled, before the cut at the closing tag; empty for text that was put in."""
    logprobs: Listed[float] | None = None
    """Logprobs that the engine gave, one for each of ``sampled_ids``, where the request asked for them."""


class TrajectoryOptions(_Wire):
    """The sampling options and the bounds of a run."""

    max_turns: int
    max_searches: int | None = None
    max_tokens: int | None = None
    top_k: int
    temperature: float
    top_p: float = 1.0
    seed: int | None = None


class TrajectoryTimings(_Wire):
    """Wall times in milliseconds, in turn order."""

    completions_ms: Listed[float] = Field(default_factory=list)
    searches_ms: Listed[float] = Field(default_factory=list)
    early_ms: Listed[float] = Field(default_factory=list)
    """Part of each search that passed while the model was still writing."""
    total_ms: float = 0.0


class Trajectory(_Wire):
    """The record of a run: every token and search, for training, replay and export."""

    schema_version: Literal[1] = 1
    question: str
    """Question as the model was asked it: after the conversation before it, where there was one."""
    profile: str
    """Name of the format that the checkpoint expects."""
    options: TrajectoryOptions
    segments: Listed[TrajectorySegment]
    searches: Listed[TrajectorySearch] = Field(default_factory=list)
    timings: TrajectoryTimings = Field(default_factory=TrajectoryTimings)
    policy_version: str | None = None
    """Name of the weights that sampled the run, where the server knows."""


class RunSummary(_Wire):
    """A stored run in a listing."""

    id: str
    created: int
    status: RunStatus | Literal["running"]
    question: str
    answer: str | None = None


class RunList(_Wire):
    """One page of stored runs, newest first."""

    object: Literal["list"] = "list"
    data: list[RunSummary]
    has_more: bool = False
    last_id: str | None = None
    """Id of the last run; pass it as ``after`` for the next page."""


class RunDeleted(_Wire):
    """The answer to a deletion."""

    id: str
    object: Literal["research.run.deleted"] = "research.run.deleted"
    deleted: bool = True
