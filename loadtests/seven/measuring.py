"""Rows that are measured one after the other on one engine; what was measured before is not asked again."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from loadtests.agents.result import made_with
from loadtests.seven.kept import Kept, begun, digest_of, ended, read_kept, records_file, write_places
from loadtests.seven.oracle import OracleRetriever
from loadtests.seven.questions import Asked
from loadtests.seven.rows import Row, Searched
from searchr1.engines.base import TakesWeights
from searchr1.errors import ConfigurationError, DatasetError, SearchR1Error
from searchr1.evaluation.asking import one_pass
from searchr1.evaluation.baselines.trial import Tools
from searchr1.evaluation.engine.asker import EngineAsker
from searchr1.evaluation.engine.compare import NO_RETRIEVER, method_options, open_tools
from searchr1.evaluation.records import read_records
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.factory import open_search
from searchr1.settings import Settings
from searchr1_client import RunOptions

GREEDY = "greedy"
SILENCE_S = 900.0
"""Seconds in which an engine may say nothing. On a CPU that others use too, the prompts of a batch take minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What rows are measured with."""

    out: Path
    questions: tuple[Asked, ...]
    checkpoints: Mapping[str, Path]
    """Folders by the names that rows have for them."""
    retrievers: Mapping[Searched, str] = field(default_factory=dict)
    """Retrievers, as ``searchr1 serve`` takes them."""
    gold: Mapping[str, Sequence[Passage]] | None = None
    """The passages that answer, by question; None where they are not known."""
    num_samples: int = 0
    """Times that each question is answered at temperature 1, beside the greedy answer."""
    per_set: int | None = None
    concurrency: int = 32
    command: str = ""
    made: Mapping[str, str] = field(default_factory=dict)
    """How checkpoints were made, by their names."""
    profiles: Mapping[str, str] = field(default_factory=dict)
    """Formats of checkpoints that were trained in another one than Search-R1's, by their names."""
    progress: bool = True

    def lacks(self, row: Row) -> str | None:
        """Return what a row needs and is not given; None where nothing is."""
        if row.checkpoint not in self.checkpoints:
            return f"--checkpoint {row.checkpoint}=DIR"
        if row.searched == "oracle":
            return "--corpus FILE" if self.gold is None else None
        if row.searched != "none" and row.searched not in self.retrievers:
            return f"--{row.searched} RETRIEVER"
        return None


@dataclass(frozen=True, slots=True)
class Pass:
    """A row and the way in which its tokens are chosen."""

    row: Row
    sampling: str
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.row.name}.{self.sampling}"

    @property
    def options(self) -> RunOptions:
        """Options of its runs."""
        options: RunOptions = {"temperature": 0.0 if self.seed is None else 1.0, "top_k": self.row.top_k}
        if self.seed is not None:
            options["seed"] = self.seed
        if self.row.max_searches is not None:
            options["max_searches"] = self.row.max_searches
        return options


def passes(rows: Sequence[Row], num_samples: int) -> list[Pass]:
    """Return all passes: the greedy ones of all rows, then the sampled ones; checkpoint by checkpoint within these."""
    order = {name: number for number, name in enumerate(dict.fromkeys(row.checkpoint for row in rows))}
    rows = sorted(rows, key=lambda row: order[row.checkpoint])
    greedy = [Pass(row, GREEDY, None) for row in rows]
    return greedy + [Pass(row, f"sampled-{n}", n) for n in range(1, num_samples + 1) for row in rows]


async def measure(setup: Setup, rows: Sequence[Row], tell: Callable[[str], None]) -> bool:
    """Measure every pass that was not measured yet; return whether none of them failed.

    Raises:
        SearchR1Error: the engine or an index can't be opened.
    """
    write_places(setup.out, setup.questions)
    todo: list[Pass] = []
    for one in passes(rows, setup.num_samples):
        if lacking := setup.lacks(one.row):
            tell(f"{one.name}: left out, it needs {lacking}")
        elif _is_measured(setup, one):
            tell(f"{one.name}: measured before")
        else:
            todo.append(one)
    if not todo:
        return True
    return await _measure_on_one_engine(setup, todo, tell)


async def _measure_on_one_engine(setup: Setup, todo: Sequence[Pass], tell: Callable[[str], None]) -> bool:
    began, none_failed = time.perf_counter(), True
    served = todo[0].row.checkpoint
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(open_tools(_settings(setup, served, NO_RETRIEVER)))
        retrievers = {
            searched: await _open_retriever(setup, served, searched, stack)
            for searched in dict.fromkeys(one.row.searched for one in todo)
        }
        for number, one in enumerate(todo, start=1):
            spent_min = (time.perf_counter() - began) / 60
            left = f", about {spent_min / (number - 1) * (len(todo) - number + 1):.0f} min left" if number > 1 else ""
            tell(f"[{number}/{len(todo)}] {one.name}: {one.row.title}, {one.sampling}{left}")
            try:
                if one.row.checkpoint != served:
                    await _give_weights(tools, setup.checkpoints[one.row.checkpoint], one.row.checkpoint)
                    served = one.row.checkpoint
                retriever = retrievers[one.row.searched]
                await _measure(setup, one, tools if retriever is None else replace(tools, retriever=retriever))
            except SearchR1Error as error:
                tell(f"  not measured: {type(error).__name__}: {error}")
                none_failed = False
    return none_failed


