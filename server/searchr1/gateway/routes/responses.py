"""``/v1/responses``: OpenAI's Responses, streamed or whole, stored, in the background, and resumed."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from searchr1.gateway.access.admission import Plan
from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.candidates import opening_of
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.openai.ignored import IGNORED_HEADERS, telling_ignored
from searchr1.gateway.request_scope import spent_s
from searchr1.gateway.responses.compaction import compact
from searchr1.gateway.responses.example import EXAMPLE_RESPONSE
from searchr1.gateway.responses.intake import (
    Asked,
    FindRun,
    is_stored_request,
    read_asked,
    run_options,
    stored_request,
    turns_to_compact,
)
from searchr1.gateway.responses.items import Json, usage_object
from searchr1.gateway.responses.models import CompactRequest, Includable, ResponsesRequest
from searchr1.gateway.responses.shape import ResponseShape, response_of
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.routes.run_requests import (
    ROOM,
    asked_question,
    begun_by_one,
    begun_stream,
    cancel_on_disconnect,
    hub_of,
    raise_if_failed,
)
from searchr1.gateway.routes.streaming import event_stream
from searchr1.gateway.runs.errors import RunNotFoundError
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.hub import scope_of
from searchr1.gateway.runs.store.base import RunMeta, RunUnreadableError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import HEARTBEAT, JsonResponse, encode_named
from searchr1.loop.conversation import Turn
from searchr1_client.events import Run, Usage

router = APIRouter(route_class=GuardedRoute)

MAX_SEQUENCE = 2**31

ResponseId = Annotated[str, Path(max_length=128, examples=["resp_0123456789abcdef0123456789abcdef"])]
Include = Annotated[list[Includable] | None, Query(alias="include[]", max_length=16)]
PlainInclude = Annotated[list[Includable] | None, Query(alias="include", max_length=16)]


_STREAM = {
    "schema": {"type": "string"},
    "example": 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"franc",…}\n\n',
}
_RESPONSE: dict[str, Any] = {
    "description": "The response.",
    "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE_RESPONSE}},
}
_WHOLE: dict[int | str, dict[str, Any]] = {200: _RESPONSE}
_COMPACTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The compacted conversation.", "content": {"application/json": {"schema": {"type": "object"}}}}
}
_EITHER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response, or its events.",
        "headers": IGNORED_HEADERS,
        "content": {**_RESPONSE["content"], "text/event-stream": _STREAM},
    }
}


@router.post("/v1/responses", responses=_EITHER, dependencies=ROOM, summary="Create a response")
async def create(request: Request, body: ResponsesRequest) -> Response:
    """Answer as OpenAI does, in items `reasoning`, `web_search_call` (where asked for), `message` with citations.

    A stored stream whose reader is gone can be resumed for a while, then the run is cancelled; one in the background
    goes on.
    """
    services = services_of(request)
    services.models.named(body.model)
    body.check()
    asked = await read_asked(body, _finder(request))
    opening = opening_of(asked.conversation.turns, caller_of(request))

    async def with_model(model: ServedModel) -> Response:
        return await _answer(request, body, *await _admitted(request, body, asked, model))

    response = await begun_by_one(request, body.model, with_model, conversation=opening)
    ignored = (*body.offered.ignored, *(("input",) if asked.conversation.is_cut else ()))
    return telling_ignored(response, ignored, services.metrics)


async def _answer(request: Request, body: ResponsesRequest, meta: RunMeta, plan: Plan) -> Response:
    services, hub = services_of(request), hub_of(request)
    kept = meta.request["fields"]["store"]
    if body.background and not kept:
        message = "A response in the background has to be stored: leave out 'store'."
        if not services.settings.store_runs:
            message = "This server stores no responses, so none can run in the background."
        raise invalid(message, param="background")
    if body.background:
        handle = await hub.start(plan, meta, on_disconnect="keep")
        if body.stream:
            return await begun_stream(request, handle, _frames(handle, -1, frozenset()))
        await _begun(handle)
        return await _whole(handle, frozenset())
    if body.stream:
        handle = await hub.start(plan, meta, on_disconnect="grace" if kept else "cancel", store=kept)
        return await begun_stream(request, handle, _frames(handle, -1, frozenset()))
    handle = await hub.start(plan, meta, on_disconnect="cancel", store=kept)
    run = raise_if_failed(await cancel_on_disconnect(handle.to_end(), request))
    return JsonResponse(response_of(meta, run))


@router.post("/v1/responses/compact", responses=_COMPACTED, summary="Compact a conversation")
async def compact_conversation(request: Request, body: CompactRequest) -> Response:
    """Put a conversation into one item, to be sent as the beginning of a later `input`.

    The item holds what a run would read of it; no model is asked.
    """
    services_of(request).models.named(body.model)
    turns = await turns_to_compact(body, _finder(request))
    key = uuid.uuid4().hex
    item = {"id": f"cmp_{key}", "type": "compaction", "encrypted_content": compact(turns)}
    return JsonResponse(
        {
            "id": f"resp_{key}",
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [item],
            "usage": usage_object(Usage()),
        }
    )


@router.get("/v1/responses/{response_id}", responses=_EITHER, summary="Get a stored response, or its stream")
async def retrieve(
    request: Request,
    response_id: ResponseId,
    stream: bool = False,
    starting_after: Annotated[
        int | None, Query(ge=-1, le=MAX_SEQUENCE, description="Only events with a higher `sequence_number`.")
    ] = None,
    include: Include = None,
    plain_include: PlainInclude = None,
) -> Response:
    """Return the response as it stands; with `stream`, its events from the first, or after a given one, to its end."""
    if starting_after is not None and not stream:
        raise invalid("'starting_after' is for streams: set 'stream=true'.", param="starting_after")
    handle = await _find(request, response_id)
    wanted = frozenset[str](include or ()) | frozenset[str](plain_include or ())
    if stream:
        return await _stream(request, handle, -1 if starting_after is None else starting_after, wanted)
    return await _whole(handle, wanted)


@router.post("/v1/responses/{response_id}/cancel", responses=_WHOLE, summary="Cancel a response in the background")
async def cancel(request: Request, response_id: ResponseId) -> Response:
    """Free the engine at once. A response that has ended stays as it is; one in the foreground ends with its client."""
    handle = await _find(request, response_id)
    if not handle.meta.request["fields"]["background"]:
        raise invalid("Cannot cancel a synchronous response: close its connection instead.", param="response_id")
    await handle.cancel()
    return await _whole(handle, frozenset())


@router.delete("/v1/responses/{response_id}", summary="Delete a stored response")
async def delete(request: Request, response_id: ResponseId) -> Response:
    """End its run if need be, and forget it. Later responses keep what they took from it."""
    try:
        await hub_of(request).delete(response_id, caller_of(request), "response")
    except RunNotFoundError as error:
        raise _not_found(response_id) from error
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


@router.get("/v1/responses/{response_id}/input_items", summary="List a response's input")
async def input_items(
    request: Request,
    response_id: ResponseId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=128, description="The `last_id` of the page before.")] = None,
) -> Response:
    """List the messages that the request itself had, newest first unless told otherwise."""
    handle = await _find(request, response_id)
    listed: list[Json] = handle.meta.request["input"]
    if order == "desc":
        listed = listed[::-1]
    if after is not None:
        ids = [item["id"] for item in listed]
        if after not in ids:
            raise invalid("'after' must be the id of an item of this response.", param="after")
        listed = listed[ids.index(after) + 1 :]
    page = listed[:limit]
    ends = {"first_id": page[0]["id"] if page else "", "last_id": page[-1]["id"] if page else ""}
    return JsonResponse({"object": "list", "data": page, **ends, "has_more": len(listed) > limit})


def _finder(request: Request) -> FindRun:
    async def find(response_id: str) -> tuple[RunMeta, Run]:
        handle = _readable(await hub_of(request).find(response_id, caller_of(request), "response"))
        return handle.meta, await handle.run()

    return find


async def _admitted(request: Request, body: ResponsesRequest, asked: Asked, model: ServedModel) -> tuple[RunMeta, Plan]:
    caller = caller_of(request)
    turns = asked.conversation.turns
    instructed = [Turn("system", body.instructions), *turns] if body.instructions else turns
    response_id = f"resp_{uuid.uuid4().hex}"
    options = run_options(body, model.settings)
    question = await asked_question(instructed, model, request, deadline_s=options.deadline_s)
    plan = model.admission.plan(
        question.text,
        options,
        caller=caller,
        run_id=response_id,
        stream=bool(body.stream),
        param="input",
        shaping=body.shaping,
        spent_s=spent_s(request.scope),
    )
    meta = RunMeta(
        id=response_id,
        kind="response",
        created=int(time.time()),
        model=model.name,
        question=asked.conversation.question.strip(),
        scope=scope_of(caller),
        request=stored_request(body, asked, response_id, model.settings),
    )
    return meta, plan


async def _find(request: Request, response_id: str) -> RunHandle:
    try:
        return _readable(await hub_of(request).find(response_id, caller_of(request), "response"))
    except RunNotFoundError as error:
        raise _not_found(response_id) from error


def _not_found(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id {response_id!r} not found.", code="not_found", param="response_id")


def _readable(handle: RunHandle) -> RunHandle:
    """Return a stored run whose request can be read. Raises ``RunUnreadableError``."""
    if not is_stored_request(handle.meta.request):
        raise RunUnreadableError(handle.meta.id, "its request is damaged, or of another release")
    return handle


async def _whole(handle: RunHandle, include: frozenset[str]) -> Response:
    return JsonResponse(response_of(handle.meta, await handle.run(), include=include))


async def _begun(handle: RunHandle) -> None:
    async with aclosing(handle.batches()) as batches:
        await anext(batches)


async def _stream(request: Request, handle: RunHandle, after: int, include: frozenset[str]) -> Response:
    heartbeat_s = services_of(request).settings.heartbeat_s
    return await event_stream(_frames(handle, after, include), heartbeat_s=heartbeat_s)


async def _frames(handle: RunHandle, after: int, include: frozenset[str]) -> AsyncGenerator[bytes, None]:
    """Yield frames of the events numbered above ``after``.

    The run is read from its start: the numbers follow from it.
    """
    shape = ResponseShape(handle.meta, include=include)
    if after >= 0:
        yield HEARTBEAT  # The headers go out at once, even where no event is left to come.
    async with aclosing(handle.batches()) as batches:
        async for batch in batches:
            new = [one for event in batch for one in shape.add(event) if one["sequence_number"] > after]
            if new:
                yield b"".join(map(_frame, new))
    if not shape.ended:
        yield _frame(_broken(shape.num_sent, moved=handle.goes_on_elsewhere))


def _frame(event: Json) -> bytes:
    return encode_named(event["type"], event)


def _broken(sequence_number: int, *, moved: bool) -> Json:
    why = "Another server goes on with the response" if moved else "The stream can't be followed just now"
    return {
        "type": "error",
        "code": "moved" if moved else "store_unavailable",
        "message": f"{why}; take it up again after the last event.",
        "param": None,
        "sequence_number": sequence_number,
    }
