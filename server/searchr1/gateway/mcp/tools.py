"""The two tools of ``/mcp``: ``research`` answers a question, ``search`` shows what the retriever finds.

A tool call is held to the same key, bounds, slots and budgets as a request of the HTTP API. What goes wrong comes back
as a result with ``is_error``, which the calling model can read.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

from mcp import types
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.access.key_limits import LimitReachedError
from searchr1.gateway.errors import ApiError
from searchr1.gateway.failures import search_failure
from searchr1.gateway.log_lines import RUN_ID
from searchr1.gateway.request_scope import spent_s
from searchr1.gateway.routes.run_requests import begun_by_one, count_limited, require_room, require_within_limits
from searchr1.gateway.runs.drive import run_events
from searchr1.gateway.runs.errors import NoSlotError, SeatExpiredError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services, services_of
from searchr1.gateway.shown import title_and_text
from searchr1.identity import Caller
from searchr1.loop.types import Passage
from searchr1.retrieval.base import SearchFailed
from searchr1.retrieval.received import received
from searchr1.trace_context import TRACE_HEADERS, trace_headers
from searchr1_client import events as wire
from searchr1_client.fold import RunFold

Input = TypeVar("Input", bound=BaseModel)
Report = Callable[[int, str], Awaitable[None]]
"""A report of progress: the number of steps so far, and what this one was."""

_MAX_QUERY_CHARS = 1000


class ResearchInput(BaseModel):
    """The arguments of ``research``."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(description="A complete question; nothing else of the conversation is seen.")
    model: str | None = Field(default=None, description="A served model; by default the server's first.")
    max_searches: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Searches in all; by default the server's bound."
    )
    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Passages per search.")


class SearchInput(BaseModel):
    """The arguments of ``search``."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=_MAX_QUERY_CHARS, description="What to search for.")
    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Passages; by default the server's.")


class Source(BaseModel):
    """A passage that contains the answer."""

    title: str
    url: str | None = None
    passage: str


class ResearchOutput(BaseModel):
    """The structured result of ``research``."""

    answer: str | None = Field(description="The answer; null where the model gave none.")
    status: str = Field(description="How the run ended: completed, exhausted, truncated, deadline, cancelled.")
    citations: list[Source] = Field(description="Passages that the run read and that contain the answer.")
    queries: list[str] = Field(description="The searches of the run, in order.")
    model: str = Field(description="The served model that answered.")
    run_id: str


class FoundPassage(BaseModel):
    """A passage that a search found."""

    title: str
    url: str | None = None
    text: str
    score: float | None = None


class SearchOutput(BaseModel):
    """The structured result of ``search``."""

    passages: list[FoundPassage] = Field(description="Best first.")


_READS = types.ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=True)
TOOLS = (
    types.Tool(
        name="research",
        title="Research a question",
        description="Answers a factual question: a model reasons, searches and reads in turns. "
        "Gives the answer with the passages that it stands in.",
        input_schema=ResearchInput.model_json_schema(),
        output_schema=ResearchOutput.model_json_schema(),
        annotations=_READS,
    ),
    types.Tool(
        name="search",
        title="Search",
        description="Searches the server's sources once and gives the best passages.",
        input_schema=SearchInput.model_json_schema(),
        output_schema=SearchOutput.model_json_schema(),
        annotations=_READS,
    ),
)


class ToolError(Exception):
    """A call that can't be answered. ``str()`` tells the calling model why."""


async def call_tool(request: Request, name: str, arguments: dict[str, Any], report: Report) -> types.CallToolResult:
    """Call a tool for the caller of ``request``; ``report`` is told of each step as it happens."""
    services, caller = services_of(request), caller_of(request)
    # The protocol's server calls from a task of its own, which has the trace of no request.
    TRACE_HEADERS.set(trace_headers(request.headers))
    try:
        if name == "research":
            await require_room(request)
            await require_within_limits(request)
            return await _research(request, _parsed(ResearchInput, arguments), report)
        if name == "search":
            await require_within_limits(request)
            return await _search(services, caller, _parsed(SearchInput, arguments))
        raise ToolError(f"There is no tool {name[:100]!r}: the tools are research and search.")
    except (ToolError, ApiError, LimitReachedError, NoSlotError, SeatExpiredError) as error:
        if isinstance(error, LimitReachedError):
            count_limited(services, error)
        text = error.message if isinstance(error, ApiError) else str(error)
        return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


