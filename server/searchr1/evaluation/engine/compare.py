"""Methods side by side on one engine and one retriever, opened as ``searchr1 serve`` opens them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchr1.engines.factory import open_engine
from searchr1.errors import ConfigurationError, DatasetError, EngineUnavailableError
from searchr1.evaluation.asking import one_pass
from searchr1.evaluation.baselines import trained
from searchr1.evaluation.baselines.formats import BaselineFormat
from searchr1.evaluation.baselines.trial import GREEDY, MethodOptions, Tools
from searchr1.evaluation.datasets import DATA_DIR, Question, load_questions
from searchr1.evaluation.engine.asker import EngineAsker
from searchr1.evaluation.methods.registry import SEARCH_R1, method_named
from searchr1.evaluation.records import Extractor, Record, chosen_options
from searchr1.evaluation.report import Report
from searchr1.files import refused
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.profiles.search_r1 import SEARCH_R1 as DEFAULT_PROFILE
from searchr1.retrieval.base import Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.factory import open_search
from searchr1.rollout import check_profile
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer
from searchr1_client import RunOptions

NO_RETRIEVER = "none"
"""The retriever in the settings where none of the methods searches."""
_GATEWAYS_OWN = ("cache", "logprobs", "store", "previous_run_id")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The methods to compare, and the questions."""

    methods: tuple[str, ...]
    dataset: str = "atlas"
    split: str = "test"
    limit: int | None = None
    data_dir: Path = DATA_DIR
    data: str | None = None
    baseline_format: BaselineFormat = "plain"
    concurrency: int = 16
    extractor: Extractor = "own"
    """Reading of Search-R1's answers; the baselines' are always read by ``own``."""
    out: Path | None = None
    on_bad: Callable[[DatasetError], None] = refused
    """Name of the results: ``results.jsonl`` stands for ``results.rag.jsonl`` and so on, one file for each method."""
    progress: bool = True

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for what can't be run."""
        if not self.methods or self.concurrency < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigurationError("at least one method is needed, and concurrency and limit must be at least 1")
        for name in self.methods:
            method_named(name)

    def out_of(self, method: str) -> Path | None:
        """Return the file of one method's records."""
        return self.out.with_suffix(f".{method}{self.out.suffix}") if self.out is not None else None


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome of a comparison: a report for each method, and the records of all."""

    reports: list[Report]
    records: list[Record]


def compare(comparison: Comparison, settings: Settings, options: RunOptions) -> Compared:
    """Answer the questions by each method in turn, all on one engine, and score the answers.

    Runs are greedy unless ``options`` set a temperature; what else they leave out comes from ``settings``. Results are
    kept and resumed as ``evaluate`` does it.

    Raises:
        DatasetError: the questions or a file of results cannot be read.
        ConfigurationError: the options, the settings or a file of results do not fit.
        CorpusError: an index cannot be opened.
        EngineUnavailableError: the engine cannot be reached, does not start, or fails again and again.
    """
    if unfit := [name for name in _GATEWAYS_OWN if options.get(name) is not None]:
        raise ConfigurationError(f"{', '.join(unfit)}: for runs through a gateway, not for methods on an engine")
    _check_profile(comparison, settings.profile)
    questions = load_questions(
        comparison.dataset,
        split=comparison.split,
        limit=comparison.limit,
        data_dir=comparison.data_dir,
        data=comparison.data,
        on_bad=comparison.on_bad,
    )
    return asyncio.run(_compare(comparison, settings, options, questions))


async def _compare(
    comparison: Comparison, settings: Settings, options: RunOptions, questions: Sequence[Question]
) -> Compared:
    chosen = method_options(settings, options, comparison.baseline_format)
    compared = Compared([], [])
    async with open_tools(settings) as tools:
        check_profile(chosen.profile, tools.tokenizer)
        for method in comparison.methods:
            report, records = await _by_method(method, comparison, settings, options, chosen, tools, questions)
            compared.reports.append(report)
            compared.records.extend(records)
    return compared


async def _by_method(
    method: str,
    comparison: Comparison,
    settings: Settings,
    options: RunOptions,
    chosen: MethodOptions,
    tools: Tools,
    questions: Sequence[Question],
) -> tuple[Report, list[Record]]:
    recorded: dict[str, Any] = {
        **chosen_options(options),
        "temperature": chosen.drive.temperature,
        "model": settings.public_name,
    }
    if settings.profile != DEFAULT_PROFILE.name:
        recorded["profile"] = settings.profile
    if method != SEARCH_R1:
        recorded["baseline_format"] = comparison.baseline_format
    asker = EngineAsker(
        method,
        tools,
        chosen,
        model=settings.public_name,
        record_options=recorded,
        extractor=comparison.extractor if method == SEARCH_R1 else "own",
        concurrency=comparison.concurrency,
    )
    out = comparison.out_of(method)
    summary, records = await one_pass(method, questions, asker, recorded, out, comparison.progress)
    report = Report(
        dataset=comparison.dataset,
        split=comparison.split,
        url=settings.engine_url or "in this process",
        searching=summary,
        closed_book=None,
    )
    report.write_beside(out)
    return report, records


def method_options(settings: Settings, options: RunOptions, baseline_format: BaselineFormat) -> MethodOptions:
    """Return what ``options`` choose, and ``settings`` where they don't. Raises ``ConfigurationError``."""

    def choice(name: str, otherwise: Any) -> Any:
        value = options.get(name)
        return otherwise if value is None else value

    base = settings.limits()
    try:
        limits = replace(
            base,
            max_turns=choice("max_turns", base.max_turns),
            max_searches=choice("max_searches", base.max_searches),
            max_run_tokens=choice("max_tokens", base.max_run_tokens),
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return MethodOptions(
        drive=replace(
            GREEDY,
            temperature=choice("temperature", 0.0),
            top_p=choice("top_p", 1.0),
            seed=choice("seed", None),
            top_k=choice("top_k", settings.top_k),
            search_timeout_s=settings.search_timeout_s,
            deadline_s=choice("deadline_s", settings.deadline_s),
        ),
        limits=limits,
        baseline_format=baseline_format,
        profile=settings.loop_profile(),
    )


def _check_profile(comparison: Comparison, name: str) -> None:
    """Raise ``ConfigurationError`` for a profile that the comparison can't ask or read."""
    if comparison.baseline_format == "search-r1" and set(comparison.methods) != {SEARCH_R1}:
        trained.check_tags(profile_named(name))
    if comparison.extractor == "reference" and name != DEFAULT_PROFILE.name:
        raise ConfigurationError(
            f"the reference extractor reads runs of the profile {DEFAULT_PROFILE.name}, not of {name}"
        )


def needs_retriever(methods: Sequence[str]) -> bool:
    """Return whether any of ``methods`` searches."""
    return any(method_named(name).searches for name in methods)


@asynccontextmanager
async def open_tools(settings: Settings) -> AsyncIterator[Tools]:
    """Open tokenizer, retriever and engine, in the order of what fails fastest; see ``compare`` for what it raises."""
    tokenizer = Tokenizer.load(settings.tokenizer or settings.model, add_bos=settings.add_bos)
    async with AsyncExitStack() as stack:
        retriever: Retriever = _NoRetriever()
        if settings.retriever != NO_RETRIEVER:
            search = await stack.enter_async_context(open_search(settings.search()))
            retriever = search.view()
        engine = await stack.enter_async_context(open_engine(settings.engine_config(tokenizer.vocab_size)))
        health = await engine.health()
        # Questions that fit into a shorter context are answered; the others are told one by one.
        if settings.engine_url is not None and not health.ok and health.reason != "context_too_short":
            raise EngineUnavailableError(f"the engine can't serve ({health.reason}): {health.detail}")
        yield Tools(engine, retriever, tokenizer)


class _NoRetriever:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return SearchFailed("unavailable", "no retriever is open")
