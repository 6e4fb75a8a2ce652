"""The vLLM that all arms meet: how it is started, and what it tells of itself."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from loadtests.agents.script import CHECKPOINT, SCRIPT
from loadtests.processes import VLLM_ENVIRONMENT, Server, running

NAME = "agent-model"
"""The name under which the model is served."""
_METRICS_S = 60.0
_COUNTERS = (
    "prompt_tokens",
    "prompt_tokens_cached",
    "generation_tokens",
    "num_preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """One vLLM."""

    checkpoint: Path
    max_model_len: int = 6144
    max_num_seqs: int = 64
    kv_tokens: int | None = None
    """Tokens that its KV cache holds; by default what a GiB does."""
    block_size: int = 128
    more: tuple[str, ...] = ()
    """More arguments."""

    def command(self, python: str, port: int, policy: Literal["fcfs", "priority"]) -> list[str]:
        """Return how it is started."""
        blocks = [] if self.kv_tokens is None else ["--num-gpu-blocks-override", str(self.kv_tokens // self.block_size)]
        return [
            *(python, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(self.checkpoint)),
            *("--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
            *("--max-model-len", str(self.max_model_len), "--max-num-seqs", str(self.max_num_seqs)),
            *("--block-size", str(self.block_size), *blocks, "--scheduling-policy", policy),
            *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--distributed-executor-backend", "uni"),
            # Asks for the CPU's tile registers, without which eager attention dies.
            *("--worker-extension-cls", "searchr1.engines.vllm.worker.WorkerExtension"),
            *("--logits-processors", "loadtests.agents.forcing:Scripted", *self.more),
        ]


@contextlib.contextmanager
def running_engine(
    options: EngineOptions, *, python: str, port: int, policy: Literal["fcfs", "priority"], script: Path, log: Path
) -> Iterator[Server]:
    """Start a vLLM with empty caches that writes by a script, and stop it with the block."""
    environment = {**VLLM_ENVIRONMENT, SCRIPT: str(script), CHECKPOINT: str(options.checkpoint)}
    command = options.command(python, port, policy)
    with running(command, port, ready="/health", log=log, environment=environment, timeout_s=240) as server:
        yield server


async def counters(http: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Return the counters of a vLLM that matter here, summed over its engines."""
    return counters_of(await metrics(http, url))


async def metrics(http: aiohttp.ClientSession, url: str) -> str:
    """Return the metrics of a vLLM."""
    async with http.get(f"{url}/metrics", timeout=aiohttp.ClientTimeout(total=_METRICS_S)) as response:
        response.raise_for_status()
        return await response.text()


def counters_of(text: str) -> dict[str, float]:
    r"""Return the counters in metrics in Prometheus' text format; those that are not told are 0.

    >>> counters_of('vllm:prompt_tokens_total{engine="0"} 12.0\nvllm:prompt_tokens_total{engine="1"} 3.0\n')[
    ...     "prompt_tokens"
    ... ]
    15.0
    """
    found = dict.fromkeys(_COUNTERS, 0.0)
    for name, value in re.findall(r"^vllm:(\w+)_total(?:\{[^}\n]*\})? (\S+)$", text, re.MULTILINE):
        if name in found:
            found[name] += float(value)
    return found


def cpu_s(group: int) -> float:
    """Return the user and system time that the processes of a group have taken so far, their ended children too."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text("ascii", errors="replace").rsplit(")", 1)[1].split()
            if int(fields[2]) == group:
                ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def counted(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, int]:
    """Return what was counted in between."""
    return {name: round(after[name] - before[name]) for name in after}
