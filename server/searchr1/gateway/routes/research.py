"""``/v1/research``: runs as native events or as one JSON object, and stored runs to follow, cancel and replay."""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field, ValidationError, model_validator

from searchr1.gateway.access.admission import Plan, RunOptions
from searchr1.gateway.access.auth import caller_of, check_may_list
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.log_lines import RUN_ID
from searchr1.gateway.openapi import EVENT_STREAM, KEY_REUSED, given
from searchr1.gateway.request_scope import spent_s
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.routes.idempotency import REPLAYED, ROOM_OR_KNOWN_KEY, Key, started_once
from searchr1.gateway.routes.run_requests import (
    asked_question,
    begun_by_one,
    begun_stream,
    cancel_on_disconnect,
    check_room,
    hub_of,
    raise_if_failed,
)
from searchr1.gateway.routes.streaming import followed_stream
from searchr1.gateway.runs.errors import RunNotFoundError
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.hub import OnDisconnect, scope_of
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import RunMeta, RunState, RunUnreadableError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import services_of
from searchr1.loop.conversation import Turn
from searchr1.loop.types import Passage
from searchr1.printable import plain_json
from searchr1.retrieval.frozen import FrozenSearch, RecordedSearches
from searchr1.retrieval.received import shortened
from searchr1.settings import Settings
from searchr1_client.events import Run, RunDeleted, RunList, RunSummary, Trajectory

router = APIRouter(route_class=GuardedRoute)


class EventStream(Response):
    """Server-Sent Events, as the OpenAPI document names them."""

    media_type = "text/event-stream"


MAX_SEQ = 2**31
MAX_SEQ_DIGITS = 10
MAX_TURNS_BACK = 16
"""Earlier runs that a follow-up question is put after."""

RunId = Annotated[str, Path(max_length=128, examples=["run_0123456789abcdef0123456789abcdef"])]


class RunRequest(RunOptions):
    """Options of a run, and the form of its answer."""

    stream: bool = Field(default=False, description="Server-Sent Events instead of one JSON object.")
    store: bool = Field(default=True, description="Keep the run, to be resumed, fetched, shared, replayed, exported.")


class ResearchRequest(RunRequest):
    """A question and how to run it."""

    question: str = Field(description="What to find out.", examples=["Which currency is used in Mali?"])
    model: str | None = Field(default=None, description="A served model; by default the first.")
    previous_run_id: str | None = Field(
        default=None, max_length=128, description="A stored run that this question follows; its own ones count too."
    )


class ReplayRequest(RunRequest):
    """A run to run again, with the searches that it made then. What is not set is as it was."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [given("run_id"), given("run")]})

    run_id: str | None = Field(
        default=None, max_length=128, description="A stored run.", examples=["run_0123456789abcdef0123456789abcdef"]
    )
    run: Run | None = Field(default=None, description="Or a run with its `trajectory`, as the server gave it.")
    on_miss: Literal["fail", "search"] = Field(
        default="fail", description="For a query that the record lacks: let the search fail, or search."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.run_id is None) == (self.run is None):
            raise ValueError("give either 'run_id' or 'run'")
        return self


Start = Callable[[Plan, RunMeta], Awaitable[LiveRun]]
Begin = Callable[[str, Start], Awaitable[LiveRun]]
"""Starter of a request's run, which gets the id it is given. Raises ``ApiError`` for one that is refused."""

_PROVIDER = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_RUN: dict[int | str, dict[str, Any]] = {
    200: {"content": EVENT_STREAM, "description": "The run, or its events."},
    **KEY_REUSED,
}
_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": EVENT_STREAM, "description": "The run's events."}}


@router.post(
    "/v1/research", response_model=Run, responses=_RUN, dependencies=ROOM_OR_KNOWN_KEY, summary="Ask a question"
)
async def research(request: Request, body: ResearchRequest, idempotency_key: Key = None) -> Response:
    """Run the question to its end. With ``stream``, events arrive as they happen.

    The run's id is in ``x-run-id``. A stream whose reader is gone can be resumed for a while, then
    the run is cancelled.
    """

    async def begin(run_id: str, start: Start) -> LiveRun:
        services_of(request).models.named(body.model)
        turns, before = await _after(request, body.previous_run_id, body.question)

        async def with_model(model: ServedModel) -> LiveRun:
            question = await asked_question(turns, model, request, deadline_s=body.deadline_s)
            plan = model.admission.plan(
                question.text,
                body,
                caller=caller_of(request),
                run_id=run_id,
                stream=body.stream,
                spent_s=spent_s(request.scope),
            )
            stored = {"previous_run_id": body.previous_run_id}
            return await start(plan, _meta(request, run_id, plan.model, body.question.strip(), stored))

        return await begun_by_one(request, body.model, with_model, conversation=run_id, before=before)

    return await _answer(request, body, begin, comes_again=idempotency_key is not None)


