"""What faults are done to: two gateways that share a Redis, before two engines, all of which can be killed."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.faults.gateway import NAME
from loadtests.paced_stack import paced_engine
from loadtests.processes import Server, free_port, running, searchr1
from loadtests.soak.stack import Program
from searchr1.demo.bundle import CHECKPOINT
from tests.engines.vllm.fake_vllm import MODEL, Fault
from tests.support.redis_server import run_redis

_HOSTS = ("127.0.0.2", "127.0.0.3")
SILENCE_S = 3.0
"""Instead of the default of 120 s, so that completions that stand still are noticed within a short test."""
_SETTINGS = {"SEARCHR1_ENGINE_SILENCE_S": f"{SILENCE_S:g}", "SEARCHR1_DEADLINE_S": "60", "SEARCHR1_CACHE": "false"}


@dataclass(frozen=True)
class Stack:
    """All that runs."""

    gateways: dict[str, Program]
    """By address."""
    engines: dict[str, Program]
    """By the address of their host."""
    addresses: Path
    """The file that lists the hosts of the engines in service."""
    fault_files: tuple[Path, ...]

    def drain(self, host: str) -> None:
        """Take an engine out of service, as a cluster does with a pod that shall go."""
        self.addresses.write_text(" ".join(other for other in self.engines if other != host), "ascii")

    def admit_all(self) -> None:
        """Take all engines into service again."""
        self.addresses.write_text(" ".join(self.engines), "ascii")

    def set_faults(self, *faults: Fault) -> None:
        """Have every tenth completion of each engine go wrong."""
        for file in self.fault_files:
            file.write_text(" ".join(fault.name for fault in faults), "utf-8")


@contextmanager
def running_stack(
    folder: Path,
    *,
    num_engines: int = 2,
    num_gateways: int = 2,
    router: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start everything in ``folder``, and end it with the block.

    ``router`` is the program of vLLM's router, which then stands between gateways and engines; ``settings`` are further
    variables of the gateways.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(run_redis())
        search = stack.enter_context(paced_engine(folder, tokens_per_s=50, num_tokens=1))
        addresses, port = folder / "addresses", free_port()
        engines, files = {}, []
        for host in _HOSTS[:num_engines]:
            files.append(folder / f"fault-{host}")
            command = [sys.executable, "-m", "loadtests.faults.engine", "--host", host, "--port", str(port)]
            command += ["--fault-file", str(files[-1])]
            engines[host] = Program(command, port, ready="/health", log=folder / f"engine-{host}.log", host=host)
            stack.callback(engines[host].stop)
            engines[host].start()
        addresses.write_text(" ".join(engines), "ascii")
        engine_url = f"dns+http://{NAME}:{port}"
        if router is not None:
            engine_url = stack.enter_context(
                running_router(router, [f"http://{host}:{port}" for host in engines], folder)
            ).url
        gateways = {}
        for number in range(num_gateways):
            gateway_port = free_port()
            arguments = searchr1(
                *("serve", "--engine-url", engine_url, "--model", MODEL),
                *("--tokenizer", str(CHECKPOINT), "--retriever", f"{search.url}/retrieve"),
                *("--port", str(gateway_port)),
            )
            command = [sys.executable, "-m", "loadtests.faults.gateway", str(addresses), *arguments[3:]]
            log = folder / f"gateway-{number}.log"
            gateway = Program(command, gateway_port, ready="/readyz", log=log, timeout_s=300)
            stack.callback(gateway.stop)
            gateways[gateway.start({**_SETTINGS, "SEARCHR1_REDIS_URL": redis.url, **(settings or {})}).url] = gateway
        yield Stack(gateways, engines, addresses, tuple(files))


def running_router(program: str, engine_urls: list[str], folder: Path) -> AbstractContextManager[Server]:
    """Run vLLM's router before engines until the block ends."""
    port = free_port()
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--policy", "sticky_least_loaded"]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *engine_urls]
    return running(command, port, ready="/health", log=folder / "router.log", timeout_s=60)
