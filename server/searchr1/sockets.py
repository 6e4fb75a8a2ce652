"""Listening sockets, bound before anything else starts, so that a taken port is told at once."""

import socket

from searchr1.errors import ConfigurationError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host:port``; port 0 takes a free one.

    Raises ``ConfigurationError`` when the address cannot be bound.
    """
    if not 0 <= port < 2**16:
        raise ConfigurationError(f"cannot listen on {host}:{port}: a port is a number from 0 to 65535")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error
