"""The services of a running gateway: opened at start, closed at stop, and found in the app's state."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from fastapi import Request

from searchr1.engines.base import Replicated, ServedEngine, TellsMetrics
from searchr1.engines.factory import open_engine
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.gateway.access.admission import Admission
from searchr1.gateway.access.api_keys import ApiKeys
from searchr1.gateway.logs import BurstLog
from searchr1.gateway.metrics import Metrics
from searchr1.gateway.readiness import Readiness
from searchr1.gateway.replica_metrics import ReplicaMetrics
from searchr1.gateway.runs.rewrite import Rewriter, open_rewriter
from searchr1.gateway.runs.seats import Seats
from searchr1.gateway.runs.shared_capacity import SharedCapacity, open_shared_capacity
from searchr1.gateway.seat_metrics import SeatMetrics
from searchr1.retrieval.factory import open_search
from searchr1.retrieval.layer import SearchLayer
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

EngineMetrics = Callable[[], Awaitable[str]]


class Stoppable(Protocol):
    """A run that can be ended because the server stops."""

    def stop(self) -> None:
        """Have the run end as failed; its next event says so."""
        ...


@dataclass(slots=True)
class Services:
    """The parts that serve a request."""

    settings: Settings
    tokenizer: Tokenizer
    engine: ServedEngine
    search: SearchLayer
    admission: Admission
    policy_version: str = ""
    """Name of the weights that the engine serves."""
    served_from: str = ""
    """The folder or hub name that these weights were loaded from."""
    reload_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    rewriter: Rewriter | None = None
    """What writes a conversation's last question anew; None where conversations are not rewritten."""
    metrics: Metrics = field(default_factory=Metrics)
    shared: SharedCapacity | None = None
    """Balances capacities with other processes, where others may use them."""
    engine_metrics: EngineMetrics | None = None
    """Metrics of an engine in this process, which nobody else can scrape."""
    started_at: int = field(default_factory=lambda: int(time.time()))
    """Unix time, seconds."""
    keys: ApiKeys = field(init=False)
    seats: Seats = field(init=False)
    readiness: Readiness = field(init=False)
    under_way: set["Stoppable"] = field(default_factory=set)
    """Runs that are being driven, of every API."""
    refusals: BurstLog = field(default_factory=lambda: BurstLog(logger))

    def __post_init__(self) -> None:
        self.keys = ApiKeys(self.settings)
        self.readiness = Readiness(self.engine, self.metrics)
        self.seats = Seats(
            self.engine,
            self.settings.scheduling(),
            weights=self.settings.tenant_weights,
            shared=self.shared,
            engine_name=self.engine.base_url if isinstance(self.engine, VllmHttpEngine) else "engine",
        )
        self.metrics.add_refresher(partial(SeatMetrics(self.metrics.registry).refresh, self.seats))
        if isinstance(self.engine, Replicated):
            self.metrics.add_refresher(partial(ReplicaMetrics(self.metrics.registry).refresh, self.engine))


@asynccontextmanager
async def open_services(settings: Settings, *, gateway: str = "") -> AsyncIterator[Services]:
    """Open tokenizer, retriever and engine, the one that fails fastest first.

    ``gateway`` names the gateway whose worker this process is, where it has several.

    Raises:
        ConfigurationError: a path or a setting cannot work.
        EngineUnavailableError: the engine in this process does not start.
    """
    source = settings.tokenizer or settings.model
    tokenizer = await asyncio.to_thread(Tokenizer.load, source, add_bos=settings.add_bos)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        search = await stack.enter_async_context(open_search(settings.search(), metrics.search))
        # A remote one need not be up yet: /readyz tells.
        engine = await stack.enter_async_context(open_engine(settings.engine_config(tokenizer.vocab_size)))
        rewriter = await stack.enter_async_context(open_rewriter(settings, engine, tokenizer))
        is_local = settings.engine_url is None
        yield Services(
            settings=settings,
            tokenizer=tokenizer,
            engine=engine,
            search=search,
            policy_version=settings.model,
            served_from=settings.model,
            admission=Admission(settings, tokenizer, search),
            rewriter=rewriter,
            metrics=metrics,
            shared=open_shared_capacity(settings, gateway=gateway),
            engine_metrics=engine.metrics_text if is_local and isinstance(engine, TellsMetrics) else None,
        )


def services_of(request: Request) -> Services:
    """Return the services of the app that serves ``request``."""
    services: Services = request.app.state.services
    return services
