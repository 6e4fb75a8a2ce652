"""Test questions, answered greedily by the starts and by the checkpoints of all runs that are done, on one engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtests.seven.kept import digest_of, write_places
from loadtests.seven.measuring import patience
from loadtests.seven.questions import Asked, read_questions, sampled
from loadtests.studies.commands import Choices, rollout_of
from loadtests.studies.plan import CLOSED, Arm, Run, World, world_named
from loadtests.studies.running import read_done
from searchr1.atlas.questions import AtlasQuestion
from searchr1.atlas.questions import read_questions as read_atlas
from searchr1.data.questions import Question
from searchr1.engines.base import TakesWeights
from searchr1.errors import ConfigurationError, DatasetError, SearchR1Error
from searchr1.evaluation.asking import one_pass
from searchr1.evaluation.baselines.trial import Tools
from searchr1.evaluation.engine.asker import EngineAsker
from searchr1.evaluation.engine.compare import method_options, open_tools
from searchr1.evaluation.methods.registry import SEARCH_R1
from searchr1.evaluation.records import Record, read_records
from searchr1.settings import Settings
from searchr1_client import RunOptions

_LIMITS = ("max_turns", "max_completion_tokens", "max_observation_tokens", "max_context_tokens")
START = "start"


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of a world, and what they are asked with."""

    world: World
    questions: tuple[Asked, ...]
    retriever: str
    """As ``searchr1 serve`` takes it."""
    concurrency: int = 64
    progress: bool = True


@dataclass(frozen=True, slots=True)
class Pass:
    """A start or a run's checkpoint, and the arm by whose bounds it answers."""

    name: str
    checkpoint: Path
    arm: Arm

    @property
    def options(self) -> RunOptions:
        """Options of its runs."""
        options: RunOptions = {"temperature": 0.0, "top_k": self.arm.top_k}
        if self.arm.max_searches is not None:
            options["max_searches"] = self.arm.max_searches
        return options

    def recorded(self) -> dict[str, Any]:
        """Return the options in each record, which tell the records of other weights or bounds."""
        return {**self.options, "model": self.name, "digest": digest_of(self.checkpoint)}


def scores_folder(out: Path) -> Path:
    """Return the folder of the scores."""
    return out / "scores"


def scores_file(out: Path, name: str) -> Path:
    """Return the file of the records of a run's checkpoint, or of a start."""
    return scores_folder(out) / f"{name}.jsonl"


def start_named(world: str, start: str, top_k: int) -> str:
    """Return the name of a start's scores."""
    return f"{world}-{start}-{START}" + ("" if top_k == 3 else f"-top{top_k}")


def exam_questions(world: World, file: Path, num: int | None) -> tuple[Asked, ...]:
    """Return the test questions of a world: of Atlas ``num`` in all, of others ``num`` of each set; None means all.

    Raises:
        DatasetError: the file can't be read.
    """
    if world.name != "atlas":
        return tuple(sampled(read_questions(file), num))
    return tuple(_of_atlas(question) for question in list(read_atlas(file))[:num])


def _of_atlas(asked: AtlasQuestion) -> Asked:
    # The topic comes first, then what lies on the way: where the topic is no country, the country is next.
    country = asked.entities[0 if asked.kind.startswith("country-") else 1]
    question = Question(asked.id, asked.question, asked.golden_answers, asked.hops, asked.kind, "atlas")
    return Asked(question, cluster=country)


def passes(world: World, start: str, runs: Sequence[Run], choices: Choices) -> list[Pass]:
    """Return the start ``start`` and the checkpoints of those of its ``runs`` that are done."""
    out = choices.out
    done = [run for run in runs if run.start == start and read_done(run.folder(out)) is not None]
    # It has read as many passages as its runs, and within the same bounds; what else tells them apart is theirs.
    arm = Arm(START) if not done else replace(done[0].arm, max_searches=None)
    arm = replace(arm, max_searches=0) if start == CLOSED else arm
    of_start = Pass(start_named(world.name, start, arm.top_k), choices.start_of(world, start), arm)
    return [of_start, *(Pass(run.name, run.folder(out) / "checkpoint", run.arm) for run in done)]


async def score(exam: Exam, start: str, runs: Sequence[Run], choices: Choices, tell: Callable[[str], None]) -> bool:
    """Answer the questions with a start and with the checkpoints of its runs; return whether none of them failed.

    What was answered by the same weights within the same bounds before is not asked again.

    Raises:
        SearchR1Error: the engine or the index can't be opened.
    """
    write_places(scores_folder(choices.out), exam.questions)
    planned = passes(exam.world, start, runs, choices)
    todo = [one for one in planned if not is_scored(exam, choices.out, one)]
    tell(f"{exam.world.name}, {start}: {len(planned) - len(todo)} scored before, {len(todo)} to score")
    if not todo:
        return True
    none_failed, settings = True, [settings_of(exam, start, one.arm, choices) for one in todo]
    async with open_tools(max(settings, key=lambda one: one.max_context_tokens)) as tools:
        for one, bounds in zip(todo, settings, strict=True):
            try:
                await _score(exam, choices.out, one, bounds, tools)
            except SearchR1Error as error:
                tell(f"{one.name}: not scored: {type(error).__name__}: {error}")
                none_failed = False
    return none_failed


async def _score(exam: Exam, out: Path, one: Pass, settings: Settings, tools: Tools) -> None:
    if not isinstance(tools.engine, TakesWeights):
        raise ConfigurationError("scores need an engine that takes other weights: leave SEARCHR1_ENGINE_URL out")
    await tools.engine.take_weights(one.checkpoint, version=one.name)
    recorded = one.recorded()
    asker = EngineAsker(
        SEARCH_R1,
        tools,
        method_options(settings, one.options, "search-r1"),
        model=one.name,
        record_options=recorded,
        concurrency=exam.concurrency,
    )
    questions = [asked.question for asked in exam.questions]
    await one_pass(one.name, questions, asker, recorded, scores_file(out, one.name), exam.progress)


def is_scored(exam: Exam, out: Path, one: Pass) -> bool:
    """Return whether every question has a record of a run that did not fail, with the same weights and options."""
    records = read_scores(out, one.name)
    asked = {asked.question.id for asked in exam.questions}
    right = {record.id for record in records if not record.failed}
    return asked <= right and records[0].options == one.recorded()


def read_scores(out: Path, name: str) -> list[Record]:
    """Return the records of a run's checkpoint or of a start; none where it was not scored."""
    try:
        return read_records(scores_file(out, name))
    except DatasetError:
        return []


def settings_of(exam: Exam, start: str, arm: Arm, choices: Choices) -> Settings:
    """Return the settings of the environment with the bounds of the rollouts that an arm's runs are trained by."""
    rollout = rollout_of(Run(exam.world.name, start, 0, replace(arm, algorithm="grpo")), choices)
    bounds = {name: rollout[name] for name in _LIMITS if name in rollout}
    folder = choices.start_of(exam.world, start)
    return Settings.load(model=str(folder.resolve()), retriever=exam.retriever, **bounds, **patience())


def exam_of(world: str, file: Path, retriever: str, num: int | None, concurrency: int) -> Exam:
    """Return the test questions of a world, and what they are asked with.

    Raises:
        DatasetError: the questions can't be read.
    """
    found = world_named(world)
    return Exam(found, exam_questions(found, file, num), retriever, concurrency)
