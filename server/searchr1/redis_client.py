"""Redis clients from URLs: one server, Sentinel or a Cluster, with or without TLS."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from searchr1.errors import ConfigurationError

RedisClient: TypeAlias = Redis | RedisCluster
T = TypeVar("T")

_FORMS = "redis://, rediss://, unix://, redis+sentinel://host,host/service or redis+cluster://host,host"
_CONNECTIONS = 64
_UNBLOCKED_CONNECTIONS = 1024
"""Connections of Sentinel's and the Cluster's pools, which raise when they are full; the other pools wait."""
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 2.0
_REDIRECTIONS = 3
_MAX_REASON_CHARS = 300
_MAX_REASONS = 20
"""Reasons of one outage that are told."""
_REDIS_PORT, _SENTINEL_PORT = 6379, 26379


def open_redis(url: str) -> RedisClient:
    """Return a client of the Redis at ``url``; close it with ``aclose``. It connects with its first command.

    * ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for the same over TLS;
    * ``unix:///path/to/socket[?db=n]``, with ``user:password@`` before the path;
    * ``redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db]``, with ``?sentinel_username=…`` and
      ``sentinel_password=…`` where Sentinel wants them;
    * ``redis+cluster://[user:password@]host[:port],host[:port]…``.

    ``rediss+sentinel`` and ``rediss+cluster`` use TLS, to Sentinel as well. With TLS, ``ssl_ca_certs=path`` after a
    question mark names who signed the server's certificate, unless the system trusts them anyway. A server that cannot
    prove to be the host of the URL is sent nothing.
    Raises ``ConfigurationError``, whose message holds nothing of the URL but its scheme.
    """
    try:
        # Messages of urllib and redis-py may quote a part of the password: hence "from None" below.
        return _open(urlsplit(url))
    except ConfigurationError:
        raise
    except (ValueError, RedisError):
        raise ConfigurationError(f"the Redis URL is malformed; expected {_FORMS}") from None


async def answered(command: Awaitable[T]) -> T:
    """Return the answer to ``command``; raise ``CancelledError`` if the task was cancelled while it waited.

    redis-py sends commands through ``asyncio.wait_for``, which in Python 3.11 swallows a cancellation that arrives as
    the send ends. A task that loops would then never end.
    """
    task = asyncio.current_task()
    num_before = 0 if task is None else task.cancelling()
    try:
        return await command
    finally:
        if task is not None and task.cancelling() > num_before:
            raise asyncio.CancelledError


def reason_of(error: BaseException) -> str:
    """Return in one line why Redis did not do what it was asked, for the log. It quotes no argument of a command."""
    text = " ".join(str(error).partition(", with args")[0].split())
    return f"{type(error).__name__}: {text[:_MAX_REASON_CHARS]}" if text else type(error).__name__


class Outages:
    """A log that tells once why something does not work, however often it is noticed, and once that it works again."""

    def __init__(self, what: str, logger: logging.Logger) -> None:
        self._what, self._logger = what, logger
        self._failing: set[str] = set()
        self._told: set[str] = set()

    def failed(self, operation: str, reason: str) -> None:
        """Note that ``operation`` failed; a reason that is new in this outage is told."""
        self._failing.add(operation)
        if reason not in self._told and len(self._told) < _MAX_REASONS:
            self._told.add(reason)
            self._logger.warning("%s fails: %s", self._what, reason)

    def worked(self, operation: str) -> None:
        """Note that ``operation`` worked; when all that had failed do, the outage is over."""
        if not self._failing:
            return
        self._failing.discard(operation)
        if not self._failing:
            self._told.clear()
            self._logger.info("%s works again", self._what)


def _open(parts: SplitResult) -> RedisClient:
    transport, _, kind = parts.scheme.partition("+")
    if parts.fragment:
        raise ConfigurationError("the Redis URL holds a '#'; write it as %23 in a password")
    tls = transport == "rediss"
    options = _options(parts, kind, tls=tls)
    match transport, kind:
        case "redis" | "rediss", "":
            return _single(parts, options, tls=tls)
        case "unix", "":
            return _socket(parts, options)
        case "redis" | "rediss", "sentinel":
            return _sentinel(parts, options, tls=tls)
        case "redis" | "rediss", "cluster":
            return _cluster(parts, options, tls=tls)
    raise ConfigurationError(f"the Redis URL's scheme is {parts.scheme!r}; expected {_FORMS}")


def _options(parts: SplitResult, kind: str, *, tls: bool) -> dict[str, Any]:
    """Return the arguments that every client takes, and those of the URL's query."""
    options: dict[str, Any] = {
        "protocol": 2,  # RESP3 adds only notifications, and with those redis-py trusts connections that were closed
        "driver_info": None,  # two commands less for a connection to be ready
        "socket_timeout": _ANSWER_TIMEOUT_S,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 1),
    }
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    allowed = {"ssl_ca_certs"} if tls else set()
    allowed |= {"sentinel": {"sentinel_username", "sentinel_password"}, "": {"db"}}.get(kind, set())
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ConfigurationError(f"the Redis URL has an option that is not known here; known: {sorted(allowed)}")
        options[name] = value
    return options


