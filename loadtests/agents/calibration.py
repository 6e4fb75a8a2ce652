"""The rates of a vLLM, measured in about a minute, for the simulator's model of its step time.

Prompts are random ids, which no cache has; completions are of fixed length. A step's time is fitted to decoding at
several numbers of sequences and contexts, what a prompt token costs to the time of single prompts.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp
import numpy as np

from loadtests.agents.engine import NAME

_PREFILLS = (256, 512, 1024, 2048)
_DECODES = ((1, 128), (8, 128), (32, 128), (64, 128), (8, 1024), (16, 2048))
"""Sequences at once, and their contexts."""
_NUM_TOKENS = 40
_REPEATS = 3
Prompt = Callable[[int], list[int]]


@dataclass(frozen=True, slots=True)
class Decoding:
    """Time of a step in which so many sequences decode, each with so much context."""

    num_seqs: int
    context_tokens: int
    step_s: float


async def calibrated(http: aiohttp.ClientSession, url: str, vocab_size: int) -> dict[str, float]:
    """Return ``step_s``, ``prefill_token_s``, ``decode_s`` and ``context_token_s`` of ``EngineParams``."""
    rng = random.Random(1)

    def prompt(num_tokens: int) -> list[int]:
        return [rng.randrange(vocab_size // 2, vocab_size) for _ in range(num_tokens)]

    await _took_s(http, url, [prompt(64)], 8)
    prefills = [(n, min([await _took_s(http, url, [prompt(n)], 1) for _ in range(_REPEATS)])) for n in _PREFILLS]
    print("  prefill: " + ", ".join(f"{n} tokens {s:.2f} s" for n, s in prefills), flush=True)
    decodings = [await _decoding(http, url, prompt, num_seqs, context) for num_seqs, context in _DECODES]
    print("  steps: " + ", ".join(f"{d.num_seqs} × {d.context_tokens} {d.step_s:.3f} s" for d in decodings), flush=True)
    return fitted(prefills, decodings)


def fitted(prefills: Sequence[tuple[int, float]], decodings: Sequence[Decoding]) -> dict[str, float]:
    """Fit the rates, none of them below 0, to what was measured, each point by its share of error."""
    rows = np.array([[1.0, d.num_seqs, d.num_seqs * d.context_tokens] for d in decodings])
    steps = np.array([d.step_s for d in decodings])
    step_s, decode_s, context_token_s = _least_squares(rows / steps[:, None], np.ones(len(steps)))
    lengths, times = (np.array(column, dtype=float) for column in zip(*prefills, strict=True))
    prefill_token_s, _ = np.polyfit(lengths, times, 1, w=1 / times)
    return {
        "step_s": float(step_s),
        "prefill_token_s": float(prefill_token_s),
        "decode_s": float(decode_s),
        "context_token_s": float(context_token_s),
    }


def _least_squares(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solve by least squares; a factor that would be negative is 0, and the others are fitted without it."""
    kept = list(range(rows.shape[1]))
    while True:
        found = np.linalg.lstsq(rows[:, kept], values, rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    solved = np.zeros(rows.shape[1])
    solved[kept] = found
    return solved


async def _decoding(http: aiohttp.ClientSession, url: str, prompt: Prompt, num_seqs: int, context: int) -> Decoding:
    """Time steps in which nothing but decoding happens: the prompts are cached, and the first tokens do not count."""
    prompts = [prompt(context) for _ in range(num_seqs)]
    await _took_s(http, url, prompts, 1)
    gaps_s = await asyncio.gather(*(_gaps_s(http, url, ids) for ids in prompts))
    return Decoding(num_seqs, context + _NUM_TOKENS // 2, statistics.median(gap for gaps in gaps_s for gap in gaps))


async def _gaps_s(http: aiohttp.ClientSession, url: str, ids: list[int]) -> list[float]:
    """Return the times between the tokens of a completion, without its first half."""
    body = {**_body(ids, _NUM_TOKENS), "stream": True}
    async with http.post(f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        times = [time.perf_counter() async for line in response.content if line.startswith(b"data: {")]
    return [later - earlier for earlier, later in pairwise(times[_NUM_TOKENS // 2 :])]


async def _took_s(http: aiohttp.ClientSession, url: str, prompts: Sequence[list[int]], num_tokens: int) -> float:
    async def one(ids: list[int]) -> None:
        async with http.post(f"{url}/v1/completions", json=_body(ids, num_tokens)) as response:
            response.raise_for_status()
            await response.read()

    began = time.perf_counter()
    await asyncio.gather(*map(one, prompts))
    return time.perf_counter() - began


def _body(ids: list[int], num_tokens: int) -> dict[str, Any]:
    return {"model": NAME, "prompt": ids, "max_tokens": num_tokens, "ignore_eos": True, "temperature": 0}
