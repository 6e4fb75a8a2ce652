"""``POST /v1/chat/completions``: a run in the shape that OpenAI clients speak.

The reasoning and the searches stream as ``reasoning`` (and ``reasoning_content``: clients disagree on the name), the
answer as ``content``. The answer leaves as a whole, when it is final: text inside an ``<answer>`` that the model never
closes is no answer, and content that was sent can't be taken back.
"""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from searchr1.gateway.admission import MAX_SEED, RunOptions
from searchr1.gateway.auth import caller_of
from searchr1.gateway.errors import engine_status, error_body, invalid
from searchr1.gateway.openai_shapes import ChatShape, encode_data
from searchr1.gateway.runs import run_events, whole_run
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import event_stream
from searchr1_client import events as wire
from searchr1_client.fold import RunFold

router = APIRouter()


class TextPart(BaseModel):
    """A text part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool = False


class WebSearchOptions(BaseModel):
    """How to search."""

    external_web_access: bool = True
    """False answers searches from the cache alone."""


class ChatRequest(BaseModel):
    """What of OpenAI's request this server acts on. Other fields are ignored, as OpenAI-compatible servers do."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=256)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    n: int | None = Field(default=None, ge=1, le=1)
    max_turns: int | None = Field(default=None, ge=1)
    max_searches: int | None = Field(default=None, ge=0)
    top_k: int | None = Field(default=None, ge=1)
    deadline_s: float | None = Field(default=None, gt=0)
    web_search_options: WebSearchOptions | None = None

    def run_options(self, max_run_tokens: int) -> RunOptions:
        """The same wishes in the native form. A token limit above the operator's is cut, as OpenAI clients expect."""
        wanted = self.max_completion_tokens or self.max_tokens
        return RunOptions(
            max_turns=self.max_turns,
            max_searches=self.max_searches,
            max_tokens=None if wanted is None else min(wanted, max_run_tokens),
            top_k=self.top_k,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            deadline_s=self.deadline_s,
            cache="only" if self.web_search_options and not self.web_search_options.external_web_access else "default",
        )


def question_of(messages: list[ChatMessage]) -> str:
    """The single question that the checkpoint was trained on: the last user message.

    Earlier messages, if any, stand before it as quoted context. Raises ``ApiError`` when the last message is not the
    user's.
    """
    last = messages[-1]
    if last.role != "user":
        raise invalid("The last message must have the role 'user'; it is the question.", param="messages")
    earlier = [f"{m.role}: {m.text.strip()}" for m in messages[:-1] if m.text.strip()]
    if not earlier or not last.text.strip():
        return last.text
    return "Given this conversation:\n" + "\n".join(earlier) + f"\n\n{last.text}"


@router.post("/v1/chat/completions", summary="Answer a chat message by searching")
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """OpenAI's Chat Completions, with ``reasoning``, ``url_citation`` annotations, ``citations`` and search counts."""
    services = services_of(request)
    services.admission.check_model(body.model)
    run_id = f"chatcmpl-{uuid.uuid4().hex}"
    options = body.run_options(services.settings.max_run_tokens)
    plan = services.admission.plan(
        question_of(body.messages), options, caller=caller_of(request), run_id=run_id, stream=body.stream
    )
    shape = ChatShape(run_id, services.settings.public_name, int(time.time()))
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        events = run_events(services, plan, run_id=run_id)
        return await event_stream(
            _chunks(events, shape, include_usage=include_usage), heartbeat_s=services.settings.heartbeat_s
        )
    run = await whole_run(services, plan, run_id=run_id, request=request)
    return JSONResponse(shape.completion(run))


async def _chunks(
    events: AsyncGenerator[wire.KnownEvent, None], shape: ChatShape, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    fold = RunFold()
    async with aclosing(events):
        async for event in events:
            fold.add(event)
            if isinstance(event, wire.RunFailed):
                yield encode_data(
                    error_body(engine_status(event.error.code), event.error.message, code=event.error.code)
                )
                return
            delta = shape.delta(event)
            if delta is not None:
                yield encode_data(shape.chunk(delta))
    run = fold.run()
    yield encode_data(shape.last_chunk(run))
    if include_usage:
        yield encode_data(shape.usage_chunk(run))
    yield b"data: [DONE]\n\n"
