"""The rollouts that a run keeps for people to read and for training: some of each step, and all of each evaluation.

Each file, ``step-000012.jsonl`` or ``evaluation-000012.jsonl``, belongs to the line of that step in ``metrics.jsonl``.
A line is a run's record (docs/schemas/run.v1.json) with a few fields of training beside it, so that all that reads
runs reads it. A policy's text degenerates before its scores fall, and only the text shows it.
"""

import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from searchr1.files import write_json_lines
from searchr1.recorder import ms
from searchr1.trainer.rl.held_out import is_right
from searchr1.trainer.rl.rollouts import RolloutResult
from searchr1_client.events import Run, Usage, WireError

FOLDER = "rollouts"
SAMPLED = "sampled.json"
"""Mark of a folder whose rollouts were sampled without training, and are all that it holds."""
Phase = Literal["step", "evaluation"]

_FILE = re.compile(r"(step|evaluation)-(\d{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout with its reward; None where none was asked for, as in an evaluation."""

    result: RolloutResult
    reward: float | None = None


class KeptRollouts:
    """The folder ``rollouts`` of a run in ``out_dir``: ``num_each`` of a step's, in up to ``max_bytes``; None: all."""

    def __init__(self, out_dir: Path, *, model: str, num_each: int | None, max_bytes: int | None, seed: int) -> None:
        self._folder, self._run = out_dir / FOLDER, out_dir.name
        self._model, self._num_each, self._max_bytes, self._seed = model, num_each, max_bytes, seed

    def has(self, phase: Phase, step: int) -> bool:
        """Return whether the rollouts of a step are there."""
        return self._path(phase, step).is_file()

    def rewind(self, step: int) -> None:
        """Drop the files of later steps, which the run is going to take again."""
        for path in self._files():
            if _place(path)[1] > step:
                path.unlink()

    def write(self, phase: Phase, step: int, judged: Sequence[Judged], *, policy_version: int) -> None:
        """Write what is kept of these rollouts, and let the oldest files go where there are too many bytes.

        Of a step's rollouts ``num_each`` are drawn, by the seed and the step; of an evaluation's all are written.

        Raises:
            ConfigurationError: the file can't be written.
        """
        chosen = list(range(len(judged)))
        if phase == "step" and self._num_each is not None:
            draw = random.Random(f"{self._seed}/{step}")
            chosen = sorted(draw.sample(chosen, min(self._num_each, len(chosen))))
        if not chosen or self._max_bytes == 0:
            return
        path = self._path(phase, step)
        rows = (
            row_of(judged[number], id=f"{self._run}-{path.stem}-{number}", model=self._model, version=policy_version)
            | {"phase": phase, "step": step}
            for number in chosen
        )
        write_json_lines(path, rows)
        if self._max_bytes is not None:
            self._bound(self._max_bytes)

    def _bound(self, max_bytes: int) -> None:
        """Remove the oldest files, those of evaluations last, until what is left is small enough; one file stays."""
        files = sorted(self._files(), key=_place)
        left = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if left <= max_bytes:
                return
            left -= path.stat().st_size
            path.unlink()

    def _path(self, phase: Phase, step: int) -> Path:
        return self._folder / f"{phase}-{step:06d}.jsonl"

    def _files(self) -> list[Path]:
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return [path for path in found if _FILE.fullmatch(path.name)]


def row_of(judged: Judged, *, id: str, model: str, version: int) -> dict[str, Any]:
    """Return a rollout as a run's record, with its question's answers, its score, reward and group.

    ``version`` is the policy's. Steps and citations are empty: the trajectory tells more.
    """
    result, question, rollout = judged.result, judged.result.question, judged.result.rollout
    duration_ms = ms(result.duration_s)
    assert rollout.status is not None
    trajectory = result.recorder.trajectory(question.question, total_ms=duration_ms, policy_version=str(version))
    for segment in trajectory.segments:
        if segment.logprobs is not None and not all(map(math.isfinite, segment.logprobs)):
            segment.logprobs = None  # JSON has no word for them, and the rest is what one wants to read then.
    run = Run(
        id=id,
        created=int(time.time()),
        model=model,
        question=question.question,
        status=rollout.status.value,
        answer=rollout.answer,
        usage=_usage(result, duration_ms),
        error=None if result.engine_error is None else WireError(code="engine_error", message=result.engine_error),
        trajectory=trajectory,
    )
    about = {name: value for name, value in asdict(question).items() if name not in ("id", "question")}
    judgment = {"exact_match": is_right(result), "reward": judged.reward, "group": result.group}
    return run.model_dump(mode="json") | about | {"question_id": question.id} | judgment


def _usage(result: RolloutResult, duration_ms: float) -> Usage:
    rollout = result.rollout
    num_answer = 0 if rollout.answer is None else rollout.count_tokens(rollout.answer)
    put_in = sum(len(segment.ids) for segment in rollout.segments if segment.kind in ("observation", "retry"))
    return Usage(
        prompt_tokens=len(rollout.segments[0].ids),
        completion_tokens=rollout.num_sampled_tokens,
        reasoning_tokens=max(0, rollout.num_sampled_tokens - num_answer),
        observation_tokens=put_in,
        turns=rollout.num_turns,
        searches=rollout.num_searches,
        duration_ms=duration_ms,
    )


def _place(path: Path) -> tuple[bool, int]:
    """Return whether a file is an evaluation's, and its step."""
    match = _FILE.fullmatch(path.name)
    assert match is not None
    return match[1] == "evaluation", int(match[2])
