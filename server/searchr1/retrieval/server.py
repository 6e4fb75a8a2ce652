"""Upstream Search-R1's ``/retrieve`` protocol over any retriever, for training jobs that run elsewhere."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import httpx
import msgspec
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from searchr1.http_server.bodies import BodyBounds
from searchr1.http_server.bounds import HttpBounds, connections_that_fit
from searchr1.http_server.paths import HeadAsGet, PlainPaths
from searchr1.http_server.serving import server_config
from searchr1.loop.types import Passage
from searchr1.printable import plain_json
from searchr1.retrieval.base import FailureKind, Found, Retriever, SearchFailed
from searchr1.retrieval.config import SearchConfig
from searchr1.retrieval.deadline import Deadline, timeout
from searchr1.retrieval.factory import open_search
from searchr1.retrieval.server_access import Access
from searchr1.retrieval.text import clean_text
from searchr1.sockets import bind

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 3
_SLICE = 64
"""Queries that are searched for, and whose passages are encoded, in one go."""
_BODIES_HELD = 4
"""Largest bodies whose bytes may be on their way at once."""
_OTHER_FILES = 128
"""Open files that are no client's: the index, the searches' connections."""
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

    queries: Annotated[list[str], Field(fail_fast=True)]
    topk: Annotated[StrictInt, Field(ge=1)] | None = None
    """Passages per query; None or absent means the server's default."""
    return_scores: StrictBool = False


class RetrieveLimits(BaseModel):
    """Bounds of one request. A training step of upstream sends the queries of all its open rollouts at once."""

    model_config = ConfigDict(frozen=True)

    max_queries: int = 4096
    max_query_chars: int = 8192
    max_chars: int = 1024 * 1024
    """Characters of all queries together."""
    max_top_k: int = 100
    max_passages: int = 20_480
    """Passages that may be asked for: queries times ``topk``."""
    max_answer_bytes: int = 32 * 1024 * 1024
    max_body_bytes: int = 16 * 1024 * 1024
    body_timeout_s: float = 30.0
    max_concurrent_requests: int = 16
    """Requests that are searched for at once; others wait, within their deadlines."""
    max_concurrent_searches: int = 64
    deadline_s: float = 60.0


def create_retrieve_app(
    retriever: Retriever, *, limits: RetrieveLimits | None = None, access: Access | None = None
) -> FastAPI:
    """Make the ASGI app: ``POST /retrieve``, and ``/healthz``. The caller opens and closes ``retriever``.

    A request that is malformed or over ``limits`` gets 400, 408, 413 or 422 and ``{"detail": what to change}``; one
    that ``access`` refuses gets 401 or 421. When a search fails, the whole request does: 429, 502, 503 or 504 and
    ``{"detail", "kind"}``.
    """
    limits = limits or RetrieveLimits()
    access = access or Access("localhost", is_open=True)
    app = FastAPI(title="Search-R1 retriever", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        BodyBounds,
        max_bytes=limits.max_body_bytes,
        timeout_s=limits.body_timeout_s,
        max_bytes_held=_BODIES_HELD * limits.max_body_bytes,
    )
    app.add_middleware(PlainPaths)
    searcher = _Searcher(retriever, limits)
    body_schema = {"requestBody": {"content": {"application/json": {"schema": RetrieveRequest.model_json_schema()}}}}

    @app.get("/healthz")
    @app.get("/health", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    # The body is read by the handler, after the check.
    @app.post("/retrieve", openapi_extra=body_schema, dependencies=[Depends(access.check)])
    async def retrieve(request: Request) -> Response:
        try:
            wanted = _parse(await request.body(), limits)
        except ClientDisconnect:
            return Response(status_code=400)  # Nobody is there to read it.
        return await searcher.answer(wanted)

    return app


class _Searcher:
    """Answers requests a slice of queries at a time, so that the event loop has other turns in between."""

    def __init__(self, retriever: Retriever, limits: RetrieveLimits) -> None:
        self._retriever, self._limits = retriever, limits
        self._requests = asyncio.Semaphore(limits.max_concurrent_requests)
        self._searches = asyncio.Semaphore(limits.max_concurrent_searches)

    async def answer(self, wanted: RetrieveRequest) -> Response:
        """Search for all queries. The first failure is the whole request's."""
        deadline = Deadline(self._limits.deadline_s)
        k = wanted.topk or min(DEFAULT_TOP_K, self._limits.max_top_k)
        parts: list[bytes] = []
        num_bytes = 0
        try:
            async with timeout(deadline.left_s()):
                await self._requests.acquire()
        except TimeoutError:
            return _failed(SearchFailed("unavailable", "the server searches for others; try again shortly"))
        try:
            for start in range(0, len(wanted.queries), _SLICE):
                queries = wanted.queries[start : start + _SLICE]
                for outcome in await asyncio.gather(*(self._search(query, k, deadline) for query in queries)):
                    if isinstance(outcome, SearchFailed):
                        return _failed(outcome)
                    parts.append(_encoded(outcome, wanted.return_scores))
                    num_bytes += len(parts[-1])
                    if num_bytes > self._limits.max_answer_bytes:
                        said = f"the answer is larger than {self._limits.max_answer_bytes} bytes; send fewer queries"
                        raise HTTPException(422, f"{said} at a time, or a lower topk")
        finally:
            self._requests.release()
        return Response(b'{"result":[%b]}' % b",".join(parts), media_type="application/json")

    async def _search(self, query: str, k: int, deadline: Deadline) -> Found | SearchFailed:
        async with self._searches:
            return await self._retriever.search(clean_text(query), k, max(0.0, deadline.left_s()))


def serve(
    config: SearchConfig,
    host: str,
    port: int,
    *,
    keys: Sequence[str] = (),
    is_open: bool = False,
    bounds: HttpBounds | None = None,
) -> None:
    """Serve what ``config`` sets up on ``host:port`` (0 picks a free port, see the log) until SIGINT or SIGTERM.

    ``keys`` and ``is_open`` are of ``Access``. Raises what ``open_search`` raises, and ``ConfigurationError`` when the
    address cannot be bound or would be open by oversight.
    """
    access = Access(host, keys=keys, is_open=is_open)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(config, host, port, access, bounds or HttpBounds()))