async def _research(request: Request, given: ResearchInput, report: Report) -> types.CallToolResult:
    services, caller = services_of(request), caller_of(request)
    options = RunOptions(max_searches=given.max_searches, top_k=given.top_k)
    run_id = f"run_{uuid.uuid4().hex}"
    RUN_ID.set(run_id)

    async def with_model(model: ServedModel) -> wire.Run:
        plan = model.admission.plan(
            given.question, options, caller=caller, run_id=run_id, stream=False, spent_s=spent_s(request.scope)
        )
        fold, num_steps = RunFold(), 0
        async with aclosing(run_events(services, plan, run_id=run_id)) as events:
            async for _, event in events:
                fold.add(event)
                if (step := _step(event)) is not None:
                    num_steps += 1
                    await report(num_steps, step)
        return fold.run()

    run = await begun_by_one(request, given.model, with_model, conversation=run_id)
    if run.error is not None:
        raise ToolError(run.error.message)
    output = _research_output(run)
    text = types.TextContent(text=_as_text(output))
    return types.CallToolResult(content=[text], structured_content=output.model_dump())


def _step(event: wire.KnownEvent) -> str | None:
    """Return what an event tells of a run's progress, if it does."""
    match event:
        case wire.SearchStarted():
            return f"Searching: {event.query}"
        case wire.SearchCompleted():
            titles = ", ".join(passage.title for passage in event.passages)
            return f"Read {len(event.passages)} passages: {titles}" if titles else "Found nothing"
        case wire.SearchFailed():
            return "The search failed"
    return None


def _research_output(run: wire.Run) -> ResearchOutput:
    passages = {passage.index: passage for step in run.steps for passage in step.passages}
    cited = dict.fromkeys(citation.index for citation in run.citations)
    return ResearchOutput(
        answer=run.answer,
        status=run.status,
        citations=[
            Source(title=passages[i].title, url=passages[i].url, passage=passages[i].snippet)
            for i in cited
            if i in passages
        ],
        queries=[step.query for step in run.steps if step.query is not None],
        model=run.model,
        run_id=run.id,
    )


def _as_text(output: ResearchOutput) -> str:
    if output.answer is None:
        return f"No answer was found (the run ended as {output.status})."
    sources = [f"[{n}] {s.title}" + (f" {s.url}" if s.url else "") for n, s in enumerate(output.citations, start=1)]
    return "\n".join([output.answer, *(["", "Sources:", *sources] if sources else [])])


async def _search(services: Services, caller: Caller, given: SearchInput) -> types.CallToolResult:
    settings = services.settings
    top_k = settings.top_k if given.top_k is None else given.top_k
    if top_k > settings.max_top_k:
        raise ToolError(f"'top_k' is {top_k}; this server allows at most {settings.max_top_k}.")
    # It takes the place of a run, and nothing of the engine.
    with services.default.seats.seat(caller, num_ids=0, growth_tokens=0, deadline_s=settings.search_timeout_s) as seat:
        await seat.begin(0)
        retriever = services.search.view(caller)
        outcome = await retriever.search(given.query, top_k, settings.search_timeout_s)
    services.access.usage.searched(caller)
    if isinstance(outcome, SearchFailed):
        raise ToolError(search_failure(outcome.kind))
    passages = [_found(passage) for passage in received(outcome.passages[:top_k])]
    output = SearchOutput(passages=passages)
    text = "\n\n".join(f"[{n}] {p.title}\n{p.text}" for n, p in enumerate(passages, start=1)) or "Nothing was found."
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=output.model_dump())


def _found(passage: Passage) -> FoundPassage:
    title, text = title_and_text(passage)
    return FoundPassage(title=title, url=passage.url, text=text, score=passage.score)


def _parsed(model: type[Input], arguments: dict[str, Any]) -> Input:
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise ToolError(f"'{'.'.join(map(str, first['loc']))}': {first['msg']}.") from error
