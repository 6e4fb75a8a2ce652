"""Routes for operators and load balancers: liveness, readiness, metrics, models."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from searchr1.errors import EngineError
from searchr1.gateway.access.auth import require_any_key
from searchr1.gateway.errors import ErrorBody
from searchr1.gateway.middleware import is_open
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.readiness import opening_report
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import services_of
from searchr1.gateway.sse import JsonResponse

router = APIRouter(route_class=GuardedRoute)
_STARTING: dict[int | str, dict[str, Any]] = {503: {"model": ErrorBody, "description": "The server is starting."}}


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Answer as long as the process can answer at all."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve a request?", responses={503: {"description": "Not now."}})
async def readyz(request: Request) -> JsonResponse:
    """Answer 200 while an engine is well, else 503 and a `reason`, so that a load balancer stops sending.

    It is answered from memory: what runs need is watched in the background. A run store or a search provider in
    trouble is told and does not make it 503, since runs go on without them.
    """
    if not is_open(request.app):
        return JsonResponse(opening_report(), status_code=503)
    services = services_of(request)
    ready, report = services.readiness.report()
    return JsonResponse({**report, "model": services.default.name}, status_code=200 if ready else 503)


@router.get("/health", summary="Can it serve a request?", responses={503: {"description": "Not now."}})
async def health(request: Request) -> JsonResponse:
    """Answer as `/readyz`, under the name that vLLM gives it: routers and load tools ask there."""
    return await readyz(request)


@router.get("/ping", include_in_schema=False)
async def ping() -> dict[str, str]:
    """Answer as `/healthz`, under the name that some hosting platforms ask."""
    return await healthz()


@router.get("/version", responses=_STARTING, summary="Which version is it?")
async def version(request: Request) -> dict[str, str]:
    """Return the version of the server."""
    return {"version": request.app.version}


@router.get("/metrics", response_class=PlainTextResponse, responses=_STARTING, summary="Prometheus metrics")
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


_KEYED: dict[str, Any] = {"dependencies": [Depends(require_any_key)], "responses": ERRORS}


@router.get("/v1/models", **_KEYED, summary="List the served models")
async def models(request: Request) -> dict[str, object]:
    """List the models that this gateway serves, the default first."""
    services = services_of(request)
    return {"object": "list", "data": [_described(model, services.started_at) for model in services.models]}


@router.get("/v1/models/{name:path}", **_KEYED, summary="Describe a served model")
async def model(request: Request, name: str) -> dict[str, object]:
    """Describe the model of that name."""
    services = services_of(request)
    return _described(services.models.named(name), services.started_at)


def _described(model: ServedModel, created: int) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "searchr1",
        "max_model_len": model.settings.max_context_tokens + model.settings.max_completion_tokens,
    }
