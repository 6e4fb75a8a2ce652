"""Streams that are sent once the framework has returned: its layers around a route would be held to a stream's end.

They are nine coroutines, three exit stacks and two requests with the body, an eighth of what a stream cost.
"""

from collections.abc import Awaitable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_NAME: Final = "searchr1.unwound"
# What the framework leaves in the scope, each holding what it was made with.
_LEFT_OVER: Final = (
    "fastapi_function_astack",
    "fastapi_inner_astack",
    "fastapi_middleware_astack",
    "starlette.exception_handlers",
)


class Unwound:
    """Innermost middleware, which sends the response that it was handed after the app has returned.

    An error of the sending does not reach what is inside, which could do nothing about it: the answer has begun.
    Nothing of the app may wait once it has handed a response over, as a dependency with ``yield`` would: cancelled
    there, the response would be neither sent nor closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self._answer if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        handed: list[ASGIApp] = []
        scope[_NAME] = handed
        await self._app(scope, receive, send)
        for name in (_NAME, *_LEFT_OVER):
            scope.pop(name, None)
        for response in handed:
            await response(scope, receive, send)


async def when_unwound(response: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Have ``response`` sent once the app has returned; where nobody waits for that, it is sent now."""
    handed: list[ASGIApp] | None = scope.get(_NAME)
    if handed is None:
        await response(scope, receive, send)
    else:
        handed.append(response)
