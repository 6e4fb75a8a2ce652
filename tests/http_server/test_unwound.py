"""A response that is sent after the framework has returned: what is held meanwhile, and whose errors are whose."""

import gc
import weakref
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from searchr1.http_server.unwound import Unwound, when_unwound
from tests.http_server.conftest import HOST, connected, running


class Late(Response):
    """Asks to be sent late, and looks then at what is left of the request; or fails, where it has ``error``."""

    def __init__(self, request: Request, error: Exception | None = None) -> None:
        super().__init__(b"sent")
        self.request, self.error = weakref.ref(request), error
        self.was_held, self.names = True, set[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await when_unwound(self._later, scope, receive, send)

    async def _later(self, scope: Any, receive: Any, send: Any) -> None:
        gc.collect()
        self.was_held, self.names = self.request() is not None, set(scope)
        if self.error is not None:
            raise self.error
        await super().__call__(scope, receive, send)


class Boundary:
    """Middleware that notes the errors which reach it."""

    def __init__(self, app: Any, errors: list[Exception]) -> None:
        self._app, self._errors = app, errors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except ValueError as error:
            self._errors.append(error)
            await Response(b"noted", status_code=500)(scope, receive, send)


def _app(sent: list[Late], error: Exception | None = None) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def late(request: Request) -> Response:
        sent.append(Late(request, error))
        return sent[-1]

    return app


@pytest.mark.parametrize("waits", [True, False])
async def test_the_request_and_the_framework_are_gone_when_a_late_response_is_sent(waits: bool) -> None:
    sent: list[Late] = []
    app = _app(sent)
    if waits:
        app.add_middleware(Unwound)
    async with running(app) as port, connected(port) as peer:
        for _ in range(2):
            await peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (await peer.answer()).body == b"sent"
    assert [late.was_held for late in sent] == [not waits, not waits]
    # A stack that has ended still takes the memory of its queue, so a name that the framework changes shows here.
    left = {name for late in sent for name in late.names if "stack" in name or "exception" in name}
    assert bool(left) is not waits


async def test_an_error_of_a_late_response_reaches_the_middleware_around() -> None:
    errors: list[Exception] = []
    app = _app([], ValueError("odd"))
    app.add_middleware(Unwound)
    app.add_middleware(Boundary, errors=errors)
    async with running(app) as port, connected(port) as peer:
        await peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await peer.answer()).body == b"noted"
    assert [str(error) for error in errors] == ["odd"]
