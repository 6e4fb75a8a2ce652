"""A server that says what a test writes down, and both clients in front of it."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from searchr1_client import AsyncSearchR1, RetryPolicy, SearchR1

RUN_ID = "run_0"
BASE_URL = "http://server"
USAGE = {"prompt_tokens": 3}
CREATED = 1_000_000_000
AT_ONCE = RetryPolicy(first_wait_s=0.0)


def event(seq: int, type: str, **fields: object) -> dict[str, Any]:
    """One event's JSON."""
    return {"type": type, "seq": seq, "run_id": RUN_ID, "turn": 1, "t_ms": 1.0, **fields}


EVENTS = [
    event(0, "run.started", model="m", question="Why?", created=CREATED),
    event(1, "think.delta", text="hm"),
    event(2, "future.event", mood="bright"),
    event(3, "answer.delta", text="Ma"),
    event(4, "answer.delta", text="li"),
    event(5, "answer.completed", text="Mali", citations=[]),
    event(6, "run.completed", status="completed", usage=USAGE),
]
RUN = {"id": RUN_ID, "created": 5, "model": "m", "question": "Why?", "status": "cancelled", "usage": USAGE}


def sse(*events: dict[str, Any]) -> bytes:
    """Events as the server writes them."""
    return b"".join(f"id: {e['seq']}\nevent: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces and may break."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.close()


def stream(*pieces: bytes, error: Exception | None = None, headers: dict[str, str] | None = None) -> httpx.Response:
    """A streaming answer."""
    given = {"content-type": "text/event-stream; charset=utf-8", "x-run-id": RUN_ID, **(headers or {})}
    return httpx.Response(200, headers=given, stream=Pieces(*pieces, error=error))


def refusal(status: int, **headers: str) -> httpx.Response:
    """An error as the server shapes it."""
    return httpx.Response(status, json={"error": {"message": "no", "code": "c", "param": None}}, headers=headers)


Answer = httpx.Response | Exception


class Server:
    """Gives ``answers`` in turn; cancels are counted apart and answered with ``cancel_answer``."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.cancels: list[httpx.Request] = []
        self.cancel_answer: Answer = httpx.Response(200, json=RUN)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/cancel"):
            self.cancels.append(request)
            answer = self.cancel_answer
        else:
            self.requests.append(request)
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer.stream, Pieces):
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def paths(self) -> list[str]:
        """``METHOD path`` of each request but cancels."""
        return [f"{r.method} {r.url.path}" for r in self.requests]

    def client(self, **options: Any) -> SearchR1:
        """A client of this server."""
        http = httpx.Client(transport=httpx.MockTransport(self))
        return SearchR1(base_url=BASE_URL, http_client=http, **{"retry_policy": AT_ONCE, **options})

    def async_client(self, **options: Any) -> AsyncSearchR1:
        """An async client of this server."""
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return AsyncSearchR1(base_url=BASE_URL, http_client=http, **{"retry_policy": AT_ONCE, **options})


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEARCHR1_URL", raising=False)
    monkeypatch.delenv("SEARCHR1_BASE_URL", raising=False)
    monkeypatch.delenv("SEARCHR1_API_KEY", raising=False)


Both = Callable[..., Any]
"""Calls a dotted method of a client of either kind: ``await both(server, "research.create", "Why?")``."""


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    """See ``Both``."""

    async def call(server: Server, path: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        target: Any = server.client(**client or {}) if request.param == "sync" else server.async_client(**client or {})
        for name in path.split("."):
            target = getattr(target, name)
        result = target(*args, **options)
        return await result if request.param == "async" else result

    return call
