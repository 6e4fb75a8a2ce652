"""The ``Host`` header of a server that trusts all who reach it: a page of another site must not count as them.

A site can have its name resolve to 127.0.0.1 (DNS rebinding); the browser then takes this server for the site's own.
The name that it was asked for still stands in ``Host``.
"""

from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from searchr1.gateway.errors import ApiError
from searchr1.gateway.ops_port import is_of_operators
from searchr1.http_server.headers import hostname
from searchr1.settings import Settings
from searchr1.sockets import is_loopback


class OwnHosts:
    """Middleware that refuses, with a 421, a ``Host`` that is neither this machine nor the name that is listened on."""

    def __init__(self, app: ASGIApp, *, own: str, ops: str | None = None) -> None:
        """``own`` is the host that is listened on, ``ops`` the one of the operators' port, where it is another."""
        self._app = app
        self._own = own.lower()
        self._trusts_ops = ops is not None and not is_loopback(ops)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_checked = scope["type"] == "http" and not (self._trusts_ops and is_of_operators(scope))
        if is_checked and not all(map(self._is_own, Headers(scope=scope).getlist("host"))):
            message = (
                "This server has no API keys, so it answers to its own machine alone. Call it as localhost; "
                "its operator opens it by SEARCHR1_API_KEYS or SEARCHR1_OPEN=1."
            )
            return ApiError(421, message, code="misdirected_request").response()(scope, receive, send)
        return self._app(scope, receive, send)

    def _is_own(self, header: str) -> bool:
        name = hostname(header)
        return name is not None and (is_loopback(name) or name == self._own)


def trusts_its_machine(settings: Settings) -> bool:
    """Tell whether the server has no key and relies on being reached from its own machine alone."""
    return not (settings.asks_for_keys or settings.open) and is_loopback(settings.host)
