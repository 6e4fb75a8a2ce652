"""The class of every route: who may not ask is told so before the body is read, and a body is held against bounds.

The framework reads and parses a body first, and solves dependencies after. Here the dependencies of a route that give
no value, such as the check of the key, go before the body; a route can't be declared without that.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from searchr1.gateway.errors import ApiError
from searchr1.gateway.json_body import parse_body

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Guard = Callable[..., Coroutine[Any, Any, Any]]


class GuardedRoute(APIRoute):
    """A route whose guards, the dependencies without a value, run before its body is read.

    A guard that takes the request alone is called straight: ``app.dependency_overrides`` does not replace it.
    """

    @property
    def guards(self) -> list[Dependant]:
        """Return the dependencies that give the handler no value."""
        return [one for one in self.dependant.dependencies if one.name is None]

    def get_route_handler(self) -> Handler:
        """Return the handler: guards, then the body, then what the framework does."""
        whole, guards = self.dependant, self.guards
        # The handler gets the rest; the document still names them all.
        self.dependant = replace(whole, dependencies=[one for one in whole.dependencies if one.name is not None])
        try:
            handle = super().get_route_handler()
        finally:
            self.dependant = whole
        guard = Dependant(path=whole.path, dependencies=guards)
        plain = _plain_guards(guards)

        async def handle_guarded(request: Request) -> Response:
            if plain is None:
                await _solve(guard, request)
            else:  # What the framework would do, without its search for all that they might take.
                for call, name in plain:
                    await call(**{name: request})
            if self.body_field is not None:
                await _read(request)
            return await handle(request)

        return handle_guarded


def _plain_guards(guards: Sequence[Dependant]) -> list[tuple[Guard, str]] | None:
    """Return the guards once each, with the name by which they take the request; None where one takes more than it."""
    plain = {
        (guard.call, guard.request_param_name): None
        for guard in guards
        if guard.call is not None and guard.request_param_name is not None and _takes_the_request_alone(guard)
    }
    return list(plain) if {guard.call for guard in guards} == {call for call, _ in plain} else None


def _takes_the_request_alone(guard: Dependant) -> bool:
    """Return whether all that the framework gives ``guard`` is the request.

    A parameter called ``_`` is read by nobody: a security scheme there, which refuses nothing, is for the document.
    """
    others = (guard.path_params, guard.query_params, guard.header_params, guard.cookie_params, guard.body_params)
    names = (
        guard.websocket_param_name,
        guard.http_connection_param_name,
        guard.response_param_name,
        guard.background_tasks_param_name,
        guard.security_scopes_param_name,
    )
    takes_more = any(others) or any(names) or not all(map(_is_for_the_document, guard.dependencies))
    return guard.is_coroutine_callable and not takes_more


def _is_for_the_document(dependency: Dependant) -> bool:
    return dependency.name == "_" and isinstance(dependency.call, HTTPBearer) and not dependency.call.auto_error


async def _solve(guards: Dependant, request: Request) -> None:
    """Run guards that take more than the request."""
    solved = await solve_dependencies(
        request=request,
        dependant=guards,
        async_exit_stack=request.scope["fastapi_inner_astack"],
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)


async def _read(request: Request) -> None:
    """Read and parse the body into ``request``, where the framework looks for it.

    Raises:
        ApiError: it is no JSON, is not said to be, or is larger in itself than any request of use.
    """
    is_empty = request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
    if not is_empty:
        _check_headers(request)
    if body := await request.body():
        request._json = parse_body(body)


def _check_headers(request: Request) -> None:
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"it says {given[:80]!r}" if given else "it says none"
        message = f"The body must be JSON and say so: send content-type: application/json; {said}."
        raise ApiError(415, message, code="unsupported_media_type")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        message = f"The body must not be compressed: leave out content-encoding, which says {coding[:80]!r}."
        raise ApiError(415, message, code="unsupported_media_type")
