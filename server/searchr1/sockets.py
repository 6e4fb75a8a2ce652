"""Listening sockets, bound before anything else starts, so that a taken port is told at once."""

import socket
from ipaddress import ip_address

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


def is_loopback(host: str) -> bool:
    """Tell whether ``host``, a name or an address with or without brackets, is this machine and nothing else."""
    name = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
