"""What real vLLM is sent and what it does with it, by its own word: ids, stops, prefix cache, replays."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from searchr1.atlas.build import build_world
from searchr1.demo.bundle import CHECKPOINT
from searchr1.driver import DriveOptions, drive
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits, Status, TokenIds
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.factory import open_retriever
from searchr1.retrieval.index.bm25 import build_index
from searchr1.tokenizer import Tokenizer
from tests.engines.helpers import metric
from tests.support.vllm_server import VllmServer, run_vllm

pytestmark = pytest.mark.vllm

QUESTIONS = (
    "Which currency is used in the country where Timbuktu is?",
    "What is the capital of the country where Gao is?",
    "What is the capital of Fiji?",
)


@dataclass
class Completion:
    """One completion as vLLM gave it."""

    prompt_ids: TokenIds
    ids: list[int] = field(default_factory=list)
    text: str = ""
    num_cached_tokens: int | None = None


class RecordingEngine:
    """Passes everything on to ``engine`` and keeps it."""

    def __init__(self, engine: VllmHttpEngine) -> None:
        self._engine = engine
        self.completions: list[Completion] = []

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """As the engine does."""
        completion = Completion(prompt_ids)
        self.completions.append(completion)
        async for chunk in self._engine.generate(prompt_ids, params, session=session, priority=priority):
            completion.ids.extend(chunk.token_ids)
            completion.text += chunk.text
            completion.num_cached_tokens = chunk.num_cached_tokens
            yield chunk


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Atlas index."""
    folder = tmp_path_factory.mktemp("atlas")
    build_world(folder)
    build_index(folder / "corpus.jsonl", folder / "index", progress=False)
    return folder / "index"


@pytest.fixture
async def retriever(index_folder: Path) -> AsyncIterator[Retriever]:
    async with open_retriever(f"index:{index_folder}") as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """vLLM over HTTP on the bundled checkpoint."""
    with run_vllm(CHECKPOINT, tmp_path_factory.mktemp("vllm") / "log.txt") as running:
        yield running


@pytest.fixture
async def engine(server: VllmServer) -> AsyncIterator[VllmHttpEngine]:
    async with VllmHttpEngine(server.url, server.model) as opened:
        yield opened


async def run(engine: RecordingEngine, retriever: Retriever, tokenizer: Tokenizer, question: str) -> Rollout:
    """One greedy rollout, to its answer."""
    prompt = tokenizer.render(SEARCH_R1.prompt(question))
    rollout = Rollout(
        prompt=prompt,
        prompt_ids=tokenizer.encode_prompt(prompt),
        encode=tokenizer.encode,
        limits=Limits(max_completion_tokens=100),
    )
    async for _ in drive(rollout, engine, retriever, DriveOptions(session=f"t-{id(rollout)}", temperature=0)):
        pass
    assert rollout.status is Status.COMPLETED
    return rollout


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(str(CHECKPOINT))


@pytest.mark.parametrize("question", QUESTIONS)
async def test_two_greedy_replays_have_the_same_ids(
    engine: VllmHttpEngine, retriever: Retriever, tokenizer: Tokenizer, question: str
) -> None:
    first, second = [await run(RecordingEngine(engine), retriever, tokenizer, question) for _ in range(2)]
    assert first.ids == second.ids
    assert first.loss_mask == second.loss_mask


async def test_each_turn_sends_exactly_prompt_plus_segments(
    engine: VllmHttpEngine, retriever: Retriever, tokenizer: Tokenizer
) -> None:
    recording = RecordingEngine(engine)
    rollout = await run(recording, retriever, tokenizer, QUESTIONS[0])
    assert len(recording.completions) >= 3
    for turn, completion in enumerate(recording.completions, start=1):
        sent = [i for segment in rollout.segments if segment.turn < turn for i in segment.ids]
        assert list(completion.prompt_ids) == sent


async def test_nothing_is_generated_after_the_tag_but_what_completes_it(
    engine: VllmHttpEngine, retriever: Retriever, tokenizer: Tokenizer
) -> None:
    before = metric(await engine.metrics_text(), "vllm:generation_tokens_total")
    recording = RecordingEngine(engine)
    await asyncio.gather(*(run(recording, retriever, tokenizer, question) for question in QUESTIONS))
    for completion in recording.completions:
        assert completion.text.endswith(("</search>", "</answer>"))
        without_the_last = tokenizer.decode(tuple(completion.ids[:-1]))
        assert "</search>" not in without_the_last
        assert "</answer>" not in without_the_last
    generated = metric(await engine.metrics_text(), "vllm:generation_tokens_total") - before
    assert generated == sum(len(completion.ids) for completion in recording.completions)


async def test_from_turn_two_on_the_prefix_cache_serves_all_full_blocks(
    engine: VllmHttpEngine, retriever: Retriever, tokenizer: Tokenizer, server: VllmServer
) -> None:
    recording = RecordingEngine(engine)
    # Asked by no other test, or its later turns would be cached too.
    await run(recording, retriever, tokenizer, "On which continent is the country where Sikasso is?")
    assert len(recording.completions) >= 2
    block = server.block_size
    for earlier, later in zip(recording.completions, recording.completions[1:], strict=False):
        # The last sampled token is never fed back, so its key and value are not in the cache.
        known = [*earlier.prompt_ids, *earlier.ids][:-1]
        shared = next((i for i, (a, b) in enumerate(zip(known, later.prompt_ids, strict=False)) if a != b), len(known))
        assert later.num_cached_tokens == shared // block * block
        assert shared >= len(earlier.prompt_ids)
