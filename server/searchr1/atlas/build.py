"""The files of the Atlas world: corpora, questions, and demonstrations and readings for the warm-up."""

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from searchr1.atlas.corpus import CorpusName, write_corpus
from searchr1.atlas.questions import AtlasQuestion, generate, write_questions
from searchr1.atlas.readings import readings
from searchr1.atlas.records import Demonstration, Reading
from searchr1.atlas.renamed import renamed_world
from searchr1.atlas.swap import KnownNames, NamePool, swap_bystanders, swap_entities
from searchr1.atlas.talk.conversations import FORMS, Talk
from searchr1.atlas.talk.exam import EXAM_FORMS, exam, write_exam
from searchr1.atlas.talk.lower_case import in_lower_case
from searchr1.atlas.talk.off_topic import off_topic
from searchr1.atlas.teacher import Searching, Teacher
from searchr1.atlas.world import Split, World, load_world
from searchr1.files import write_json_lines
from searchr1.loop.conversation import fold_conversation
from searchr1.loop.types import Passage
from searchr1.retrieval.index.bm25 import LocalIndex, build_index
from searchr1.retrieval.index.terms import TermSettings

Item = TypeVar("Item")
SearchBatch = Callable[[list[str]], list[list[Passage]]]

VALIDATION_QUESTIONS = 1000
TEST_QUESTIONS = 2000
EXAM_QUESTIONS = 500
"""Test questions, the first ones, that are also asked in conversations."""
TOP_K = 3
TERMS = TermSettings(analyzer=1)
"""Search terms of the demo's indexes: its checkpoint was trained on what they find."""
SWAP_SHARE = 0.8
"""Share of the train demonstrations whose entities are renamed."""
_FORM_SHARES = (0.5, 0.11, 0.18, 0.21)
_SHORT_FORM_SHARES = (0.38, 0.11, 0.17, 0.34)
"""Shares of the forms of conversations, in the order of ``FORMS``, and those for questions of one hop."""
_MORE_SHARE = 0.15
_OFF_TOPIC_SHARE = 0.14
"""Demonstrations of what is no question for Atlas, beside each that is one; they are short."""
_LOWER_CASE_SHARE = 0.08
_READINGS_PER_WORLD = 1000
_READINGS_SEED = 1_000_000
"""First of the seeds of the worlds that are only read."""
_TOGETHER = 2000
"""Questions whose searches run as one batch."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Result of a build."""

    written: dict[str, int]
    """Lines by file name."""
    dropped: dict[str, int]
    """Questions that gave no demonstration, by kind."""


