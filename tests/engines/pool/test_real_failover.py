"""Two real vLLMs, one killed in the middle of its completions: every run ends with the ids of an undisturbed one."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.driver import DriveOptions, DriveStats, drive
from searchr1.engines.base import Engine
from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.engines.pool.pool import VllmPool
from searchr1.loop.types import Passage, Status, ThinkDelta
from searchr1.retrieval.base import Found
from searchr1.retrieval.fake import FakeRetriever
from searchr1.rollout import start_rollout
from searchr1.tokenizer import Tokenizer
from tests.support.vllm_server import run_vllm

PLACES = ("Mali", "Chad", "Togo", "Benin", "Gabon", "Ghana", "Niger", "Kenya")
QUESTIONS = [f"Which currency is used in {place}?" for place in PLACES]


def found(query: str, k: int) -> Found:
    """One passage for every query, whatever it asks."""
    return Found((Passage("1", '"Mali"', f"About {query}: its currency is the West African CFA franc.", None),))


async def run(engine: Engine, tokenizer: Tokenizer, question: str, wrote: asyncio.Event) -> tuple[list[str], str, int]:
    """Drive a question; return its segments' ids and its text as it streamed, and how often it was taken up anew."""
    rollout, stats = start_rollout(question, tokenizer), DriveStats()
    options = DriveOptions(session=question, temperature=0.0, deadline_s=120.0)
    text = ""
    async for event in drive(rollout, engine, FakeRetriever(found), options, stats):
        if isinstance(event, ThinkDelta):
            text += event.text
            wrote.set()
    assert rollout.status is Status.COMPLETED
    return [f"{segment.kind} {segment.ids}" for segment in rollout.segments], text, stats.num_resumes


async def run_all(engine: Engine, tokenizer: Tokenizer, kill: Sequence[int] = ()) -> list[tuple[list[str], str, int]]:
    """Drive all questions at once; kill processes once every run has written something."""
    wrote = [asyncio.Event() for _ in QUESTIONS]
    runs = [asyncio.create_task(run(engine, tokenizer, q, event)) for q, event in zip(QUESTIONS, wrote, strict=True)]
    await asyncio.gather(*(event.wait() for event in wrote))
    for pid in kill:
        os.kill(pid, signal.SIGKILL)
    return await asyncio.gather(*runs)


@pytest.mark.vllm
@pytest.mark.timeout(600)
async def test_a_killed_server_loses_no_token(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(str(CHECKPOINT))
    with ExitStack() as stack:
        servers = [stack.enter_context(run_vllm(CHECKPOINT, tmp_path / f"{number}.log")) for number in range(2)]
        urls = tuple(server.url for server in servers)
        async with open_engine(EngineConfig("vllm-pool", servers[0].model, urls=urls)) as pool:
            assert isinstance(pool, VllmPool)
            undisturbed = await run_all(pool, tokenizer)
            disturbed = await run_all(pool, tokenizer, kill=[servers[0].pid])
            assert pool.num_failovers > 0
    assert sum(resumes for _, _, resumes in undisturbed) == 0
    assert sum(resumes for _, _, resumes in disturbed) > 0
    assert [(ids, text) for ids, text, _ in disturbed] == [(ids, text) for ids, text, _ in undisturbed]
