"""``POST /v1/research``: a run as native events, or as one JSON object."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from searchr1.gateway.admission import RunOptions
from searchr1.gateway.auth import caller_of
from searchr1.gateway.runs import run_events, whole_run
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import encode_event, event_stream
from searchr1_client.events import KnownEvent, Run

router = APIRouter()


class ResearchRequest(RunOptions):
    """A question and how to run it."""

    question: str = Field(description="What to find out.", examples=["Which currency is used in Mali?"])
    model: str | None = Field(default=None, description="The served model; may be left out.")
    stream: bool = Field(default=False, description="Server-Sent Events instead of one JSON object.")


@router.post("/v1/research", response_model=Run, summary="Ask a question")
async def research(request: Request, body: ResearchRequest) -> Response:
    """Run the question to its end. With ``stream``, events arrive as they happen; closing the connection cancels."""
    services = services_of(request)
    services.admission.check_model(body.model)
    run_id = f"run_{uuid.uuid4().hex}"
    plan = services.admission.plan(body.question, body, caller=caller_of(request), run_id=run_id, stream=body.stream)
    if body.stream:
        events = run_events(services, plan, run_id=run_id)
        return await event_stream(_encoded(events), heartbeat_s=services.settings.heartbeat_s)
    run = await whole_run(services, plan, run_id=run_id, request=request)
    return Response(run.model_dump_json(), media_type="application/json")


async def _encoded(events: AsyncGenerator[KnownEvent, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield encode_event(event)
