"""One export, from where runs are to one file."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from searchr1.data.golden import GoldenAnswers
from searchr1.errors import ConfigurationError, DatasetError, missing_package
from searchr1.export.choice import RightRuns
from searchr1.export.files import read_runs
from searchr1.export.gateway import GatewayRuns
from searchr1.export.output import RunLinesWriter, Writer
from searchr1.export.selection import NO_TRAJECTORY, NOT_ENDED, REPEATED, Selection, Skipped
from searchr1.files import BadLines, check_output, whole_file
from searchr1_client.events import Run

JSON_LINES, PARQUET = ".jsonl", ".parquet"


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """The runs to export, and the file to write."""

    output: Path
    """``.jsonl`` or ``.parquet``; the suffix says which."""
    url: str
    """The gateway's address."""
    api_key: str | None = None
    input: Path | None = None
    """JSON Lines of runs, read in place of a gateway."""
    selection: Selection = field(default_factory=Selection)
    golden: Path | None = None
    correct: bool = False
    """Keep the runs whose answer is a golden one alone; those of ``golden``, or of the runs of ``input`` themselves."""
    each: int | None = None
    """Most runs of a question; only with ``correct``."""
    data_source: str = "searchr1"
    split: str = "train"
    force: bool = False
    append: bool = False
    """Keep the runs of an output that is there, and add those that it lacks."""
    skip_bad: bool = False
    """Leave out malformed lines of ``input`` and ``golden``, in place of stopping at the first."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Numbers of the runs that an export wrote, kept and left out."""

    output: Path
    num_runs: int
    num_kept: int
    """Runs among ``num_runs`` that the output held before."""
    num_golden: int | None
    """Runs whose golden answers are known; None where no file of them was given."""
    skipped: str

    def __str__(self) -> str:
        kept = f", {self.num_kept:,} of them from before" if self.num_kept else ""
        golden = "" if self.num_golden is None else f", {self.num_golden:,} with golden answers"
        skipped = f"; skipped: {self.skipped}" if self.skipped else ""
        runs = "run" if self.num_runs == 1 else "runs"
        return f"{self.output}: {self.num_runs:,} {runs}{kept}{golden}{skipped}"


def export(config: ExportConfig, *, progress: bool = True) -> ExportReport:
    """Write the runs. The output is there whole, or is what it was before.

    Raises:
        ConfigurationError: the options don't fit together, or the output is taken or can't be written.
        DatasetError: an input line is wrong, a record contradicts itself, or there is nothing to export.
        GatewayError: the gateway can't be read.
    """
    _check(config)
    skipped, seen = Skipped(), set[str]()
    bad = BadLines(skip=config.skip_bad)
    golden = GoldenAnswers(config.golden, bad)
    right = _right_runs(config, bad)
    with ExitStack() as stack:
        console = Console(stderr=True)
        bar = stack.enter_context(_bar(console, shown=progress and console.is_terminal))
        file = stack.enter_context(whole_file(config.output))
        writer = stack.enter_context(closing(_writer(config, golden, file)))
        num_kept = 0
        for run in _kept(config):
            seen.add(run.id)
            writer.write(run)
            num_kept += 1
        task = bar.add_task("export", total=None)
        num_new = 0
        for run, total in _records(config, skipped, seen, bad, right):
            writer.write(run)
            num_new += 1
            bar.update(task, completed=num_new, total=total)
        if not num_new and not num_kept:
            raise DatasetError(f"there is nothing to export{f'; skipped: {skipped}' if str(skipped) else ''}")
    num_golden = None if config.golden is None else golden.num_known
    return ExportReport(
        config.output, num_kept + num_new, num_kept, num_golden, "; ".join(filter(None, [str(skipped), str(bad)]))
    )


