"""Listening sockets, bound before anything else starts, so that a taken port is told at once."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from searchr1.errors import ConfigurationError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host:port``; port 0 takes a free one.

    Raises ``ConfigurationError`` when the address cannot be bound.
    """
    if not 0 <= port < 2**16:
        raise ConfigurationError(f"cannot listen on {host}:{port}: a port is a number from 0 to 65535")
    try:
        return socket.create_server((host, port), family=_family(host))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error


@contextmanager
def bind_shared(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Keep ``host:port`` for listeners of several processes (``join_shared``), and yield the address and the port.

    Raises ``ConfigurationError`` when the address cannot be bound, or somebody listens there already.
    """
    # A socket that shares its port would also share it with another server of ours: the first one here does not.
    with bind(host, port) as alone:
        taken = alone.getsockname()
    with join_shared(host, taken[1]):
        yield taken[0], taken[1]


def join_shared(host: str, port: int) -> socket.socket:
    """Return a socket on a port that ``bind_shared`` keeps; it takes no connections until somebody has it listen.

    Raises ``ConfigurationError`` when the address cannot be bound.
    """
    shared = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if shared.family == socket.AF_INET6:
            shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        shared.bind((host, port))
    except OSError as error:
        shared.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error
    return shared


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


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
