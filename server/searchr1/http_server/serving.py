"""uvicorn's configuration, the same for every HTTP server of ours."""

from collections.abc import Callable
from typing import Any

import uvicorn

from searchr1.http_server.bounds import HttpBounds
from searchr1.http_server.protocol import protocol_class


def server_config(app: Callable[..., Any], bounds: HttpBounds, **given: Any) -> uvicorn.Config:
    """Return the configuration of a server of ``app`` within ``bounds``. ``given`` are further ones of uvicorn's.

    WebSockets are declined, unless ``ws`` names their implementation.
    """
    options = {"ws": "none", "access_log": False, "server_header": False, **given}
    return uvicorn.Config(app, http=protocol_class(bounds), **options)
