"""The models that the gateway serves: each with an engine, a tokenizer, bounds and seats of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from searchr1.engines.base import ServedEngine
from searchr1.engines.factory import open_engine
from searchr1.engines.retry_budget import RetryBudget
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.gateway.access.admission import Admission
from searchr1.gateway.errors import ApiError
from searchr1.gateway.runs.capacity_board import Board
from searchr1.gateway.runs.rewrite import Rewriter, open_rewriter
from searchr1.gateway.runs.seats import Seats
from searchr1.gateway.runs.shared_capacity import SharedCapacity, open_shared_capacity
from searchr1.models_file import ModelConfig
from searchr1.retrieval.layer import SearchLayer
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer


@dataclass(slots=True)
class ServedModel:
    """One served model, and what is its own: everything that its weights, its format or its engine decide."""

    settings: Settings
    """The operator's, with this model's bounds."""
    tokenizer: Tokenizer
    engine: ServedEngine
    admission: Admission
    policy_version: str = ""
    """Name of the weights that the engine serves."""
    served_from: str = ""
    """The folder or hub name that these weights were loaded from."""
    rewriter: Rewriter | None = None
    """What writes a conversation's last question anew; None where conversations are not rewritten."""
    candidate_of: str | None = None
    """The model that it gets a share of the runs of."""
    share: float = 0.0
    shared: SharedCapacity | None = None
    """Balances the capacity of its engine with other processes, where others may use it."""
    retries: RetryBudget = field(default_factory=RetryBudget)
    """Bounds how often its engine is asked again; that of another model may be down meanwhile."""
    reload_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    name: str = field(init=False)
    """The name that clients use."""
    seats: Seats = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.settings.public_name
        self.seats = Seats(
            self.engine,
            self.settings.scheduling(),
            weights=self.settings.tenant_weights,
            shared=self.shared,
            engine_name=self.engine.base_url if isinstance(self.engine, VllmHttpEngine) else "engine",
        )


class ServedModels:
    """All served models; the first one is the default. Use it as a context manager: their seats' clocks run then."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._by_name = {model.name: model for model in models}
        self.default = models[0]
        """The model of requests that name none."""
        self._clocks = AsyncExitStack()

    async def __aenter__(self) -> "ServedModels":
        for model in self:
            await self._clocks.enter_async_context(model.seats)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clocks.aclose()

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> ServedModel:
        """Return the model of that name. Raises ``KeyError``."""
        return self._by_name[name]

    def get(self, name: str) -> ServedModel | None:
        """Return the model of that name, if it is served here."""
        return self._by_name.get(name)

    def named(self, name: str | None) -> ServedModel:
        """Return the model that a request names, or the default where it names none. Raises ``ApiError`` 404."""
        if name is None:
            return self.default
        if (model := self._by_name.get(name)) is None:
            served = ", ".join(map(repr, self._by_name))
            message = f"The model {name[:200]!r} does not exist here. This server serves {served}."
            raise ApiError(404, message, code="model_not_found", param="model")
        return model

    def candidates_of(self, model: ServedModel) -> list[ServedModel]:
        """Return the models that get a share of the runs of ``model``."""
        return [one for one in self if one.candidate_of == model.name]


@asynccontextmanager
async def open_model(
    config: ModelConfig, search: SearchLayer, *, gateway: str = "", beside: Board | None = None
) -> AsyncIterator[ServedModel]:
    """Open a model's tokenizer and engine. A remote engine need not be up yet: ``/readyz`` tells.

    ``gateway`` names the gateway whose worker this process is, where it has several. On ``beside`` this process's
    models share the capacity of engines, where there is no Redis for it.

    Raises:
        ConfigurationError: a path or a setting cannot work.
        EngineUnavailableError: the engine in this process does not start.
    """
    settings = config.settings
    source = settings.tokenizer or settings.model
    tokenizer = await asyncio.to_thread(Tokenizer.load, source, add_bos=settings.add_bos)
    retries = RetryBudget()
    async with (
        open_engine(settings.engine_config(tokenizer.vocab_size)) as engine,
        open_rewriter(settings, engine, tokenizer, retries) as rewriter,
    ):
        yield ServedModel(
            settings=settings,
            tokenizer=tokenizer,
            engine=engine,
            admission=Admission(settings, tokenizer, search),
            policy_version=settings.model,
            served_from=settings.model,
            rewriter=rewriter,
            retries=retries,
            candidate_of=config.candidate_of,
            share=config.share,
            shared=open_shared_capacity(settings, gateway=gateway, beside=beside),
        )