def build_world(out_dir: Path, *, num_train_questions: int = 20_000, seed: int = 0) -> dict[str, int]:
    """Write ``corpus.jsonl`` and ``questions-{train,validation,test}.jsonl``; return the lines by file name.

    The first test questions are in ``questions-test-{system,history,follow-up}.jsonl`` too, each in a conversation.

    This is all that serving and evaluating need; it takes seconds. Validation and test questions do not depend on
    ``num_train_questions``.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    world = load_world()
    written = {"corpus.jsonl": write_corpus(world, "all", out_dir / "corpus.jsonl")}
    train = generate(world, "train", num_train_questions, seed)
    return written | _write_questions(world, train, out_dir, seed)


def build_renamed(out_dir: Path, *, num_questions: int = 20_000, seed: int = 0) -> dict[str, int]:
    """Write ``corpus.jsonl`` and ``questions-train.jsonl`` of a renamed world; return the lines by file name."""
    out_dir.mkdir(parents=True, exist_ok=True)
    world = renamed_world(load_world(), seed)
    questions = generate(world, "train", num_questions, seed)
    return {
        "corpus.jsonl": write_corpus(world, "all", out_dir / "corpus.jsonl"),
        "questions-train.jsonl": write_questions(questions, out_dir / "questions-train.jsonl"),
    }


def build(
    out_dir: Path,
    *,
    num_demonstrations: int = 60_000,
    num_renamed_worlds: int = 0,
    renamed_share: float = 1.0,
    num_readings: int = 0,
    talk: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> BuildReport:
    """Write what ``build_world`` does, ``corpus-train.jsonl`` and ``demonstrations-{train,validation}.jsonl``.

    Train demonstrations search the train corpus, and a share ``SWAP_SHARE`` of them has its entities renamed;
    validation demonstrations search the whole corpus and are never renamed. With ``num_renamed_worlds`` half of the
    train demonstrations come from these, in equal parts; with a ``renamed_share`` below 1 only so many of a world's
    countries are renamed, and the questions start from these. ``num_readings`` of still other renamed worlds go to
    ``readings-train.jsonl``. With ``talk`` questions are worded as people word them, half of them in conversations, and
    messages that are no questions are added. Searches are BM25's, over indexes that are built for it and removed
    afterwards.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    world = load_world()
    names: tuple[CorpusName, ...] = ("all", "train")
    paths = {"all": out_dir / "corpus.jsonl", "train": out_dir / "corpus-train.jsonl"}
    written = {paths[name].name: write_corpus(world, name, paths[name]) for name in names}
    train = generate(world, "train", num_demonstrations + num_demonstrations // 50, seed)
    written |= _write_questions(world, train, out_dir, seed)
    validation: Sequence[AtlasQuestion] = generate(world, "validation", VALIDATION_QUESTIONS, seed)
    if talk:
        train = _in_conversations(world, "train", train, seed)
        validation = _in_conversations(world, "validation", validation, seed)
    dropped: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch, _progress_bar(progress) as bar:
        search_train, search_all = (_index(paths[name], Path(scratch) / name) for name in ("train", "all"))
        task = bar.add_task("demonstrations", total=num_demonstrations)
        found = (
            item for item in demonstrations(world, train, search_train, dropped) if not _names_held_out(world, item)
        )
        in_worlds = num_demonstrations // 2 // num_renamed_worlds if num_renamed_worlds else 0
        varied = islice(_swapped(world, found, seed), num_demonstrations - in_worlds * num_renamed_worlds)
        elsewhere = chain.from_iterable(
            _of_renamed_world(world, seed * 1000 + number, renamed_share, in_worlds, Path(scratch), dropped, talk=talk)
            for number in range(num_renamed_worlds)
        )
        mixed = chain(varied, elsewhere)
        if talk:
            mixed = chain(_some_in_lower_case(mixed, seed), _off_topic(world, "train", num_demonstrations, seed))
        counted = _counted(mixed, lambda: bar.advance(task))
        written["demonstrations-train.jsonl"] = _write(counted, out_dir / "demonstrations-train.jsonl")
        held_out = demonstrations(world, validation, search_all, dropped)
        if talk:
            held_out = chain(held_out, _off_topic(world, "validation", VALIDATION_QUESTIONS, seed))
        written["demonstrations-validation.jsonl"] = _write(held_out, out_dir / "demonstrations-validation.jsonl")
        if num_readings:
            task = bar.add_task("readings", total=num_readings)
            read = _counted(_readings(world, num_readings, seed), lambda: bar.advance(task))
            written["readings-train.jsonl"] = _write(read, out_dir / "readings-train.jsonl")
    return BuildReport(written, dict(dropped))


def demonstrations(
    world: World, questions: Iterable[AtlasQuestion], search: SearchBatch, dropped: Counter[str]
) -> Iterator[Demonstration]:
    """Yield the demonstrations of ``questions``, in order, searching in batches and each query once.

    Questions without one are counted by kind in ``dropped``.
    """
    teacher = Teacher(world)
    cached = _CachedSearch(search)
    remaining = iter(questions)
    while together := list(islice(remaining, _TOGETHER)):
        results = _run_together([teacher.steps(question) for question in together], cached)
        for question, result in zip(together, results, strict=True):
            if result is None:
                dropped[question.kind] += 1
            else:
                yield result


def _of_renamed_world(
    world: World, seed: int, share: float, number: int, scratch: Path, dropped: Counter[str], *, talk: bool
) -> Iterator[Demonstration]:
    """Yield ``number`` demonstrations about the renamed countries of one world."""
    renamed = renamed_world(world, seed, share)
    corpus = scratch / f"world-{seed}.jsonl"
    write_corpus(renamed, "all", corpus)
    search = _index(corpus, scratch / f"world-{seed}")
    codes = {code for code, country in renamed.countries.items() if country.name != world.countries[code].name}
    about = {name for code in codes for name in (renamed.countries[code].phrase, renamed.countries[code].capital)}
    about |= {city.name for city in renamed.cities if city.country in codes}
    # Where cities are few the share of questions about a country is smaller than its share of the world.
    spare = 3 / share if share < 1 else 1
    asked = generate(renamed, "train", int((number + number // 20 + 10) * spare), seed)
    if talk:
        asked = _in_conversations(renamed, "train", asked, seed)
    questions = (question for question in asked if question.entities[0] in about)
    found = demonstrations(renamed, questions, search, dropped)
    yield from islice((item for item in found if not _names_held_out(world, item)), number)


def _in_conversations(
    world: World, split: Split, questions: Sequence[AtlasQuestion], seed: int
) -> tuple[AtlasQuestion, ...]:
    """Word ``questions``, and some more, as people do, and put half of them into conversations."""
    rng = random.Random(f"{split}-talk-{seed}")
    talk = Talk(world, split)
    more = talk.more_questions(int(len(questions) * _MORE_SHARE), rng)
    mixed = [*questions, *more]
    rng.shuffle(mixed)
    found = []
    for question in mixed[: len(questions)]:
        form = rng.choices(FORMS, _SHORT_FORM_SHARES if question.hops == 1 else _FORM_SHARES)[0]
        text = fold_conversation(talk.turns(question, form, rng))
        found.append(replace(question, id=f"{question.id}-{form}", question=text))
    return tuple(found)


def _off_topic(world: World, split: Split, num_demonstrations: int, seed: int) -> Iterator[Demonstration]:
    found = off_topic(world, split, random.Random(f"{split}-off-topic-{seed}"))
    clean = (item for item in found if split != "train" or not _names_held_out(world, item))
    return islice(clean, int(num_demonstrations * _OFF_TOPIC_SHARE))


def _some_in_lower_case(items: Iterable[Demonstration], seed: int) -> Iterator[Demonstration]:
    for item in items:
        rng = random.Random(f"case-{seed}-{item.id}")
        yield in_lower_case(item) if rng.random() < _LOWER_CASE_SHARE else item


def _readings(world: World, number: int, seed: int) -> Iterator[Reading]:
    """Yield ``number`` readings, a new renamed world for every ``_READINGS_PER_WORLD`` of them."""
    for start in range(0, number, _READINGS_PER_WORLD):
        world_seed = _READINGS_SEED + seed * 1000 + start // _READINGS_PER_WORLD
        found = readings(renamed_world(world, world_seed), random.Random(world_seed))
        named = (item for item in found if not _names_held_out(world, item))
        yield from islice(named, min(_READINGS_PER_WORLD, number - start))


class _CachedSearch:
    def __init__(self, search: SearchBatch) -> None:
        self._search = search
        self._known: dict[str, list[Passage]] = {}

    def __call__(self, queries: Sequence[str]) -> list[list[Passage]]:
        new = list(dict.fromkeys(query for query in queries if query not in self._known))
        if new:
            self._known.update(zip(new, self._search(new), strict=True))
        return [self._known[query] for query in queries]


def _run_together(runs: Sequence[Searching], search: _CachedSearch) -> list[Demonstration | None]:
    results: list[Demonstration | None] = [None] * len(runs)
    waiting = {index: next(run) for index, run in enumerate(runs)}
    while waiting:
        found = search(list(waiting.values()))
        asked: dict[int, str] = {}
        for index, passages in zip(waiting, found, strict=True):
            try:
                asked[index] = runs[index].send(passages)
            except StopIteration as done:
                results[index] = done.value
        waiting = asked
    return results


def _progress_bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _index(corpus: Path, folder: Path) -> SearchBatch:
    build_index(corpus, folder, progress=False, tokenizer=TERMS)
    index = LocalIndex.open(folder)
    return lambda queries: index.search_batch(queries, TOP_K)


def _swapped(world: World, items: Iterable[Demonstration], seed: int) -> Iterator[Demonstration]:
    pool, known = NamePool.of(world), KnownNames.of(world)
    for item in items:
        rng = random.Random(f"{seed}-{item.id}")
        if rng.random() < SWAP_SHARE:
            renamed = swap_bystanders(swap_entities(item, rng, pool), rng, pool, known)
            yield item if _names_held_out(world, renamed) else renamed
        else:
            yield item


def _names_held_out(world: World, item: Demonstration | Reading) -> bool:
    """Return whether a held-out entity is named; new names next to old words can form such a name."""
    return any(world.held_out.occurs_in(text) for text in item.texts())


def _counted(items: Iterable[Item], on_item: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        yield item
        on_item()


def _write_questions(world: World, train: Sequence[AtlasQuestion], out_dir: Path, seed: int) -> dict[str, int]:
    test = generate(world, "test", TEST_QUESTIONS, seed)
    splits = {
        "questions-train.jsonl": train,
        "questions-validation.jsonl": generate(world, "validation", VALIDATION_QUESTIONS, seed),
        "questions-test.jsonl": test,
    }
    written = {name: write_questions(questions, out_dir / name) for name, questions in splits.items()}
    for form in EXAM_FORMS:
        name = f"questions-test-{form}.jsonl"
        written[name] = write_exam(exam(world, test[:EXAM_QUESTIONS], form, seed=seed), out_dir / name)
    return written


def _write(items: Iterable[Demonstration | Reading], path: Path) -> int:
    return write_json_lines(path, (item.to_row() for item in items))
