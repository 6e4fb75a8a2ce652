"""What a running gateway holds, opened once at start and closed at stop. Routes take it from the app's state."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from searchr1.engines.base import ServedEngine
from searchr1.engines.open import open_engine
from searchr1.gateway.admission import Admission
from searchr1.gateway.metrics import Metrics
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.factory import open_retriever
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer


@dataclass(slots=True)
class Services:
    """The parts that serve a request."""

    settings: Settings
    tokenizer: Tokenizer
    engine: ServedEngine
    retriever: Retriever
    admission: Admission
    metrics: Metrics = field(default_factory=Metrics)
    started_at: int = field(default_factory=lambda: int(time.time()))
    """Unix time, seconds."""


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open tokenizer, retriever and engine, in the order of what fails fastest.

    Raises:
        ConfigurationError: a path or a setting cannot work.
        EngineUnavailableError: the engine in this process does not start.
    """
    tokenizer = Tokenizer.load(settings.tokenizer or settings.model)
    async with AsyncExitStack() as stack:
        retriever = await stack.enter_async_context(open_retriever(settings.retriever))
        engine = await stack.enter_async_context(open_engine(settings))
        yield Services(
            settings=settings,
            tokenizer=tokenizer,
            engine=engine,
            retriever=retriever,
            admission=Admission(settings, tokenizer),
        )


def services_of(request: Request) -> Services:
    """The services of the app that serves ``request``."""
    services: Services = request.app.state.services
    return services
