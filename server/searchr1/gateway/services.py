"""The services of a running gateway: opened at start, closed at stop, and found in the app's state."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from searchr1.engines.base import Engine, ServedEngine, TellsMetrics
from searchr1.engines.factory import open_engine
from searchr1.gateway.access.admission import Admission
from searchr1.gateway.metrics import Metrics
from searchr1.gateway.runs.rewrite import Rewriter, open_rewriter
from searchr1.retrieval.factory import open_search
from searchr1.retrieval.layer import SearchLayer
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer

EngineMetrics = Callable[[], Awaitable[str]]


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
    rewriter: Rewriter | None = None
    """What writes a conversation's last question anew; None where conversations are not rewritten."""
    metrics: Metrics = field(default_factory=Metrics)
    engine_metrics: EngineMetrics | None = None
    """Metrics of an engine in this process, which nobody else can scrape."""
    run_engine: Engine | None = None
    """What runs are driven with where that is not the engine itself."""
    started_at: int = field(default_factory=lambda: int(time.time()))
    """Unix time, seconds."""


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open tokenizer, retriever and engine, the one that fails fastest first.

    Raises:
        ConfigurationError: a path or a setting cannot work.
        EngineUnavailableError: the engine in this process does not start.
    """
    tokenizer = Tokenizer.load(settings.tokenizer or settings.model)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        search = await stack.enter_async_context(open_search(settings.search(), metrics.search))
        # A remote one need not be up yet: /readyz tells.
        engine = await stack.enter_async_context(open_engine(settings.engine_config()))
        rewriter = await stack.enter_async_context(open_rewriter(settings, engine, tokenizer))
        run_engine: Engine = engine
        if settings.conversation == "rewrite" and settings.rewriter == "rules":
            from searchr1.demo.plain_replies import PlainReplies  # Other gateways have no use for the demo's wordings.

            run_engine = PlainReplies(engine, tokenizer, settings.loop_profile())
        is_local = settings.engine_url is None
        yield Services(
            settings=settings,
            tokenizer=tokenizer,
            engine=engine,
            search=search,
            policy_version=settings.model,
            admission=Admission(settings, tokenizer, search),
            rewriter=rewriter,
            metrics=metrics,
            engine_metrics=engine.metrics_text if is_local and isinstance(engine, TellsMetrics) else None,
            run_engine=run_engine,
        )


def services_of(request: Request) -> Services:
    """Return the services of the app that serves ``request``."""
    services: Services = request.app.state.services
    return services
