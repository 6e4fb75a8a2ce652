"""A gateway whose answers the test writes, on a real port, and runs and events to answer with."""

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Handler = Callable[[dict[str, Any]], Awaitable[Response]]


class FakeGateway:
    """Serves ``POST /v1/research`` with ``handler`` and keeps what it was sent; lists are ``models`` and ``runs``."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.models: Callable[[], Response] = lambda: JSONResponse({"object": "list", "data": []})
        self.runs: Callable[[], Response] = lambda: Response(status_code=405)

    async def research(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        return await self.handler(body)

    async def listed(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        return self.runs()

    @contextmanager
    def serve(self) -> Iterator["FakeGateway"]:
        routes = [
            Route("/v1/research", self.research, methods=["POST"]),
            Route("/v1/research", self.listed),
            Route("/v1/models", lambda _: self.models()),
        ]
        app = Starlette(routes=routes)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join()


@contextmanager
def unused_url() -> Iterator[str]:
    """An address at which nothing listens, held so that nothing else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


def run_json(question: str, answer: str | None, **changes: Any) -> dict[str, Any]:
    """A run as ``/v1/research`` returns it: one search, two turns."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "observation_tokens": 60,
        "turns": 2,
        "searches": 1,
        "duration_ms": 5.0,
    }
    run: dict[str, Any] = {
        "id": "run_1",
        "created": 0,
        "model": "demo",
        "question": question,
        "status": "exhausted" if answer is None else "completed",
        "answer": answer,
        "steps": [{"turn": 1, "query": "a query"}, {"turn": 2, "reasoning": "so"}],
        "usage": usage,
    }
    return run | changes


def refusal(status: int, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": "t", "param": param, "code": f"code_{status}"}
    return JSONResponse({"error": error}, status_code=status, headers=headers)
