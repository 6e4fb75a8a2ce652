"""The services of a running gateway: opened at start, closed at stop, and found in the app's state."""

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fastapi import Request

from searchr1.engines.base import Replicated, TellsMetrics
from searchr1.gateway.access.opened import OpenedAccess
from searchr1.gateway.logs import BurstLog
from searchr1.gateway.metrics import Metrics
from searchr1.gateway.readiness import Readiness
from searchr1.gateway.replica_metrics import ReplicaMetrics
from searchr1.gateway.runs.capacity_board import LocalBoard
from searchr1.gateway.seat_metrics import SeatMetrics
from searchr1.gateway.served_model import ServedModel, ServedModels, open_model
from searchr1.gateway.tracing.opening import open_tracing
from searchr1.models_file import model_configs
from searchr1.retrieval.factory import open_search
from searchr1.retrieval.layer import SearchLayer
from searchr1.settings import Settings

if TYPE_CHECKING:
    from searchr1.gateway.tracing.tracing import Tracing

logger = logging.getLogger(__name__)

EngineMetrics = Callable[[], Awaitable[str]]


class Stoppable(Protocol):
    """A run that can be ended because the server stops."""

    def stop(self) -> None:
        """Have the run end as failed; its next event says so."""
        ...


@dataclass(slots=True)
class Services:
    """The parts that serve a request: the models, and what they share."""

    settings: Settings
    models: ServedModels
    search: SearchLayer
    metrics: Metrics = field(default_factory=Metrics)
    engine_metrics: EngineMetrics | None = None
    """Metrics of an engine in this process, which nobody else can scrape."""
    tracing: "Tracing | None" = None
    """The traces of runs; None where they are not traced."""
    started_at: int = field(default_factory=lambda: int(time.time()))
    """Unix time, seconds."""
    access: OpenedAccess = field(init=False)
    readiness: Readiness = field(init=False)
    under_way: set["Stoppable"] = field(default_factory=set)
    """Runs that are being driven, of every API."""
    refusals: BurstLog = field(default_factory=lambda: BurstLog(logger))

    def __post_init__(self) -> None:
        self.access = OpenedAccess(self.settings, self.metrics, self.search.budgets)
        self.readiness = Readiness({model.name: model.engine for model in self.models}, self.metrics)
        seats = {model.name: model.seats for model in self.models}
        self.metrics.begin(seats)
        self.metrics.add_refresher(partial(SeatMetrics(self.metrics.registry).refresh, seats))
        pools = {model.name: model.engine for model in self.models if isinstance(model.engine, Replicated)}
        if pools:
            self.metrics.add_refresher(partial(ReplicaMetrics(self.metrics.registry).refresh, pools))

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return self.models.default


@asynccontextmanager
async def open_services(settings: Settings, *, gateway: str = "") -> AsyncIterator[Services]:
    """Open retriever and models, what fails fastest first.

    ``gateway`` names the gateway whose worker this process is, where it has several.

    Raises:
        ConfigurationError: a path or a setting cannot work.
        EngineUnavailableError: the engine in this process does not start.
    """
    configs = model_configs(settings)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        # First, so that it is closed last: what ends with the others is traced, too.
        tracing = await stack.enter_async_context(open_tracing(os.environ, content=settings.trace_content))
        search = await stack.enter_async_context(open_search(settings.search(), metrics.search))
        board = LocalBoard() if len(configs) > 1 else None
        # The one in this process comes last: it takes longest.
        opened = [
            await stack.enter_async_context(open_model(config, search, gateway=gateway, beside=board))
            for config in reversed(configs)
        ]
        models = ServedModels(opened[::-1])
        engine = models.default.engine
        is_local = settings.engine_url is None
        yield Services(
            settings=settings,
            models=models,
            search=search,
            metrics=metrics,
            engine_metrics=engine.metrics_text if is_local and isinstance(engine, TellsMetrics) else None,
            tracing=tracing,
        )


def services_of(request: Request) -> Services:
    """Return the services of the app that serves ``request``."""
    services: Services = request.app.state.services
    return services
