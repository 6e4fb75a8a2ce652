"""What a browser opens: the page, what the page knows of its server, and the API's documentation."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel

from searchr1.gateway.services import services_of

WEB = Path(str(files("searchr1.gateway") / "web"))
"""The folder of the page's own files; all of them are served under ``/assets``."""

router = APIRouter(include_in_schema=False)


class PageInfo(BaseModel):
    """The facts of the server that the page tells its reader before any question."""

    model: str
    about: str | None
    """One sentence of the operator on what can be asked."""
    examples: tuple[str, ...]
    """Questions to begin with."""
    needs_key: bool
    run_ttl_s: float | None
    """Seconds for which runs are kept; None where they are not."""
    has_docs: bool
    """Whether ``/docs`` is served beside the page, and not on the operators' port alone."""


@router.get("/")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(WEB / "index.html")


@router.get("/docs")
async def documentation() -> FileResponse:
    """Return the page that shows ``/openapi.json``."""
    return FileResponse(WEB / "docs.html")


@router.get("/page.json")
async def page_info(request: Request) -> PageInfo:
    """Return what the page shows beside its question box. Like the page itself, it is open without a key."""
    services = services_of(request)
    settings = services.settings
    return PageInfo(
        model=services.default.name,
        about=settings.page_about,
        examples=settings.page_examples,
        needs_key=settings.asks_for_keys,
        run_ttl_s=settings.run_ttl_s if settings.store_runs else None,
        has_docs=settings.ops_port is None,
    )
