"""Upstream Search-R1's ``/retrieve`` protocol over any retriever, for training jobs that run elsewhere."""

import asyncio
import contextlib
import json
import logging
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from starlette.exceptions import HTTPException

from searchr1.loop.types import Passage
from searchr1.retrieval.base import FailureKind, Found, Retriever, SearchFailed
from searchr1.retrieval.config import SearchConfig
from searchr1.retrieval.factory import open_search
from searchr1.retrieval.text import clean_text
from searchr1.sockets import bind

DEFAULT_TOP_K = 3
_STATUS_OF: dict[FailureKind, int] = {
    "timeout": 504,
    "unavailable": 503,
    "rate_limited": 429,
    "bad_response": 502,
    "rejected": 502,
    "budget": 429,
}


class RetrieveRequest(BaseModel):
    """The body of ``POST /retrieve``; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    queries: list[str]
    topk: Annotated[StrictInt, Field(ge=1)] | None = None
    """Passages per query; None or absent means the server's default."""
    return_scores: StrictBool = False


class RetrieveLimits(BaseModel):
    """Bounds of one request. A training step of upstream sends the queries of all its open rollouts at once."""

    model_config = ConfigDict(frozen=True)

    max_queries: int = 4096
    max_query_chars: int = 8192
    max_top_k: int = 100
    max_body_bytes: int = 16 * 1024 * 1024
    max_concurrent_searches: int = 64
    deadline_s: float = 60.0


def create_retrieve_app(retriever: Retriever, *, limits: RetrieveLimits | None = None) -> FastAPI:
    """Make the ASGI app: ``POST /retrieve`` and ``GET /healthz``. The caller opens and closes ``retriever``.

    A request that is malformed or over ``limits`` gets 400, 413 or 422 and ``{"detail": what to change}``. When a
    search fails, the whole request does: 429, 502, 503 or 504 and ``{"detail", "kind"}``.
    """
    limits = limits or RetrieveLimits()
    app = FastAPI(title="Search-R1 retriever", docs_url=None, redoc_url=None)
    searches = asyncio.Semaphore(limits.max_concurrent_searches)
    body_schema = {"requestBody": {"content": {"application/json": {"schema": RetrieveRequest.model_json_schema()}}}}

    async def search(query: str, k: int, deadline: float) -> Found | SearchFailed:
        async with searches:
            return await retriever.search(query, k, max(0.0, deadline - asyncio.get_running_loop().time()))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/retrieve", openapi_extra=body_schema)
    async def retrieve(request: Request) -> JSONResponse:
        wanted = _parse(await _read(request, limits.max_body_bytes), limits)
        deadline = asyncio.get_running_loop().time() + limits.deadline_s
        k = wanted.topk or min(DEFAULT_TOP_K, limits.max_top_k)
        outcomes = await asyncio.gather(*(search(clean_text(query), k, deadline) for query in wanted.queries))
        found = [outcome.passages for outcome in outcomes if isinstance(outcome, Found)]
        if failed := [outcome for outcome in outcomes if isinstance(outcome, SearchFailed)]:
            body = {"detail": clean_text(failed[0].message), "kind": failed[0].kind}
            return JSONResponse(body, status_code=_STATUS_OF[failed[0].kind])
        return JSONResponse({"result": [[_entry(p, wanted.return_scores) for p in passages] for passages in found]})

    return app


def serve(config: SearchConfig, host: str, port: int) -> None:
    """Serve what ``config`` sets up on ``host:port`` (0 picks a free port, see the log) until SIGINT or SIGTERM.

    Raises what ``open_search`` raises, and ``ConfigurationError`` when the address cannot be bound.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(config, host, port))


async def _serve(config: SearchConfig, host: str, port: int) -> None:
    with bind(host, port) as listener:
        async with open_search(config) as layer:
            server = uvicorn.Config(create_retrieve_app(layer.view()), ws="none", access_log=False)
            url = httpx.URL(scheme="http", host=host, port=listener.getsockname()[1], path="/retrieve")
            # uvicorn names no address when it is given a socket; its logger is the one that Config has set up.
            logging.getLogger("uvicorn.error").info("Serving %s", url)
            await uvicorn.Server(server).serve(sockets=[listener])


async def _read(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes; send fewer queries at a time")
    return bytes(body)


def _parse(body: bytes, limits: RetrieveLimits) -> RetrieveRequest:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, 'the body is not JSON; send {"queries": ["…"], "topk": 3}') from error
    try:
        wanted = RetrieveRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(422, f"{clean_text(where)}: {first['msg']}") from error
    if len(wanted.queries) > limits.max_queries:
        raise HTTPException(422, f"queries: {len(wanted.queries)} of them, at most {limits.max_queries} are allowed")
    if any(len(query) > limits.max_query_chars for query in wanted.queries):
        raise HTTPException(422, f"queries: each may have at most {limits.max_query_chars} characters")
    if wanted.topk is not None and wanted.topk > limits.max_top_k:
        raise HTTPException(422, f"topk: at most {limits.max_top_k} is allowed")
    return wanted


def _entry(passage: Passage, with_score: bool) -> dict[str, Any]:
    document = {"id": clean_text(passage.id), "contents": clean_text(passage.contents)}
    if passage.url is not None:
        document["url"] = clean_text(passage.url)
    if not with_score:
        return document
    return {"document": document} if passage.score is None else {"document": document, "score": passage.score}
