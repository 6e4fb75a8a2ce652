"""Test questions, answered greedily by the starts and by the checkpoints of all runs that are done, on one engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.seven.kept import digest_of, write_places
from loadtests.seven.measuring import patience
from loadtests.seven.questions import Asked, read_questions, sampled
from loadtests.studies.commands import Choices, read_config
from loadtests.studies.plan import Arm, Run, World, world_named
from loadtests.studies.running import read_done
from searchr1.atlas.questions import AtlasQuestion
from searchr1.atlas.questions import read_questions as read_atlas
from searchr1.data.questions import Question
from searchr1.engines.base import TakesWeights
from searchr1.errors import ConfigurationError, DatasetError
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


async def score(exam: Exam, start: str, runs: Sequence[Run], choices: Choices, tell: Callable[[str], None]) -> None:
    """Answer the questions with the start ``start`` and with the checkpoints of those of its ``runs`` that are done.

    What was answered by the same weights before is not asked again.

    Raises:
        SearchR1Error: the engine or the index can't be opened, or the engine fails again and again.
    """
    out, folder = choices.out, choices.start_of(exam.world, start)
    write_places(scores_folder(out), exam.questions)
    done = [run for run in runs if run.start == start and read_done(run.folder(out)) is not None]
    start_top_k = done[0].arm.top_k if done else 3
    passes = [(start_named(exam.world.name, start, start_top_k), folder, start_top_k)]
    passes += [(run.name, run.folder(out) / "checkpoint", run.arm.top_k) for run in done]
    todo = [one for one in passes if not _is_scored(exam, out, one[0], one[1])]
    tell(f"{exam.world.name}, {start}: {len(passes) - len(todo)} scored before, {len(todo)} to score")
    if not todo:
        return
    settings = _settings(exam, folder, choices)
    async with open_tools(settings) as tools:
        for name, checkpoint, top_k in todo:
            await _score(exam, out, name, checkpoint, top_k, settings, tools)


async def _score(
    exam: Exam, out: Path, name: str, checkpoint: Path, top_k: int, settings: Settings, tools: Tools
) -> None:
    if not isinstance(tools.engine, TakesWeights):
        raise ConfigurationError("scores need an engine that takes other weights: leave SEARCHR1_ENGINE_URL out")
    await tools.engine.take_weights(checkpoint, version=name)
    options: RunOptions = {"temperature": 0.0, "top_k": top_k}
    recorded: dict[str, Any] = {**options, "model": name, "digest": digest_of(checkpoint)}
    asker = EngineAsker(
        SEARCH_R1,
        tools,
        method_options(settings, options, "search-r1"),
        model=name,
        record_options=recorded,
        concurrency=exam.concurrency,
    )
    questions = [asked.question for asked in exam.questions]
    await one_pass(name, questions, asker, recorded, scores_file(out, name), exam.progress)


def _is_scored(exam: Exam, out: Path, name: str, checkpoint: Path) -> bool:
    records = read_scores(out, name)
    asked = {one.question.id for one in exam.questions}
    right = {record.id for record in records if not record.failed}
    return asked <= right and records[0].options.get("digest") == digest_of(checkpoint)


def read_scores(out: Path, name: str) -> list[Record]:
    """Return the records of a run's checkpoint or of a start; none where it was not scored."""
    try:
        return read_records(scores_file(out, name))
    except DatasetError:
        return []


def _settings(exam: Exam, start: Path, choices: Choices) -> Settings:
    """Return the settings of the environment with the bounds of the rollouts that the runs were trained by."""
    plain = Run(exam.world.name, START, 0, Arm("GRPO"))
    rollout = read_config(choices.config_of(plain)).get("rollout") or {}
    bounds = {name: rollout[name] for name in _LIMITS if name in rollout}
    return Settings.load(model=str(start.resolve()), retriever=exam.retriever, **bounds, **patience())


def exam_of(world: str, file: Path, retriever: str, num: int | None, concurrency: int) -> Exam:
    """Return the test questions of a world, and what they are asked with.

    Raises:
        DatasetError: the questions can't be read.
    """
    found = world_named(world)
    return Exam(found, exam_questions(found, file, num), retriever, concurrency)