@router.post(
    "/v1/research/replay",
    response_model=Run,
    responses=_RUN,
    dependencies=ROOM_OR_KNOWN_KEY,
    summary="Run a stored run again",
)
async def replay(request: Request, body: ReplayRequest, idempotency_key: Key = None) -> Response:
    """Run a question again with its searches answered from the record. Greedy runs then repeat token by token."""

    async def begin(run_id: str, start: Start) -> LiveRun:
        return await start(*await _replay_admitted(request, body, run_id))

    return await _answer(request, body, begin, comes_again=idempotency_key is not None)


async def _replay_admitted(request: Request, body: ReplayRequest, run_id: str) -> tuple[Plan, RunMeta]:
    services = services_of(request)
    if body.run is not None:
        old = body.run
        _check_text(old)
    else:
        assert body.run_id is not None
        old = await (await _find(request, body.run_id)).run()
    if old.trajectory is None:
        raise invalid("The run has no trajectory: it has not ended.", param="run" if body.run else "run_id")
    if len(old.question) > services.settings.max_question_chars:
        raise invalid("The run's question is too long.", param="run.question", code="string_too_long")
    options = _options(body, old.trajectory)
    model = services.models.get(old.model) or services.default
    check_room(request, model)
    plan = model.admission.plan(
        old.trajectory.question,
        options,
        caller=caller_of(request),
        run_id=run_id,
        stream=body.stream,
        spent_s=spent_s(request.scope),
    )
    record = RecordedSearches(_searches(old.trajectory, services.settings), body.on_miss == "search")
    plan = replace(plan, retriever=record.retriever(plan.retriever), record=record)
    return plan, _meta(request, run_id, plan.model, old.question, {"replay_of": old.id[:128]})


@router.get("/v1/research", summary="List stored runs")
async def list_runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=128, description="The `last_id` of the page before.")] = None,
) -> RunList:
    """List the caller's own runs, newest first. A server without API keys lists runs to its admin alone."""
    check_may_list(services_of(request).settings, request.headers.get("authorization"))
    states = await _listed(request, after, limit + 1)
    page = [
        RunSummary.model_validate(
            {
                "id": state.meta.id,
                "created": state.meta.created,
                "status": state.status,
                "question": state.meta.question,
                "answer": state.answer,
            }
        )
        for state in states[:limit]
    ]
    return RunList(data=page, has_more=len(states) > limit, last_id=page[-1].id if page else None)


@router.get("/v1/research/{run_id}", response_model=Run, summary="Get a stored run")
async def retrieve(request: Request, run_id: RunId) -> Response:
    """Return the run as it stands; once it has ended, with its whole ``trajectory``."""
    handle = await _find(request, run_id)
    return _json(await handle.run())


@router.get(
    "/v1/research/{run_id}/events", summary="Follow a stored run", response_class=EventStream, responses=_EVENTS
)
async def follow(
    request: Request,
    run_id: RunId,
    after: Annotated[int, Query(ge=-1, le=MAX_SEQ, description="Only events with a higher `seq`.")] = -1,
    last_event_id: Annotated[
        str | None, Header(description="As `after`, which it overrules.", json_schema_extra={"pattern": "^[0-9]{1,9}$"})
    ] = None,
) -> Response:
    """Stream its events from the first, or after a given one, to its end. The run may go on or be long over."""
    if last_event_id is not None:
        if not last_event_id.isdecimal() or len(last_event_id) > MAX_SEQ_DIGITS or int(last_event_id) > MAX_SEQ:
            raise invalid("'Last-Event-ID' must be the 'id' of an event of this run.", param="Last-Event-ID")
        after = int(last_event_id)
    handle = await _find(request, run_id)
    return followed_stream(handle.frames(after), heartbeat_s=services_of(request).settings.heartbeat_s)


@router.post("/v1/research/{run_id}/cancel", response_model=Run, summary="Cancel a run")
async def cancel(request: Request, run_id: RunId) -> Response:
    """Free the engine at once; the run's stream ends as ``cancelled``. A run that has ended stays as it is."""
    handle = await _find(request, run_id)
    await handle.cancel()
    return _json(await handle.run())


@router.delete("/v1/research/{run_id}", summary="Delete a stored run")
async def delete(request: Request, run_id: RunId) -> RunDeleted:
    """End the run if need be, and forget it."""
    try:
        await hub_of(request).delete(run_id, caller_of(request), "research")
    except RunNotFoundError as error:
        raise _not_found(error) from error
    return RunDeleted(id=run_id)


