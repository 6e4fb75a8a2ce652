"""The gateway: its app, with the services that it opens at start and closes at stop."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles

from searchr1.gateway.access.auth import require_key
from searchr1.gateway.access.hosts import OwnHosts, trusts_its_machine
from searchr1.gateway.access.limit_headers import LIMIT_HEADERS, LimitHeaders
from searchr1.gateway.access.stored_keys import check_stored_keys
from searchr1.gateway.errors import install_error_handlers
from searchr1.gateway.http_metrics import CountRequests
from searchr1.gateway.logs import AccessLog
from searchr1.gateway.mcp.server import running_mcp
from searchr1.gateway.middleware import BugBoundary, Opening, PageHeaders, RequestId
from searchr1.gateway.openapi import ERRORS, TAGS, describe
from searchr1.gateway.ops_port import SeparatePorts
from searchr1.gateway.routes import admin, admin_keys, chat, mcp, ops, page, replicas, research, responses
from searchr1.gateway.routes.run_requests import install_run_error_handlers
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.store.factory import open_run_store
from searchr1.gateway.services import Services, open_services
from searchr1.gateway.sse import JsonResponse
from searchr1.gateway.tracing.requests import RequestSpans
from searchr1.http_server.bodies import BodyBounds
from searchr1.http_server.paths import HeadAsGet, PlainPaths
from searchr1.http_server.unwound import Unwound
from searchr1.settings import Settings
from searchr1_client import __version__

BODIES_HELD = 64
"""Largest bodies whose bytes may be on their way at once."""

_EXPOSED_HEADERS = ("x-request-id", "x-run-id", "retry-after", "x-searchr1-ignored", "idempotent-replayed")
OpenServices = Callable[[Settings], AbstractAsyncContextManager[Services]]


def create_app(settings: Settings, *, open_services: OpenServices = open_services) -> FastAPI:
    """Build the app. Its services open when it starts, through ``open_services`` (tests pass their own).

    A server that asks it before its lifespan has begun is answered as one that is starting.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await check_stored_keys(settings.key_place)
        async with (
            open_services(settings) as services,
            services.metrics.published(),
            services.access,
            services.readiness,
            services.models,
            RunHub(services, open_run_store(settings)) as hub,
            running_mcp(max_body_bytes=settings.max_body_bytes) as app.state.mcp,
        ):
            app.state.services, app.state.hub = services, hub
            yield

    app = FastAPI(
        title="Search-R1 Serve",
        version=__version__,
        summary="Questions answered by a model that reasons and searches in turns.",
        lifespan=lifespan,
        openapi_tags=TAGS,
        # The framework's own pages load their scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=JsonResponse,
    )
    app.add_middleware(Unwound)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Opening)
    app.add_middleware(
        BodyBounds,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        max_bytes_held=BODIES_HELD * settings.max_body_bytes,
    )
    if settings.ops_port is not None:
        app.add_middleware(SeparatePorts)
    if trusts_its_machine(settings):
        app.add_middleware(OwnHosts, own=settings.host, ops=settings.ops_host)
    if settings.key_place is not None:
        app.add_middleware(LimitHeaders)
    app.add_middleware(BugBoundary)
    app.add_middleware(PageHeaders)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            # OpenAI's client sends a dozen of its own. Keys travel in ``Authorization``, never in cookies.
            allow_headers=["*"],
            expose_headers=[*_EXPOSED_HEADERS, *LIMIT_HEADERS],
        )
    app.add_middleware(PlainPaths)
    app.add_middleware(CountRequests)
    if settings.access_log:
        app.add_middleware(AccessLog)
    app.add_middleware(RequestSpans)
    app.add_middleware(RequestId)
    install_error_handlers(app)
    install_run_error_handlers(app)
    keyed: dict[str, Any] = {"dependencies": [Depends(require_key)], "responses": ERRORS}
    app.include_router(research.router, tags=["research"], **keyed)
    app.include_router(chat.router, tags=["openai"], **keyed)
    app.include_router(responses.router, tags=["openai"], **keyed)
    app.include_router(mcp.router, **keyed)
    app.include_router(ops.router, tags=["operations"])
    app.include_router(admin.router, tags=["operations"])
    app.include_router(admin_keys.router, tags=["operations"])
    app.include_router(replicas.router, tags=["operations"])
    app.include_router(page.router)
    describe(app, needs_key=settings.asks_for_keys)
    app.mount("/assets", StaticFiles(directory=page.WEB), name="assets")
    return app