async def _give_weights(tools: Tools, folder: Path, name: str) -> None:
    if not isinstance(tools.engine, TakesWeights):
        raise ConfigurationError(f"this engine takes no other weights: serve {folder}, with --checkpoint {name} alone")
    await tools.engine.take_weights(folder, version=name)


async def _open_retriever(setup: Setup, served: str, searched: Searched, stack: AsyncExitStack) -> Retriever | None:
    if searched == "none":
        return None
    if searched == "oracle":
        return OracleRetriever(setup.gold or {})
    settings = _settings(setup, served, setup.retrievers[searched])
    return (await stack.enter_async_context(open_search(settings.search()))).view()


async def _measure(setup: Setup, one: Pass, tools: Tools) -> None:
    folder = setup.checkpoints[one.row.checkpoint]
    settings = _settings(setup, one.row.checkpoint, NO_RETRIEVER)
    recorded = _recorded(setup, one)
    asker = EngineAsker(
        one.row.method,
        tools,
        method_options(settings, one.options, one.row.baseline_format),
        model=settings.public_name,
        record_options=recorded,
        concurrency=setup.concurrency,
    )
    questions = [asked.question for asked in setup.questions]
    is_gold = one.row.searched == "oracle"
    kept = begun(
        setup.out,
        Kept(
            row=one.row.name,
            sampling=one.sampling,
            seed=one.seed,
            command=setup.command,
            model=settings.public_name,
            digest=recorded["digest"],
            made=setup.made.get(one.row.checkpoint) or one.row.how,
            num_questions=len(questions),
            per_set=setup.per_set,
            num_without_gold=sum(q.question not in (setup.gold or {}) for q in questions) if is_gold else 0,
            made_with=made_with(", ".join(_chosen_settings()) or "no settings") | {"trained": _trained(folder)},
        ),
    )
    await one_pass(one.name, questions, asker, recorded, records_file(setup.out, one.name), setup.progress)
    ended(setup.out, kept)


def _recorded(setup: Setup, one: Pass) -> dict[str, Any]:
    """Return the options in each record, which tell the records of another checkpoint or retriever."""
    row = one.row
    return {
        **one.options,
        "model": setup.checkpoints[row.checkpoint].resolve().name,
        "digest": _digest_of(setup.checkpoints[row.checkpoint].resolve()),
        "retriever": row.searched,
        "baseline_format": row.baseline_format,
        **({"profile": profile} if (profile := setup.profiles.get(row.checkpoint)) else {}),
    }


_digest_of = cache(digest_of)


def _is_measured(setup: Setup, one: Pass) -> bool:
    """Return whether every question has a record of a run that did not fail, by the same checkpoint."""
    kept = next((kept for kept in read_kept(setup.out) if kept.name == one.name), None)
    if kept is None or not kept.is_finished or kept.digest != _recorded(setup, one)["digest"]:
        return False
    try:
        records = read_records(records_file(setup.out, one.name))
    except DatasetError:
        return False
    return {asked.question.id for asked in setup.questions} <= {record.id for record in records if not record.failed}


def _settings(setup: Setup, checkpoint: str, retriever: str) -> Settings:
    """Return the settings of the environment with one checkpoint, its format, and one retriever."""
    given: dict[str, Any] = {"model": str(setup.checkpoints[checkpoint].resolve()), "retriever": retriever}
    if (profile := setup.profiles.get(checkpoint)) is not None:
        given["profile"] = profile
    return Settings.load(**given, **patience())


def patience() -> dict[str, Any]:
    """Return the setting by which a slow engine is waited for: nobody looks on. The environment's own stands."""
    return {} if "SEARCHR1_ENGINE_SILENCE_S" in os.environ else {"engine_silence_s": SILENCE_S}


def _chosen_settings() -> Iterator[str]:
    for name, value in sorted(os.environ.items()):
        if name.startswith("SEARCHR1_") and "KEY" not in name and "SECRET" not in name:
            yield f"{name}={value}"


def _trained(checkpoint: Path) -> str:
    """Return how long the run took that wrote a checkpoint; nothing where it is no run's."""
    from searchr1.trainer.metrics import FILE, read_metrics

    metrics = checkpoint.resolve().parent / FILE
    records = read_metrics(metrics) if metrics.is_file() else []
    if not records:
        return ""
    steps, elapsed_s = records[-1]["step"] or 0, records[-1].get("elapsed_s") or 0
    return f"{steps:.0f} steps in {elapsed_s / 60:.0f} min"
