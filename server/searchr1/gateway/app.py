"""The gateway: its app, with the services that it opens at start and closes at stop."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from searchr1.gateway.access.auth import require_key
from searchr1.gateway.errors import install_error_handlers
from searchr1.gateway.mcp.server import running_mcp
from searchr1.gateway.middleware import BodyBounds, BugBoundary, PageHeaders, RequestId
from searchr1.gateway.openapi import ERRORS, TAGS, describe
from searchr1.gateway.routes import admin, chat, mcp, ops, research, responses
from searchr1.gateway.routes.run_requests import install_run_error_handlers
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.store.factory import open_run_store
from searchr1.gateway.services import Services, open_services
from searchr1.settings import Settings

WEB = Path(str(files("searchr1.gateway") / "web"))

OpenServices = Callable[[Settings], AbstractAsyncContextManager[Services]]


def create_app(settings: Settings, *, open_services: OpenServices = open_services) -> FastAPI:
    """Build the app. Its services open when it starts, through ``open_services`` (tests pass their own)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services, RunHub(services, open_run_store(settings)) as hub:
            app.state.services, app.state.hub = services, hub
            async with running_mcp(max_body_bytes=settings.max_body_bytes) as app.state.mcp:
                yield

    app = FastAPI(
        title="Search-R1 Serve",
        version=version("searchr1"),
        summary="Questions answered by a model that reasons and searches in turns.",
        lifespan=lifespan,
        openapi_tags=TAGS,
    )
    app.add_middleware(BodyBounds, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    app.add_middleware(BugBoundary)
    app.add_middleware(PageHeaders)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id", "x-request-id"],
            expose_headers=["x-request-id", "x-run-id", "retry-after"],
        )
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
    describe(app)
    app.mount("/assets", StaticFiles(directory=WEB), name="assets")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    return app
