"""The record of each run of an evaluation: one JSON line, written as soon as the run ends, so that it can resume."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Literal, Self

from pydantic import AfterValidator, TypeAdapter, ValidationError

from searchr1.data.questions import Question
from searchr1.errors import ConfigurationError, DatasetError, as_value_error
from searchr1.evaluation.baselines.trial import TrialOutcome
from searchr1.evaluation.methods.registry import method_named
from searchr1.evaluation.metrics import exact_match, reference_answer, sub_exact_match
from searchr1.files import first_problem
from searchr1_client.events import Run, RunStatus

Extractor = Literal["own", "reference"]
"""The reading of a run's answer: its own final action, or what the reference's extractor would find."""


@as_value_error()
def _known_method(name: str) -> str:
    return method_named(name).name


@dataclass(frozen=True, slots=True)
class Record:
    """One question, its run and how it was scored."""

    id: str
    question: str
    golden_answers: tuple[str, ...]
    hops: int | None
    kind: str | None
    options: dict[str, Any]
    """Options that were chosen, of the gateway or of a method on an engine."""
    extractor: Extractor
    status: RunStatus
    wall_s: float
    """Seconds of the request that was served, as this client saw it; of a failed one, with its retries."""
    answer: str | None = None
    prediction: str | None = None
    """The text that was scored: the answer, or what the reference's extractor reads."""
    exact_match: bool = False
    sub_exact_match: bool = False
    error: str | None = None
    data_source: str | None = None
    """The set that the question belongs to."""
    model: str | None = None
    run_id: str | None = None
    queries: tuple[str, ...] = ()
    turns: int = 0
    searches: int = 0
    failed_searches: int = 0
    invalid_turns: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    observation_tokens: int = 0
    cached_tokens: int = 0
    duration_ms: float = 0.0
    """The run's time as the server measured it."""
    method: Annotated[str, AfterValidator(_known_method)] | None = None
    """The method on an engine of our own; None, which is not written, is Search-R1 through a gateway."""

    @property
    def failed(self) -> bool:
        """True where the system failed, not the model: the run scores as wrong, and resuming asks again.

        A run none of whose searches worked is such a one, whatever the model answered.
        """
        return self.status == "failed"


_RECORD = TypeAdapter(Record)
_LINE_START = b'{"id": "'
"""Start of every record, which tells one that was cut off from a file that is none of ours."""


