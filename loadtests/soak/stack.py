"""What is soaked: Redis, an engine to break, a search server, and the gateway, each in a process of its own."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtests.processes import Server, free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.retrieval.index.bm25 import build_index
from tests.engines.vllm.fake_vllm import MODEL, Fault
from tests.support.redis_server import RedisServer, run_redis

KEYS = ("alpha-key-of-the-soak", "beta-key-of-the-soak", "acme-key-of-the-soak")
RESUME_GRACE_S = 4.0
_ENVIRONMENT = {
    "SEARCHR1_API_KEYS": ",".join(KEYS[:2]),
    "SEARCHR1_TENANT_KEYS": json.dumps({"acme": [KEYS[2]]}),
    "SEARCHR1_ADMIN_KEY": "admin-key-of-the-soak",
    # Shorter than the defaults, so that each bound is met many times.
    "SEARCHR1_RUN_TTL_S": "300",
    "SEARCHR1_BODY_TIMEOUT_S": "5",
    "SEARCHR1_HEADER_TIMEOUT_S": "5",
    "SEARCHR1_RESUME_GRACE_S": f"{RESUME_GRACE_S:g}",
    "SEARCHR1_ENGINE_SILENCE_S": "6",
    "SEARCHR1_DEADLINE_S": "20",
    "SEARCHR1_SEARCH_TIMEOUT_S": "5",
    "SEARCHR1_SEARCH_BREAKER_RESET_S": "5",
    "SEARCHR1_MAX_CONCURRENT_RUNS": "64",
    "SEARCHR1_ACCESS_LOG": "true",
    "SEARCHR1_HEARTBEAT_S": "2",
    "OMP_NUM_THREADS": "1",
}


class Program:
    """A server that can be killed, stopped and started again, on the same port."""

    def __init__(
        self,
        command: list[str],
        port: int,
        *,
        ready: str,
        log: Path,
        host: str = "127.0.0.1",
        timeout_s: float = 60.0,
    ) -> None:
        self._command, self._port, self._host, self._ready, self._log = command, port, host, ready, log
        self._timeout_s = timeout_s
        self._stack = ExitStack()
        self._server: Server | None = None
        self._environment: Mapping[str, str] = {}

    def start(self, environment: Mapping[str, str] | None = None) -> Server:
        """Start it and wait until it is ready, with the environment of its last start where none is given."""
        self._environment = self._environment if environment is None else environment
        self._server = self._stack.enter_context(
            running(
                self._command,
                self._port,
                ready=self._ready,
                log=self._log,
                timeout_s=self._timeout_s,
                environment=self._environment,
                host=self._host,
            )
        )
        return self._server

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._server is not None
        os.kill(self._server.pid, number)

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self._stack.close()

    def stop(self) -> int | None:
        """End it by a SIGTERM, whatever state it is in. Returns its exit code, None where it has never been started."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
        self._stack.close()
        return None if self._server is None else self._server.exit_code


@dataclass(frozen=True)
class Stack:
    """All that runs."""

    gateway: Server
    engine: Program
    engine_url: str
    retriever: Program
    redis: RedisServer
    fault_file: Path

    def set_engine_fault(self, fault: Fault | None) -> None:
        """Have every completion go wrong like that, or none any more."""
        self.fault_file.write_text(fault.name if fault else "", "utf-8")


@contextlib.contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Start everything in ``folder``, and end it with the block."""
    with ExitStack() as stack:
        redis = stack.enter_context(run_redis())
        fault_file, port = folder / "fault", free_port()
        command = [sys.executable, "-m", "loadtests.soak.engine", "--port", str(port), "--fault-file", str(fault_file)]
        engine = Program(command, port, ready="/health", log=folder / "engine.log")
        stack.callback(engine.stop)
        engine_url = engine.start().url
        port = free_port()
        command = searchr1("retriever", "serve", f"index:{_index(folder)}", "--port", str(port))
        retriever = Program(command, port, ready="/healthz", log=folder / "retriever.log")
        stack.callback(retriever.stop)
        retriever_url = f"{retriever.start().url}/retrieve"
        gateway = stack.enter_context(running_gateway(folder, engine_url, retriever_url, redis_url=redis.url))
        yield Stack(gateway, engine, engine_url, retriever, redis, fault_file)


@contextlib.contextmanager
def running_gateway(
    folder: Path, engine_url: str, retriever: str, *, redis_url: str | None = None, **settings: str
) -> Iterator[Server]:
    """Start a gateway; ``settings`` are further variables, without their prefix."""
    port = free_port()
    command = searchr1(
        *("serve", "--engine-url", engine_url, "--model", MODEL, "--tokenizer", str(CHECKPOINT)),
        *("--retriever", retriever, "--port", str(port)),
    )
    given = {f"SEARCHR1_{name.upper()}": value for name, value in settings.items()}
    if redis_url is not None:
        given["SEARCHR1_REDIS_URL"] = redis_url
    environment = {**_ENVIRONMENT, **given}
    with running(command, port, ready="/readyz", log=folder / "gateway.log", environment=environment) as gateway:
        yield gateway


def _index(folder: Path) -> Path:
    corpus = folder / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as lines:
        for number in range(5000):
            text = f"Entry {number} tells of a place.\n" + f"What is told of it in entry {number}: much. " * 8
            lines.write(json.dumps({"id": str(number), "contents": text}) + "\n")
    build_index(corpus, folder / "index", progress=False, overwrite=True)
    return folder / "index"