def _check(config: ExportConfig) -> None:
    suffix = config.output.suffix
    if suffix not in (JSON_LINES, PARQUET):
        raise ConfigurationError(f"--output {config.output} must end in {JSON_LINES} or {PARQUET}")
    if suffix == JSON_LINES and config.golden is not None and not config.correct:
        raise ConfigurationError(
            f"--golden has a place only in a {PARQUET} output, or with --correct; a {JSON_LINES} holds runs alone"
        )
    if config.correct and config.golden is None and config.input is None:
        raise ConfigurationError("--correct needs --golden: a server's runs do not know the right answers")
    if config.each is not None and not config.correct:
        raise ConfigurationError("--each counts the right runs of a question: give --correct, too")
    if suffix == PARQUET and config.append:
        raise ConfigurationError(f"--append works on {JSON_LINES}; make a {PARQUET} from it with --input")
    check_output(config.output, replace=config.force or config.append)


def _writer(config: ExportConfig, golden: GoldenAnswers, file: BinaryIO) -> Writer:
    if config.output.suffix == JSON_LINES:
        return RunLinesWriter(file)
    try:
        from searchr1.export.parquet import RunParquetWriter
    except ImportError as error:
        raise ConfigurationError(missing_package(f"a {PARQUET} output", "pyarrow", "data")) from error
    return RunParquetWriter(file, golden, data_source=config.data_source, split=config.split)


def _right_runs(config: ExportConfig, bad: BadLines) -> RightRuns | None:
    golden = config.golden or config.input
    return RightRuns(golden, each=config.each, on_bad=bad) if config.correct and golden is not None else None


def _kept(config: ExportConfig) -> Iterator[Run]:
    return read_runs(config.output) if config.append and config.output.exists() else iter(())


def _records(
    config: ExportConfig, skipped: Skipped, seen: set[str], bad: BadLines, right: RightRuns | None
) -> Iterator[tuple[Run, int | None]]:
    """Yield the runs that are records and not in ``seen``, each with the number of all of them, where it is known."""
    limit, num = config.selection.limit, 0
    with _source(config, skipped, seen, bad) as (runs, total):
        for run in runs:
            if limit is not None and num >= limit:
                return
            if not config.selection.takes(run):
                continue
            if run.status == "running":
                skipped.add(NOT_ENDED)
            elif run.trajectory is None:
                skipped.add(NO_TRAJECTORY)
            elif run.id in seen:
                skipped.add(REPEATED)
            elif right is None or right.takes(run, skipped):
                check_record(run)
                seen.add(run.id)
                num += 1
                yield run, total


@contextmanager
def _source(
    config: ExportConfig, skipped: Skipped, seen: set[str], bad: BadLines
) -> Iterator[tuple[Iterator[Run], int | None]]:
    """Open the runs that there are, and tell their number where it is known."""
    if config.input is not None:
        yield read_runs(config.input, bad), None
        return
    with GatewayRuns(config.url, config.api_key) as gateway:
        named = config.selection.ids
        ids = [i for i in named or gateway.list_ids(config.selection, skipped) if i not in seen]
        total = len(ids) if config.selection.limit is None else min(len(ids), config.selection.limit)
        with closing(gateway.runs(ids, required=bool(named), skipped=skipped)) as runs:
            yield runs, total


def check_record(run: Run) -> None:
    """Check what a record's schema can't say.

    Raises:
        DatasetError: a token has no place in the loss mask, or a sampled one no logprob.
    """
    assert run.trajectory is not None
    for i, segment in enumerate(run.trajectory.segments):
        if len(segment.token_ids) != len(segment.loss_mask):
            raise DatasetError(
                f"run {run.id}, segment {i}: {len(segment.token_ids)} token ids, {len(segment.loss_mask)} mask bits"
            )
        if segment.logprobs is not None and len(segment.logprobs) != len(segment.sampled_ids):
            raise DatasetError(
                f"run {run.id}, segment {i}: {len(segment.sampled_ids)} sampled ids, {len(segment.logprobs)} logprobs"
            )


def _bar(console: Console, *, shown: bool) -> Progress:
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not shown, transient=True)