async def _serve(config: SearchConfig, host: str, port: int, access: Access, bounds: HttpBounds) -> None:
    num_connections = connections_that_fit(bounds.max_connections, _OTHER_FILES)
    bounds = replace(bounds, max_connections=num_connections, probes=frozenset({"/healthz", "/health"}))
    with bind(host, port) as listener:
        async with open_search(config) as layer:
            _configure_logging()
            server = server_config(create_retrieve_app(layer.view(), access=access), bounds, log_config=None)
            url = httpx.URL(scheme="http", host=host, port=listener.getsockname()[1], path="/retrieve")
            if access.reach is not None:
                said = "This server asks for no key: it is open to %s. Set SEARCHR1_RETRIEVER_API_KEYS to close it."
                logger.warning(said, access.reach)
            logger.info("Serving %s", url)
            await uvicorn.Server(server).serve(sockets=[listener])


def _configure_logging() -> None:
    """Have every logger write lines of the gateway's form to stderr, unless a program around us has configured it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpcore", "httpx", "uvicorn"):  # They name full URLs, or say what a line of ours says better.
        logging.getLogger(name).setLevel(logging.WARNING)


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
    if sum(map(len, wanted.queries)) > limits.max_chars:
        raise HTTPException(422, f"queries: together they may have at most {limits.max_chars} characters")
    if wanted.topk is not None and wanted.topk > limits.max_top_k:
        raise HTTPException(422, f"topk: at most {limits.max_top_k} is allowed")
    if (num_passages := len(wanted.queries) * (wanted.topk or DEFAULT_TOP_K)) > limits.max_passages:
        said = f"queries times topk: {num_passages} passages, at most {limits.max_passages} are allowed"
        raise HTTPException(422, f"{said}; send fewer queries at a time, or a lower topk")
    return wanted


def _encoded(found: Found, with_score: bool) -> bytes:
    return plain_json(msgspec.json.encode([_entry(passage, with_score) for passage in found.passages]))


def _failed(outcome: SearchFailed) -> Response:
    body = {"detail": clean_text(outcome.message), "kind": outcome.kind}
    content = plain_json(msgspec.json.encode(body))
    return Response(content, status_code=_STATUS_OF[outcome.kind], media_type="application/json")


def _entry(passage: Passage, with_score: bool) -> dict[str, Any]:
    document = {"id": clean_text(passage.id), "contents": clean_text(passage.contents)}
    if passage.url is not None:
        document["url"] = clean_text(passage.url)
    if not with_score:
        return document
    return {"document": document} if passage.score is None else {"document": document, "score": passage.score}
