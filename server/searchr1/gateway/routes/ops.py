"""Routes for operators and load balancers: liveness, readiness, metrics, models."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from searchr1.errors import EngineError
from searchr1.gateway.access.auth import require_key
from searchr1.gateway.middleware import is_open
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.readiness import opening_report
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import JsonResponse

router = APIRouter(route_class=GuardedRoute)


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Answer as long as the process can answer at all."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve a request?", responses={503: {"description": "Not now."}})
async def readyz(request: Request) -> JsonResponse:
    """Answer 200 while the engine is well, else 503 and a `reason`, so that a load balancer stops sending.

    It is answered from memory: what runs need is watched in the background. A run store or a search provider in
    trouble is told and does not make it 503, since runs go on without them.
    """
    if not is_open(request.app):
        return JsonResponse(opening_report(), status_code=503)
    services = services_of(request)
    ready, report = services.readiness.report()
    return JsonResponse({**report, "model": services.settings.public_name}, status_code=200 if ready else 503)


@router.get("/health", summary="Can it serve a request?", responses={503: {"description": "Not now."}})
async def health(request: Request) -> JsonResponse:
    """Answer as `/readyz`, under the name that vLLM gives it: routers and load tools ask there."""
    return await readyz(request)


@router.get("/ping", include_in_schema=False)
async def ping() -> dict[str, str]:
    """Answer as `/healthz`, under the name that some hosting platforms ask."""
    return await healthz()


@router.get("/version", summary="Which version is it?")
async def version(request: Request) -> dict[str, str]:
    """Return the version of the server."""
    return {"version": request.app.version}


@router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Return the gateway's metrics, and vLLM's where it runs in this process.

    A remote engine is scraped where it runs.
    """
    services = services_of(request)
    text = services.metrics.render()
    if services.engine_metrics is not None:
        # An engine that is down has none, and the gateway's own are wanted most then.
        with suppress(EngineError):
            text += (await services.engine_metrics()).encode()
    return Response(text, media_type=CONTENT_TYPE_LATEST)


_KEYED: dict[str, Any] = {"dependencies": [Depends(require_key)], "responses": ERRORS}


@router.get("/v1/models", **_KEYED, summary="List the served models")
async def models(request: Request) -> dict[str, object]:
    """List one model: the one that this gateway serves."""
    services = services_of(request)
    model = {
        "id": services.settings.public_name,
        "object": "model",
        "created": services.started_at,
        "owned_by": "searchr1",
        "max_model_len": services.settings.max_context_tokens + services.settings.max_completion_tokens,
    }
    return {"object": "list", "data": [model]}


@router.get("/v1/models/{name:path}", **_KEYED, summary="Describe a served model")
async def model(request: Request, name: str) -> dict[str, object]:
    """Describe the model of that name."""
    services_of(request).admission.check_model(name)
    listing = await models(request)
    data = listing["data"]
    assert isinstance(data, list)
    described: dict[str, object] = data[0]
    return described
