"""What most load tests start: paced engines, real vLLMs of the demo's checkpoint, and gateways before either."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.processes import VLLM_ENVIRONMENT, Server, free_port, running, searchr1, vllm_server
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT

NOWHERE = "http://127.0.0.1:9/retrieve"
"""A retriever for runs that do not search."""
NO_LIMITS: Mapping[str, str] = {"max_concurrent_runs": "100000", "max_connections": "100000"}


@contextmanager
def paced_engine(
    folder: Path,
    *,
    tokens_per_s: float,
    num_tokens: int,
    searches: int = 0,
    search_s: float = 0.0,
    spread: float = 0.0,
) -> Iterator[Server]:
    """Run a paced engine until the block ends. It answers searches at ``/retrieve``."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "loadtests.streaming.paced_engine", "--port", str(port)),
        *("--tokens-per-s", str(tokens_per_s), "--num-tokens", str(num_tokens)),
        *("--searches", str(searches), "--search-s", str(search_s), "--spread", str(spread)),
    ]
    with running(command, port, ready="/health", log=folder / "paced.log") as engine:
        yield engine


@contextmanager
def demo_vllm(folder: Path, *arguments: str, name: str = "vllm") -> Iterator[Server]:
    """Run vLLM on the demo's checkpoint until the block ends. Its model's name is the checkpoint's path."""
    port = free_port()
    sizes = ("--max-model-len", "4596", "--max-num-seqs", "64")
    command = vllm_server(CHECKPOINT, port, *sizes, *arguments)
    with running(command, port, ready="/health", log=folder / f"{name}.log", environment=VLLM_ENVIRONMENT) as engine:
        yield engine


@contextmanager
def gateway_before(
    engine_urls: Sequence[str],
    folder: Path,
    *,
    model: str = MODEL,
    retriever: str = NOWHERE,
    name: str = "gateway",
    settings: Mapping[str, str] = NO_LIMITS,
) -> Iterator[Server]:
    """Run a gateway until the block ends; ``settings`` are variables in lower case, without their prefix."""
    port = free_port()
    command = searchr1(
        *("serve", "--engine-url", ",".join(engine_urls), "--model", model, "--tokenizer", str(CHECKPOINT)),
        *("--retriever", retriever, "--port", str(port)),
    )
    environment = {f"SEARCHR1_{key.upper()}": value for key, value in settings.items()}
    with running(command, port, ready="/readyz", log=folder / f"{name}.log", environment=environment) as gateway:
        yield gateway
