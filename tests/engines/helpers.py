"""What several engine tests do with an engine."""

import asyncio
import re
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from searchr1.engines.base import Chunk, Engine, SamplingParams
from searchr1.loop.types import TokenIds

PROMPT: TokenIds = tuple(range(10, 80))
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, logprobs=True)
Said = tuple[TokenIds, tuple[float, ...]]
"""Token ids, and their logprobs."""


class Measured(Engine, Protocol):
    """An engine that shows its vLLM's metrics."""

    async def metrics_text(self) -> str: ...


async def complete(engine: Engine, params: SamplingParams, prompt: TokenIds = PROMPT) -> list[Chunk]:
    """All chunks of one completion."""
    async with aclosing(engine.generate(prompt, params, session="test")) as chunks:
        return [chunk async for chunk in chunks]


async def said(engine: Engine) -> Said:
    """What ``engine`` says greedily, by which weights can be told apart."""
    chunks = await complete(engine, GREEDY)
    return ids_of(chunks), tuple(logprob for chunk in chunks for logprob in chunk.logprobs or ())


def write_noisy_copy(source: Path, folder: Path) -> None:
    """Write the checkpoint in ``source`` to ``folder``, with noise on all of its weights; tied ones stay tied."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    random = torch.Generator().manual_seed(3)
    noisy = {
        name: (w + 0.05 * w.float().std() * torch.randn(w.shape, generator=random)).to(w.dtype)
        for name, w in weights.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})


async def read_some(engine: Engine, params: SamplingParams, count: int = 2) -> list[Chunk]:
    """The first chunks of one completion, which is then closed."""
    read: list[Chunk] = []
    async with aclosing(engine.generate(PROMPT, params, session="test")) as chunks:
        async for chunk in chunks:
            read.append(chunk)
            if len(read) == count:
                break
    return read


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def ids_of(chunks: Sequence[Chunk]) -> TokenIds:
    return tuple(token for chunk in chunks for token in chunk.token_ids)


def metric(text: str, name: str) -> float:
    """The sum of a metric's samples over its labels."""
    samples = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert samples, f"no metric {name}"
    return sum(map(float, samples))


async def num_running(engine: Measured) -> float:
    """Requests that vLLM holds now, running or waiting."""
    text = await engine.metrics_text()
    return metric(text, "vllm:num_requests_running") + metric(text, "vllm:num_requests_waiting")


async def until_running(engine: Measured, count: int, reading: asyncio.Task[list[Chunk]] | None = None) -> None:
    """Wait until vLLM holds exactly ``count`` requests. If ``reading`` ends first, raise what ended it."""
    for _ in range(3000):
        if reading is not None and reading.done():
            reading.result()
        if (running := await num_running(engine)) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{running} requests run, not {count}")