def chosen_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a run's options that were chosen: the others are the server's choice."""
    return {name: value for name, value in options.items() if value is not None}


def run_record(question: Question, run: Run, *, options: dict[str, Any], wall_s: float, extractor: Extractor) -> Record:
    """Score a run and return its record. Raises ``ValueError`` for a run that has not ended."""
    if run.status == "running":
        raise ValueError(f"the run {run.id} has not ended")
    usage = run.usage
    prediction = run.answer
    errors = [step.search_error.message for step in run.steps if step.search_error is not None]
    is_blind = _is_blind(usage.searches, len(errors))
    error = run.error.message if run.error is not None else None
    if extractor == "reference" and run.status != "failed":
        retried = any(step.invalid is not None and step.turn < usage.turns for step in run.steps)
        prediction = reference_answer(question.question, run.answer, retried=retried)
    if is_blind:
        prediction, error = None, f"no search worked, the last with: {errors[-1]}"
    return Record(
        **dataclasses.asdict(question),
        options=options,
        extractor=extractor,
        status="failed" if is_blind else run.status,
        wall_s=wall_s,
        answer=run.answer,
        prediction=prediction,
        exact_match=exact_match(prediction, question.golden_answers),
        sub_exact_match=sub_exact_match(prediction, question.golden_answers),
        error=error,
        model=run.model,
        run_id=run.id,
        queries=tuple(step.query for step in run.steps if step.query is not None),
        turns=usage.turns,
        searches=usage.searches,
        failed_searches=len(errors),
        invalid_turns=sum(step.invalid is not None for step in run.steps),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        observation_tokens=usage.observation_tokens,
        cached_tokens=usage.cached_tokens,
        duration_ms=usage.duration_ms,
    )


def _is_blind(num_searches: int, num_failed: int) -> bool:
    """Return whether a run searched and no search worked: what the model says without passages is no score of it."""
    return 0 < num_searches <= num_failed


def failed_record(
    question: Question, error: Exception, *, options: dict[str, Any], wall_s: float, extractor: Extractor
) -> Record:
    """Return the record of a request that brought no run back."""
    return Record(
        **dataclasses.asdict(question),
        options=options,
        extractor=extractor,
        status="failed",
        wall_s=wall_s,
        error=str(error) or type(error).__name__,
    )


def outcome_record(
    question: Question,
    outcome: TrialOutcome,
    *,
    method: str,
    model: str,
    options: dict[str, Any],
    extractor: Extractor,
) -> Record:
    """Score what a method did on an engine of our own, and return its record."""
    prediction = outcome.answer
    if extractor == "reference" and outcome.status != "failed":
        prediction = reference_answer(question.question, outcome.answer, retried=outcome.retried)
    is_blind, error = _is_blind(outcome.searches, outcome.failed_searches), outcome.error
    if is_blind:
        prediction, error = None, error or "no search worked"
    return Record(
        **dataclasses.asdict(question),
        options=options,
        extractor=extractor,
        status="failed" if is_blind else outcome.status,
        wall_s=outcome.duration_s,
        answer=outcome.answer,
        prediction=prediction,
        exact_match=exact_match(prediction, question.golden_answers),
        sub_exact_match=sub_exact_match(prediction, question.golden_answers),
        error=error,
        model=model,
        queries=tuple(outcome.queries),
        turns=outcome.turns,
        searches=outcome.searches,
        failed_searches=outcome.failed_searches,
        invalid_turns=outcome.invalid_turns,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        observation_tokens=outcome.observation_tokens,
        cached_tokens=outcome.cached_tokens,
        duration_ms=outcome.duration_s * 1000,
        method=method,
    )


def read_records(path: Path) -> list[Record]:
    """Return the records of a file, one for each question: the last one that did not fail, else the last.

    A last line that was cut off is left out. Raises ``DatasetError`` for a file that is missing or none of ours.
    """
    records: dict[str, Record] = {}
    try:
        with path.open("rb") as file:
            for record, _ in _whole_records(file, path):
                if not record.failed or record.id not in records or records[record.id].failed:
                    records[record.id] = record
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not records:
        raise DatasetError(f"{path} holds no results")
    return list(records.values())


def _whole_records(file: IO[bytes], path: Path) -> Iterator[tuple[Record, int]]:
    """Yield each record and its length in bytes, up to a last line that was cut off."""
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n") and line.startswith(_LINE_START):
            return
        try:
            yield _RECORD.validate_json(line), len(line)
        except ValidationError as error:
            message = f"{path}, line {number}: {first_problem(error)}. Is it a file of evaluation results?"
            raise DatasetError(message) from error


class RecordFile:
    """The records of one evaluation on disk; opening it again goes on where it ended.

    Raises ``ConfigurationError`` where the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        """Write one line."""
        value = dataclasses.asdict(record)
        if record.method is None:
            del value["method"]
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def done(self, questions: Sequence[Question], options: dict[str, Any], extractor: Extractor) -> dict[str, Record]:
        """Return the records of ``questions`` whose runs did not fail, by id; a last line that was cut off is removed.

        Raises:
            DatasetError: a line is not a record.
            ConfigurationError: the file comes from other questions or other options.
        """
        asked = {question.id: question for question in questions}
        done: dict[str, Record] = {}
        whole_bytes = 0
        self._file.seek(0)
        for record, num_bytes in _whole_records(self._file, self._path):
            whole_bytes += num_bytes
            question = asked.get(record.id)
            if question is not None and not record.failed:
                self._check(record, question, options, extractor)
                done[record.id] = record
        self._file.truncate(whole_bytes)
        return done

    def _check(self, record: Record, question: Question, options: dict[str, Any], extractor: Extractor) -> None:
        same_question = (record.question, record.golden_answers) == (question.question, question.golden_answers)
        same_options = (record.options, record.extractor) == (options, extractor)
        if not (same_question and same_options):
            raise ConfigurationError(
                f"{self._path} holds results of other questions or options, so it cannot be resumed. "
                "Give another --out, or remove it."
            )
