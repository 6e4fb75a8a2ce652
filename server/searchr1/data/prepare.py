"""``searchr1 data prepare``: one file of questions for training or evaluation, out of one source or many."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from searchr1.data.golden import GoldenAnswers
from searchr1.data.questions import Question, qualified_id
from searchr1.data.readers import num_rows, read
from searchr1.data.seen import Seen, Verdict
from searchr1.data.sets import set_named
from searchr1.data.shuffle import shuffled
from searchr1.data.sources import DATA_DIR, Places, SourceFile, locate
from searchr1.errors import ConfigurationError, DatasetError, missing_package
from searchr1.files import BadLines, check_output, whole_file

JSON_LINES, PARQUET = ".jsonl", ".parquet"
UNNAMED = "searchr1"
"""The data source of questions whose own is not known, as of ``searchr1 export``."""
NO_ANSWERS = "without golden answers"


@dataclass(frozen=True, slots=True)
class PrepareConfig:
    """The questions to read, and those of them to write."""

    sources: tuple[str, ...]
    """Sources in the order in which they are read; see ``searchr1.data.sources``."""
    output: Path
    """``.parquet``: upstream's columns. ``.jsonl``: the questions alone, with their hops and kinds."""
    split: str = "train"
    """The split of Atlas, folders and hub datasets to read; also upstream's ``extra_info.split``."""
    data_dir: Path = DATA_DIR
    data: str | None = None
    """A file, folder or hub dataset that holds the seven sets; None is upstream's."""
    data_sources: frozenset[str] = frozenset()
    """Data sources whose questions are kept; empty keeps all."""
    exclude: tuple[str, ...] = ()
    """Sources, read with the split ``test``, whose questions are left out."""
    golden: Path | None = None
    """JSON Lines of ``{"question", "golden_answers"}`` for exported runs."""
    data_source: str = UNNAMED
    """Data source of questions that name none."""
    dedupe: bool = False
    """Keep the first of questions that differ at most in case, spaces or the question mark."""
    seed: int | None = None
    """Seed of the shuffle; None keeps the order."""
    limit: int | None = None
    """Most questions to write, after the shuffle."""
    limit_each: int | None = None
    """Most questions of each data source, after the shuffle."""
    verl: bool = False
    """Spell data sources as verl's own reward does, ``searchR1_nq``."""
    force: bool = False
    skip_bad: bool = False
    """Leave malformed rows out, in place of stopping at the first."""


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """Numbers of the questions that were written and left out."""

    output: Path
    by_source: dict[str, int]
    """Questions written, by data source."""
    skipped: dict[str, int]
    """Questions left out, by the reason; limits and ``data_sources`` are no reason."""
    malformed: str = ""
    """Number and first of the rows that were skipped as malformed."""

    @property
    def num_questions(self) -> int:
        """Number of all questions that were written."""
        return sum(self.by_source.values())

    def __str__(self) -> str:
        written = ", ".join(f"{count:,} {name}" for name, count in self.by_source.items())
        questions = "question" if self.num_questions == 1 else "questions"
        return f"{self.output}: {self.num_questions:,} {questions} ({written}){_told(self.skipped, self.malformed)}"


def _told(skipped: Mapping[str, int], malformed: str) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
    told = "; ".join(filter(None, [reasons, malformed]))
    return f"; skipped: {told}" if told else ""


class _Writer(Protocol):
    def write(self, question: Question) -> None: ...

    def close(self) -> None: ...