async def _answer(request: Request, body: RunRequest, begin: Begin, *, comes_again: bool) -> Response:
    """Start a run, or find the one of the request's key, and answer it.

    ``comes_again`` is true for a client that may send the request again when it loses the answer: a run that is
    stored then waits for it, as for the reader of a stream.
    """
    hub = hub_of(request)
    on_disconnect: OnDisconnect = "grace" if body.store and (body.stream or comes_again) else "cancel"

    start = partial(hub.start, on_disconnect=on_disconnect, store=body.store)
    shared = body.store and services_of(request).settings.store_runs
    started = await started_once(request, lambda run_id: begin(run_id, start), shared=shared)
    run = started.run
    RUN_ID.set(run.meta.id)
    if not body.stream:
        whole = raise_if_failed(await cancel_on_disconnect(run.to_end(), request))
        response = _json(whole.model_copy(update={"trajectory": None}))
    elif isinstance(run, LiveRun):
        response = await begun_stream(request, run, run.frames())
    else:
        response = followed_stream(run.frames(), heartbeat_s=services_of(request).settings.heartbeat_s)
    response.headers["x-run-id"] = run.meta.id
    if started.is_replayed:
        response.headers[REPLAYED] = "true"
    return response


async def _find(request: Request, run_id: str) -> RunHandle:
    try:
        return await hub_of(request).find(run_id, caller_of(request), "research")
    except RunNotFoundError as error:
        raise _not_found(error) from error


async def _listed(request: Request, after: str | None, limit: int) -> list[RunState]:
    try:
        return await hub_of(request).list_runs(caller_of(request), after, limit)
    except RunNotFoundError as error:
        raise _not_found(error) from error


def _not_found(error: RunNotFoundError) -> ApiError:
    message = f"There is no stored run {error.run_id[:100]!r}. It may have expired, or belong to another key."
    return ApiError(404, message, code="run_not_found")


async def _after(request: Request, previous: str | None, question: str) -> tuple[list[Turn], str | None]:
    """Return the questions and answers of the runs that ``question`` follows, then itself; and the last one's model."""
    turns: list[Turn] = []
    model: str | None = None
    while previous is not None and len(turns) < 2 * MAX_TURNS_BACK:
        handle = await _find(request, previous)
        run = await handle.run()
        if run.status == "running":
            raise invalid("The previous run has not ended.", param="previous_run_id")
        model = model or handle.meta.model
        turns = [Turn("user", handle.meta.question), Turn("assistant", run.answer or ""), *turns]
        previous = handle.meta.request.get("previous_run_id")
        if not isinstance(previous, str | None):
            raise RunUnreadableError(handle.meta.id, "its state is damaged, or of another release")
    return [*turns, Turn("user", question)], model


def _meta(request: Request, run_id: str, model: str, question: str, stored: dict[str, Any]) -> RunMeta:
    return RunMeta(
        id=run_id,
        kind="research",
        created=int(time.time()),
        model=model,
        question=question,
        scope=scope_of(caller_of(request)),
        request=stored,
    )


def _check_text(run: Run) -> None:
    try:
        run.model_dump_json()
    except ValueError as error:
        raise invalid("The run contains half of a surrogate pair; send valid Unicode.", param="run") from error


def _options(body: ReplayRequest, trajectory: Trajectory) -> RunOptions:
    """Return the request's options, and the old run's where it sets none. The client may have written those itself."""
    old = trajectory.options.model_dump(exclude_none=True)
    given = body.model_dump(include=set(RunOptions.model_fields), exclude_none=True)
    try:
        return RunOptions.model_validate({**old, **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        raise invalid(f"'{option}': {first['msg']}.", param=f"run.trajectory.options.{option}") from error


def _searches(trajectory: Trajectory, settings: Settings) -> tuple[FrozenSearch, ...]:
    """Return the recorded searches, within the bounds of live ones: the client may have written the record itself."""
    return tuple(
        FrozenSearch(
            query=search.query,
            passages=tuple(
                shortened(Passage(p.id, p.title, p.text, p.url, p.score), settings.passage_chars)
                for p in search.passages[: settings.max_top_k]
            ),
            provider=search.provider if _PROVIDER.fullmatch(search.provider) else "",
            error=None if search.error is None else search.error.message,
        )
        for search in trajectory.searches
    )


def _json(run: Run) -> Response:
    return Response(plain_json(run.model_dump_json().encode()), media_type="application/json")