def _hosts(parts: SplitResult, default_port: int, *, at_most: int = 1000) -> list[tuple[str, int]]:
    names = parts.netloc.rpartition("@")[2].split(",")
    if not all(names) or len(names) > at_most:
        raise ConfigurationError(f"the Redis URL names no host, or too many; expected {_FORMS}")
    hosts = [urlsplit(f"//{name}") for name in names]
    return [(host.hostname or "localhost", host.port or default_port) for host in hosts]


def _db(text: str) -> int:
    if not (text.isdecimal() or text == ""):
        raise ConfigurationError("the database in the Redis URL is not a number")
    return int(text or 0)


def _single(parts: SplitResult, options: dict[str, Any], *, tls: bool) -> Redis:
    [(host, port)] = _hosts(parts, _REDIS_PORT, at_most=1)
    options |= {"host": host, "port": port, "db": _db(options.pop("db", parts.path.strip("/")))}
    return _pooled(options | ({"connection_class": SSLConnection} if tls else {}))


def _socket(parts: SplitResult, options: dict[str, Any]) -> Redis:
    if parts.path in ("", "/") or parts.netloc.rpartition("@")[2]:
        raise ConfigurationError("a unix:// Redis URL needs three slashes and the path of a socket")
    options |= {"path": unquote(parts.path), "db": _db(options.pop("db", ""))}
    return _pooled(options | {"connection_class": UnixDomainSocketConnection})


def _pooled(options: dict[str, Any]) -> Redis:
    pool = BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=_ANSWER_TIMEOUT_S, **options)
    return Redis.from_pool(pool)


def _sentinel(parts: SplitResult, options: dict[str, Any], *, tls: bool) -> Redis:
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError("the Redis URL names no service of Sentinel; expected redis+sentinel://host/service")
    security = {"ssl": True, "ssl_ca_certs": options.pop("ssl_ca_certs", None)} if tls else {}
    logins = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    own = {
        name: options[name] for name in ("protocol", "driver_info", "socket_timeout", "socket_connect_timeout", "retry")
    }
    sentinel = cast(Any, Sentinel)(_hosts(parts, _SENTINEL_PORT), sentinel_kwargs=own | security | logins)
    pool = cast(Any, SentinelConnectionPool)(
        unquote(service), sentinel, db=_db(db), max_connections=_UNBLOCKED_CONNECTIONS, **options, **security
    )
    return _SentinelRedis(pool, sentinel)


class _SentinelRedis(Redis):
    """The master that Sentinel names. Closing it closes the connections to Sentinel too, which redis-py leaves open."""

    def __init__(self, pool: SentinelConnectionPool, sentinel: Sentinel) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._sentinel = sentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for client in self._sentinel.sentinels:
            await client.aclose()


def _cluster(parts: SplitResult, options: dict[str, Any], *, tls: bool) -> RedisCluster:
    if parts.path.strip("/"):
        raise ConfigurationError("a Redis Cluster has no databases and no services: the URL must end with its hosts")
    options |= {"ssl": tls, "max_connections": _UNBLOCKED_CONNECTIONS, "retry": Retry(NoBackoff(), _REDIRECTIONS)}
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts, _REDIS_PORT)]
    return RedisCluster(startup_nodes=nodes, **options)