class QuestionLinesWriter:
    """A writer of one question a line, without the fields that are not known."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, question: Question) -> None:
        """Add one line."""
        known = {name: value for name, value in asdict(question).items() if value is not None}
        self._file.write(_LINE.dump_json(known) + b"\n")

    def close(self) -> None:
        """Do nothing: no line is pending, and the file itself stays open."""


_LINE = TypeAdapter(dict[str, str | int | tuple[str, ...]])


def prepare(config: PrepareConfig, *, progress: bool = True) -> PrepareReport:
    """Write the questions. The output is there whole, or is what it was before.

    Memory holds some hundred bytes a question to tell repeated ones, and never the questions: a shuffle keeps those
    in an unnamed file beside the output.

    Raises:
        ConfigurationError: the options do not fit together, or the output is taken or can't be written.
        DatasetError: a source is missing or malformed, or nothing is left to write.
    """
    _check(config)
    written, skipped = Counter[str](), Counter[str]()
    files = locate(config.sources, Places(config.split, config.data_dir, config.data))
    bad = BadLines(skip=config.skip_bad)
    with ExitStack() as stack:
        bar = stack.enter_context(_bar(shown=progress))
        seen = Seen(dedupe=config.dedupe)
        _exclude(config, seen, bad, bar)
        file = stack.enter_context(whole_file(config.output))
        writer = stack.enter_context(closing(_writer(config, file)))
        questions: Iterable[Question] = _wanted(config, files, seen, skipped, bad, bar)
        if config.seed is not None:
            questions = stack.enter_context(closing(shuffled(questions, config.seed, config.output.parent)))
        for question in _limited(questions, config, bar):
            assert question.data_source is not None
            written[question.data_source] += 1
            writer.write(question)
        if not written:
            reasons = ", ".join(
                [*(f"{count:,} {reason}" for reason, count in skipped.items()), *filter(None, [str(bad)])]
            )
            raise DatasetError(f"no question is left to write{f'; skipped: {reasons}' if reasons else ''}")
    return PrepareReport(config.output, dict(sorted(written.items())), dict(skipped), str(bad))


def _check(config: PrepareConfig) -> None:
    if not config.sources:
        raise ConfigurationError("give at least one source, such as atlas; see searchr1 data prepare --help")
    if config.output.suffix not in (JSON_LINES, PARQUET):
        raise ConfigurationError(f"--output {config.output} must end in {PARQUET} or {JSON_LINES}")
    if any(limit is not None and limit < 1 for limit in (config.limit, config.limit_each)):
        raise ConfigurationError("limits must be at least 1")
    if config.verl and config.output.suffix != PARQUET:
        raise ConfigurationError(f"--verl has a place only in a {PARQUET} output")
    check_output(config.output, replace=config.force)


def _writer(config: PrepareConfig, file: BinaryIO) -> _Writer:
    if config.output.suffix == JSON_LINES:
        return QuestionLinesWriter(file)
    try:
        from searchr1.data.upstream import QuestionParquetWriter
    except ImportError as error:
        raise ConfigurationError(missing_package(f"a {PARQUET} output", "pyarrow", "data")) from error
    return QuestionParquetWriter(file, split=config.split, verl=config.verl)


def _exclude(config: PrepareConfig, seen: Seen, bad: BadLines, bar: Progress) -> None:
    if config.exclude:
        for file in locate(config.exclude, Places("test", config.data_dir, config.data)):
            for _, question in _tracked(file, bad, bar):
                seen.exclude(question)


def _wanted(
    config: PrepareConfig,
    files: Iterable[SourceFile],
    seen: Seen,
    skipped: Counter[str],
    bad: BadLines,
    bar: Progress,
) -> Iterator[Question]:
    """Yield the questions that the options leave, with ids and answers, in the order of the files."""
    golden = GoldenAnswers(config.golden, bad)
    kept = {set_named(name) or name for name in config.data_sources}
    for file in files:
        for where, found in _tracked(file, bad, bar):
            question = _completed(found, golden, config.data_source)
            if kept and question.data_source not in kept:
                continue
            verdict = seen.add(question)
            if verdict is Verdict.ID_TAKEN:
                raise DatasetError(f"{where}: the id {question.id!r} is taken by an earlier, different question")
            if verdict is not Verdict.NEW:
                skipped[verdict.value] += 1
            elif not question.golden_answers:
                skipped[NO_ANSWERS] += 1
            else:
                yield question


def _completed(question: Question, golden: GoldenAnswers, data_source: str) -> Question:
    source = question.data_source or data_source
    answers = question.golden_answers or tuple(golden.of(question.question))
    return replace(question, id=qualified_id(source, question.id), data_source=source, golden_answers=answers)


def _limited(questions: Iterable[Question], config: PrepareConfig, bar: Progress) -> Iterator[Question]:
    task = bar.add_task("written", total=config.limit)
    each: Counter[str | None] = Counter()

    def room(question: Question) -> bool:
        each[question.data_source] += 1
        return config.limit_each is None or each[question.data_source] <= config.limit_each

    for question in islice(filter(room, questions), config.limit):
        yield question
        bar.advance(task)


def _tracked(file: SourceFile, bad: BadLines, bar: Progress) -> Iterator[tuple[str, Question]]:
    task = bar.add_task(file.path.name, total=num_rows(file.path) if file.only is None else None)
    for found in read(file, bad):
        yield found
        bar.advance(task)


def _bar(*, shown: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)
