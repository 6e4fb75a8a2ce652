"""A gateway on a real socket, with an engine that replays what a test writes down."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers

from searchr1.engines.base import Chunk, EngineHealth, SamplingParams
from searchr1.errors import EngineError
from searchr1.gateway.access.admission import Admission
from searchr1.gateway.app import create_app
from searchr1.gateway.bounds import http_bounds
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.shared_capacity import open_shared_capacity
from searchr1.gateway.served_model import ServedModel, ServedModels
from searchr1.gateway.services import Services
from searchr1.gateway.tracing.tracing import Tracing
from searchr1.http_server.serving import server_config
from searchr1.loop.types import Passage, TokenIds
from searchr1.models_file import ModelTable
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.layer import SearchLayer
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer
from tests.support.redis_server import RedisServer, run_redis

MODEL = "test-model"
ADMIN_KEY = "the-admin-key-of-the-stage"
"""Key by which a stage without API keys lists its runs; its own client sends it."""
MALI = Passage(id="1", title='"Mali"', text="Mali uses the West African CFA franc.", score=2.5)
SEARCH_TURN = "<think> I need Mali. </think>\n<search> currency of Mali </search>"
ANSWER_TURN = "<think> Found it. </think>\n<answer> West African CFA franc </answer>"


@dataclass
class StageEngine:
    """Replays ``completions``, one a call, word by word; ``hold`` makes it wait before the last word."""

    completions: list[str] = field(default_factory=lambda: [SEARCH_TURN, ANSWER_TURN])
    error: EngineError | None = None
    hold: asyncio.Event | None = None
    is_ready: bool = True
    prompts: list[TokenIds] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    num_open: int = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the next completion."""
        self.prompts.append(prompt_ids)
        self.params.append(params)
        text = self.completions[(len(self.prompts) - 1) % len(self.completions)]
        self.num_open += 1
        try:
            if self.error is not None:
                raise self.error
            words = text.split(" ")
            for i, word in enumerate(words):
                last = i == len(words) - 1
                if last and self.hold is not None:
                    await self.hold.wait()
                await asyncio.sleep(0)
                logprobs = (-0.5,) if params.logprobs else None
                yield Chunk(word if last else word + " ", (i,), "stop" if last else None, logprobs)
        finally:
            self.num_open -= 1

    async def health(self) -> EngineHealth:
        """Return what the test has set."""
        return EngineHealth(ok=True) if self.is_ready else EngineHealth(ok=False, reason="unreachable")


class StageRetriever:
    """Gives ``outcome`` for every query and keeps the queries."""

    def __init__(self, outcome: SearchOutcome | None = None) -> None:
        self.outcome = outcome or Found((MALI,))
        self.queries: list[str] = []

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Answer as set."""
        self.queries.append(query)
        return self.outcome


@dataclass
class Other:
    """A model beside the stage's own, with the keys of its table."""

    name: str
    engine: StageEngine = field(default_factory=lambda: StageEngine())
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stage:
    """A running gateway and what stands behind it."""

    client: httpx.AsyncClient
    engine: StageEngine
    retriever: StageRetriever
    services: Services
    url: str
    hub: RunHub


def byte_tokenizer() -> Tokenizer:
    """One token per byte, with Qwen's control tokens and its chat form."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = RawTokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    template = "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n"
    return Tokenizer(raw, chat_template=template, special={})


@asynccontextmanager
async def running_stage(
    *,
    engine: StageEngine | None = None,
    retriever: StageRetriever | None = None,
    budgets: Budgets | None = None,
    others: Sequence[Other] = (),
    tracing: Tracing | None = None,
    **settings: object,
) -> AsyncIterator[Stage]:
    """Serve on an ephemeral port until the block ends."""
    engine, retriever = engine or StageEngine(), retriever or StageRetriever()
    is_keyless = not {"api_keys", "tenant_keys", "admin_key", "keys_file", "keys_in_redis"} & settings.keys()
    admin = {"admin_key": ADMIN_KEY} if is_keyless else {}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"} if is_keyless else {}
    given = {"model": MODEL, "retriever": "index:none", "port": 0, "max_queued_runs": 0, **admin, **settings}
    config = Settings.model_validate(given)
    tokenizer = byte_tokenizer()
    search = SearchLayer(retriever, budgets=budgets)
    models = [
        ServedModel(
            config, tokenizer, engine, Admission(config, tokenizer, search), shared=open_shared_capacity(config)
        )
    ]
    for other in others:
        table = ModelTable(name=other.name, engine_url="http://127.0.0.1:9", **other.keys)
        own = table.settings(config)
        admission = Admission(own, tokenizer, search)
        model = ServedModel(own, tokenizer, other.engine, admission)
        model.candidate_of, model.share = table.candidate_of, table.share
        models.append(model)
    services = Services(config, ServedModels(models), search, tracing=tracing)

    @asynccontextmanager
    async def open_services(_: Settings) -> AsyncIterator[Services]:
        yield services

    app = create_app(config, open_services=open_services)
    server = uvicorn.Server(server_config(app, http_bounds(config), port=0, log_level="error"))
    serving = asyncio.ensure_future(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event to wait for)
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, headers=headers) as client:
            yield Stage(client, engine, retriever, services, url, app.state.hub)
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A gateway with the default script: one search, then the answer."""
    async with running_stage() as running:
        yield running


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 (any condition, not one that tells)
        await asyncio.sleep(0.01)


def sse_payloads(body: str) -> list[str]:
    """The ``data`` of each event in a whole SSE body."""
    return [line[6:] for line in body.splitlines() if line.startswith("data: ")]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis of the module's own."""
    with run_redis() as server:
        yield server


@pytest.fixture
async def pair(redis: RedisServer) -> AsyncIterator[tuple[Stage, Stage]]:
    """Two gateways with one Redis."""
    async with running_stage(redis_url=redis.url) as one, running_stage(redis_url=redis.url) as other:
        yield one, other
