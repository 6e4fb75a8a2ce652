"""Who may ask a ``/retrieve`` server: bearers of its keys; without keys, this machine, or everyone if told so."""

import hmac
from collections.abc import Sequence

from fastapi import Request
from starlette.exceptions import HTTPException

from searchr1.errors import ConfigurationError
from searchr1.http_server.headers import bearer_token, hostname
from searchr1.sockets import is_loopback


class Access:
    """The rule of one server.

    ``host`` is the address that it listens on. Raises ``ConfigurationError`` where others than this machine could ask
    by oversight: there are no keys, and ``is_open`` is not set.
    """

    def __init__(self, host: str, *, keys: Sequence[str] = (), is_open: bool = False) -> None:
        if not (keys or is_open or is_loopback(host)):
            raise ConfigurationError(
                f"without keys, everyone who reaches {host or 'this host'} could search. Set "
                "SEARCHR1_RETRIEVER_API_KEYS, serve on 127.0.0.1, or allow it by --open"
            )
        self._keys = [key.encode() for key in keys]
        self._is_own = not keys and not is_open
        self.reach = None if keys else "this machine" if is_loopback(host) else f"everyone who reaches {host}"
        """Who may ask without a key; None where nobody may."""

    async def check(self, request: Request) -> None:
        """Refuse a request that may not ask. It reads no body.

        Raises:
            HTTPException: 401 or 421.
        """
        if self._keys:
            presented = bearer_token(request.headers.get("authorization"))
            # All are compared, so that the time tells nothing about which one matched.
            matches = [hmac.compare_digest(presented, own) for own in self._keys]
            if not any(matches):
                said = "the key is missing or wrong; send 'Authorization: Bearer KEY'"
                raise HTTPException(401, said, {"WWW-Authenticate": "Bearer"})
        elif self._is_own and not all(is_loopback(hostname(host) or "") for host in request.headers.getlist("host")):
            # A page of another site, whose name was made to resolve to this machine.
            raise HTTPException(421, "this server has no keys, so it answers to its own machine; call it as localhost")
