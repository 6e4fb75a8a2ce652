"""``searchr1 data demonstrations``: demonstrations out of questions and an index, checked for leaks at the end."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from searchr1.atlas.records import Demonstration, read_demonstrations
from searchr1.data.evidence import GoldQuestion, Step, gold_questions, read_steps
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.files import check_output, write_json_lines
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Passage
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.starts.form import demonstrate_form, names_a_title
from searchr1.starts.hops import Searching, demonstrate_hops
from searchr1.starts.leaks import HeldOut, LeakReport
from searchr1.starts.shelf import Bounds, Shelf, passages_in
from searchr1.tokenizer import Tokenizer

Kind = Literal["form", "hops"]
TOGETHER = 500
"""Questions whose searches run as one batch."""


@dataclass(frozen=True, slots=True)
class StartConfig:
    """The demonstrations to write."""

    sources: tuple[str, ...]
    """Questions, as ``searchr1 data prepare`` names them; their evidence is read of JSON Lines."""
    index: Path
    """BM25 index that is searched: ``searchr1 index build`` writes it."""
    held_out: tuple[str, ...]
    """Sources, read with the split ``test``, of which nothing may be in a demonstration."""
    tokenizer: str
    """Model whose tokens are counted: a folder or hub name."""
    output: Path
    kind: Kind = "form"
    """``form``: one search, for the question itself. ``hops``: a search a hop."""
    split: str = "train"
    decompositions: Path | None = None
    """JSON Lines with ``id`` and ``question_decomposition``, as MuSiQue publishes them, for ``hops``."""
    profile: str = "search-r1"
    top_k: int = 3
    max_observation_tokens: int = 500
    fit: bool = True
    """Show fewer passages where they do not fit; else the cut is taught."""
    vary: bool = False
    """Show from one to ``top_k`` passages."""
    title_share: float = 0.1
    """Most demonstrations, as a share of all, whose answer is the title of a passage that they show."""
    limit: int | None = None
    """Most demonstrations, a choice by ``seed``."""
    seed: int = 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class StartReport:
    """Numbers of what was written and left out, and the check."""

    output: Path
    by_source: dict[str, int]
    """Demonstrations, by data source."""
    searches: dict[int, int]
    """Demonstrations, by their number of searches."""
    num_cut: int
    """Observations that are longer than their limit."""
    left_out: dict[str, int]
    """Questions without a demonstration, by the reason."""
    leaks: LeakReport

    def __str__(self) -> str:
        sources = ", ".join(f"{count:,} {name}" for name, count in self.by_source.items())
        searches = ", ".join(f"{count:,} with {number}" for number, count in self.searches.items())
        total, observations = sum(self.by_source.values()), sum(n * count for n, count in self.searches.items())
        return (
            f"{self.output}: {total:,} demonstrations ({sources}); searches: {searches}; "
            f"{self.num_cut:,} of {observations:,} observations are cut; "
            f"questions left out: {_listed(self.left_out)}\n{self.leaks}"
        )


def build_start(config: StartConfig, *, progress: bool = True) -> StartReport:
    """Write the demonstrations. The output is there whole and free of leaks, or is what it was before.

    Raises:
        ConfigurationError: the options do not fit together, or the output is taken or can't be written.
        DatasetError: questions can't be read, none gave a demonstration, or one leaks.
        CorpusError: the index can't be opened.
    """
    _check(config)
    index = LocalIndex.open(config.index)
    tokenizer = Tokenizer.load(config.tokenizer)
    profile = profile_named(config.profile)
    steps: dict[str, tuple[Step, ...]] = {} if config.decompositions is None else read_steps(config.decompositions)
    training = list(gold_questions(config.sources, config.split, steps))
    held_out = HeldOut(list(gold_questions(config.held_out, "test", {})), training, passages_in(config.index))
    bounds = Bounds(config.top_k, config.max_observation_tokens, config.fit, config.vary)
    shelf = Shelf(index, held_out, bounds, profile, lambda text: len(tokenizer.encode(text)))
    left_out = Counter[str]()
    wanted = _shuffled(_free_of(training, held_out, left_out), config.seed)
    made = _made(config, wanted, shelf, held_out, left_out, progress=progress)
    chosen = list(islice(_few_titles(made, config, left_out), config.limit))
    if not chosen:
        raise DatasetError(f"no question gave a demonstration; left out: {_listed(left_out)}")
    return _write(config, chosen, held_out, shelf, {q.question.id: q for q in training}, left_out)


def _check(config: StartConfig) -> None:
    if not config.held_out:
        raise ConfigurationError("give --held-out: the questions that will be scored, which no demonstration may show")
    if config.decompositions is not None and config.kind != "hops":
        raise ConfigurationError("--decompositions has a place only with --kind hops")
    if not 0 <= config.title_share <= 1:
        raise ConfigurationError("--title-share is a share, from 0 to 1")
    check_output(config.output, replace=config.force)


def _free_of(training: Sequence[GoldQuestion], held_out: HeldOut, left_out: Counter[str]) -> Iterator[GoldQuestion]:
    """Yield the questions that are not held out and name nothing that is."""
    for gold in training:
        if held_out.is_question(gold.question.question):
            left_out["held-out question"] += 1
        elif held_out.entity_in(gold.question.question) is not None:
            left_out["held-out entity"] += 1
        else:
            yield gold


def _shuffled(questions: Iterable[GoldQuestion], seed: int) -> list[GoldQuestion]:
    shuffled = list(questions)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def _made(
    config: StartConfig,
    questions: Sequence[GoldQuestion],
    shelf: Shelf,
    held_out: HeldOut,
    left_out: Counter[str],
    *,
    progress: bool,
) -> Iterator[Demonstration]:
    """Yield the demonstrations of ``questions``, in their order, each free of leaks."""
    passages: dict[str, Passage] = {}
    if config.kind == "hops":
        ids = {gold_id for gold in questions for gold_id in gold.gold_ids}
        passages = {passage.id: passage for passage in passages_in(config.index) if passage.id in ids}
    with _bar(shown=progress) as bar:
        task = bar.add_task("questions", total=len(questions))
        for start in range(0, len(questions), TOGETHER):
            part = questions[start : start + TOGETHER]
            found = _of_form(part, shelf) if config.kind == "form" else _of_hops(part, passages, shelf)
            for demonstration in found:
                if demonstration is None:
                    left_out["not found or not said"] += 1
                elif (leak := held_out.leak_of(demonstration)) is not None:
                    left_out[leak] += 1
                else:
                    yield demonstration
            bar.advance(task, len(part))


def _of_form(questions: Sequence[GoldQuestion], shelf: Shelf) -> list[Demonstration | None]:
    found = shelf.search([gold.question.question for gold in questions])
    return [demonstrate_form(gold, passages, shelf) for gold, passages in zip(questions, found, strict=True)]


def _of_hops(
    questions: Sequence[GoldQuestion], passages: dict[str, Passage], shelf: Shelf
) -> list[Demonstration | None]:
    """Run the searches of many questions together, one of each at a time."""
    results: list[Demonstration | None] = [None] * len(questions)
    open_: dict[int, tuple[Searching, str]] = {}

    def go_on(number: int, searching: Searching, found: Sequence[Passage] | None) -> None:
        try:
            query = next(searching) if found is None else searching.send(found)
        except StopIteration as done:
            results[number] = done.value
        else:
            open_[number] = searching, query

    for number, gold in enumerate(questions):
        go_on(number, demonstrate_hops(gold, passages, shelf), None)
    while open_:
        waiting, queries = list(open_.items()), [query for _, query in open_.values()]
        open_.clear()
        for (number, (searching, _)), found in zip(waiting, shelf.search(queries), strict=True):
            go_on(number, searching, found)
    return results


def _few_titles(
    demonstrations: Iterable[Demonstration], config: StartConfig, left_out: Counter[str]
) -> Iterator[Demonstration]:
    """Leave out those whose answer is a shown title, where they would be more than their share of what came so far."""
    titles = total = 0
    for demonstration in demonstrations:
        names = names_a_title(demonstration)
        if names and titles + 1 > config.title_share * (total + 1):
            left_out["answer is a shown title"] += 1
            continue
        titles, total = titles + names, total + 1
        yield demonstration


def _write(
    config: StartConfig,
    demonstrations: Sequence[Demonstration],
    held_out: HeldOut,
    shelf: Shelf,
    questions: dict[str, GoldQuestion],
    left_out: Counter[str],
) -> StartReport:
    part = config.output.with_name(f".{config.output.name}.unchecked")
    try:
        write_json_lines(part, (demonstration.to_row() for demonstration in demonstrations))
        report = held_out.check(read_demonstrations(part))
        part.replace(config.output)
    finally:
        part.unlink(missing_ok=True)
    sources = Counter(questions[one.id].question.data_source or "unnamed" for one in demonstrations)
    searches = Counter(sum(turn.query is not None for turn in one.turns) for one in demonstrations)
    num_cut = sum(shelf.is_cut(turn.passages) for one in demonstrations for turn in one.turns)
    return StartReport(
        config.output, dict(sorted(sources.items())), dict(sorted(searches.items())), num_cut, dict(left_out), report
    )


def _listed(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "none"


def _bar(*, shown: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)
