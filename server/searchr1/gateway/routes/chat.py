"""``POST /v1/chat/completions``: runs in the shape that OpenAI clients speak.

The reasoning and the searches stream as ``reasoning`` (and ``reasoning_content``: clients disagree on the name), the
answer as ``content``. The answer leaves as a whole, when it is final: text inside an ``<answer>`` that the model never
closes is no answer, and content that was sent can't be taken back.
"""

import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from searchr1.gateway.access.admission import Plan
from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.candidates import opening_of
from searchr1.gateway.chat.choices import choice_events
from searchr1.gateway.chat.frames import ChatFrames
from searchr1.gateway.chat.request import ChatRequest
from searchr1.gateway.chat.shape import ChatShape
from searchr1.gateway.chat.stop import stopped
from searchr1.gateway.errors import ApiError, engine_status, error_body, invalid
from searchr1.gateway.example import EXAMPLE_RUN
from searchr1.gateway.log_lines import RUN_ID
from searchr1.gateway.openai.ignored import IGNORED_HEADERS, telling_ignored
from searchr1.gateway.request_scope import spent_s
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.routes.run_requests import (
    ROOM,
    IndexedEvents,
    asked_question,
    begun_by_one,
    begun_events,
    cancel_on_disconnect,
    raise_if_failed,
)
from searchr1.gateway.routes.streaming import event_stream
from searchr1.gateway.runs.errors import NoSlotError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import DONE, encode_data, encode_json
from searchr1_client.events import Run, RunFailed
from searchr1_client.fold import RunFold

logger = logging.getLogger(__name__)

router = APIRouter(route_class=GuardedRoute)

_EXAMPLE = ChatShape("chatcmpl-0123456789abcdef0123456789abcdef", "searchr1-atlas", 1_760_000_000)
_OK: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The completion, or its chunks.",
        "headers": IGNORED_HEADERS,
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE.completion([EXAMPLE_RUN])},
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": encode_data(_EXAMPLE.usage_chunk([EXAMPLE_RUN])).decode() + DONE.decode(),
            },
        },
    }
}


@router.post("/v1/chat/completions", responses=_OK, dependencies=ROOM, summary="Answer a chat message by searching")
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """Answer as OpenAI does, with ``reasoning``, ``url_citation`` annotations, ``citations`` and search counts."""
    services = services_of(request)
    services.models.named(body.model)
    body.check()
    opening = opening_of(body.conversation.turns, caller_of(request))
    completion_id = f"chatcmpl-{uuid.uuid4().hex}"
    RUN_ID.set(completion_id)
    with_model = partial(_answer, request, body, completion_id)
    response = await begun_by_one(request, body.model, with_model, conversation=opening)
    return telling_ignored(response, body.ignored, services.metrics)


@router.post("/v1/completions", include_in_schema=False)
async def completions() -> Response:
    """Refuse: a question is a message here."""
    raise ApiError(404, "This server answers chat only: use POST /v1/chat/completions.", code="not_found")


async def _answer(request: Request, body: ChatRequest, completion_id: str, model: ServedModel) -> Response:
    services = services_of(request)
    plans = await _plans(request, body, model, completion_id)
    shape = ChatShape(completion_id, model.name, int(time.time()), include_usage=body.include_usage)
    events = choice_events(services, plans, run_id=completion_id)
    if body.stops:
        events = stopped(events, body.stops)
    folds = [RunFold() for _ in plans]
    if body.stream:
        begun = await begun_events(request, events)
        return await event_stream(_chunks(begun, shape, folds), heartbeat_s=services.settings.heartbeat_s)
    runs = await cancel_on_disconnect(_whole(events, folds), request)
    return Response(encode_json(shape.completion(runs)), media_type="application/json")


async def _plans(request: Request, body: ChatRequest, model: ServedModel, completion_id: str) -> list[Plan]:
    num_choices = body.num_choices(model.settings)
    most = caller_of(request).limits.concurrent_runs
    if most is not None and num_choices > most:
        message = f"'n' is {num_choices}; each choice is a run, and this API key may have {most} at once."
        raise invalid(message, param="n", code="above_maximum")
    question = await asked_question(body.conversation.turns, model, request, deadline_s=body.deadline_s)
    return [
        model.admission.plan(
            question.text,
            body.run_options(model.settings, choice),
            caller=caller_of(request),
            run_id=completion_id if num_choices == 1 else f"{completion_id}-{choice}",
            stream=bool(body.stream),
            param="messages",
            shaping=body.shaping,
            spent_s=spent_s(request.scope),
        )
        for choice in range(num_choices)
    ]


async def _whole(events: IndexedEvents, folds: list[RunFold]) -> list[Run]:
    async with aclosing(events):
        async for index, event in events:
            folds[index].add(event)
            if isinstance(event, RunFailed):
                raise_if_failed(folds[index].run())
    return [fold.run() for fold in folds]


async def _chunks(events: IndexedEvents, shape: ChatShape, folds: list[RunFold]) -> AsyncGenerator[bytes, None]:
    """Yield the stream's frames. An error is sent in the stream: the HTTP status has gone out by then."""
    frames = ChatFrames(shape)
    try:
        async with aclosing(events):
            async for index, event in events:
                folds[index].add(event)
                if isinstance(event, RunFailed):
                    error = event.error
                    yield encode_data(error_body(engine_status(error.code), error.message, code=error.code))
                    return
                if (frame := frames.frame(index, event, folds[index])) is not None:
                    yield frame
    except NoSlotError:
        raise
    except Exception:
        logger.exception("%s broke", shape.completion_id)
        message = "The server met an error of its own; its log has the details."
        yield encode_data(error_body(500, message, code="internal"))
        return
    if shape.include_usage:
        yield encode_data(shape.usage_chunk([fold.run() for fold in folds]))
    yield DONE
