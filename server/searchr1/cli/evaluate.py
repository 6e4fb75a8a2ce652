"""``searchr1 eval``: scores of served models, of methods on an engine, and tables of several evaluations."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from searchr1.cli.options import (
    DATA,
    URL,
    ApiKey,
    ApiKeyFile,
    Data,
    DataDir,
    SkipBad,
    Url,
    chosen_key,
    with_run_options,
)
from searchr1.evaluation.baselines.formats import BaselineFormat
from searchr1.evaluation.methods.registry import SEARCH_R1, all_methods
from searchr1.printable import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchr1.evaluation.report import Report
    from searchr1.evaluation.table.table import ComparisonTable
    from searchr1.files import BadLines
    from searchr1_client import RunOptions


if TYPE_CHECKING:
    MethodName = str
else:  # typer takes an enumeration or a list of literals, and the methods are known at run time alone
    MethodName = StrEnum("MethodName", {method.name: method.name for method in all_methods()})

Paper = Annotated[
    Literal["qwen2.5-3b", "qwen2.5-7b"] | None,
    typer.Option(help="Put the paper's numbers for this model into the table."),
]
Plot = Annotated[bool, typer.Option("--plot", help="Also draw the table as a PNG; needs the extra `train`.")]

eval_app = typer.Typer(
    invoke_without_command=True,
    help="Score a served model, or methods on an engine: exact match, sub-exact match, searches per answer.",
)


@eval_app.callback()
@with_run_options
def evaluate(
    ctx: typer.Context,
    dataset: Annotated[
        str, typer.Option(help="atlas, sets such as nq,hotpotqa, seven for all, or a path; see docs/guides/data.md.")
    ] = "atlas",
    data: Data = None,
    split: Annotated[str, typer.Option(help="Of atlas, folders and hub datasets: train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first questions only, of each set.")] = None,
    url: Url = URL,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    closed_book: Annotated[bool, typer.Option("--closed-book", help="Also ask with search off.")] = False,
    by_kind: Annotated[bool, typer.Option("--by-kind", help="A row for each kind of question too.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON lines of results; the run resumes from it.")] = None,
    data_dir: DataDir = DATA,
    skip_bad: SkipBad = False,
    extractor: Annotated[
        Literal["own", "reference"],
        typer.Option(help="Read Search-R1's answers from its last action, or as the reference's extractor does."),
    ] = "own",
    method: Annotated[
        list[MethodName] | None,
        typer.Option(
            help="Repeatable; a baseline needs --model, and --retriever if it searches.", show_default="search-r1"
        ),
    ] = None,
    engine_url: Annotated[
        str | None, typer.Option(help="Run the methods on this vLLM, without a gateway; --model names its model.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Of --engine-url. Default: the model's.")] = None,
    retriever: Annotated[
        str | None, typer.Option(help="What methods search without a gateway: as of `searchr1 serve`.")
    ] = None,
    baseline_format: Annotated[
        BaselineFormat,
        typer.Option(help="How baselines ask: in plain words, or in the prompt that a Search-R1 policy knows."),
    ] = "plain",
    paper: Paper = None,
    plot: Plot = False,
    *,
    options: "RunOptions",
) -> None:
    """Score a served model: exact match, sub-exact match, searches per answer. Greedy unless a temperature is given.

    With --method of a baseline, --engine-url or --retriever, the methods run without a gateway, on the engine and the
    retriever that are named, and a table compares them: see docs/guides/evaluation.md.
    """
    if ctx.invoked_subcommand is not None:
        return
    from searchr1.files import BadLines

    bad = BadLines(skip=skip_bad)
    common: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "limit": limit,
        "data_dir": data_dir,
        "data": data,
        "concurrency": concurrency,
        "extractor": extractor,
        "out": out,
        "on_bad": bad,
    }
    methods = tuple(dict.fromkeys(str(name) for name in method or (SEARCH_R1,)))
    if methods != (SEARCH_R1,) or engine_url is not None or retriever is not None:
        if closed_book:
            raise typer.BadParameter("--closed-book asks a gateway; on an engine, use --method direct")
        given = {"engine_url": engine_url, "tokenizer": tokenizer, "retriever": retriever}
        comparison = {**common, "methods": methods, "baseline_format": baseline_format}
        _compare(comparison, given, options, by_kind, paper, plot, bad)
        return
    if paper is not None or plot:
        raise typer.BadParameter("--paper and --plot go with a table: searchr1 eval table FILE, or --method")
    from searchr1.evaluation.gateway.evaluate import evaluate as run
    from searchr1.evaluation.report import print_report

    key = chosen_key(api_key, api_key_file)
    report = run(**common, url=url, api_key=key, closed_book=closed_book, **options)
    print_report(report, by_kind=by_kind)
    _end((report,), bad)


@eval_app.command("table")
def table(
    files: Annotated[list[Path], typer.Argument(help="Results, as `searchr1 eval --out` writes them.")],
    out: Annotated[
        Path | None, typer.Option(help="table.md; table.json, and with --plot table.png, go beside it.")
    ] = None,
    paper: Paper = None,
    plot: Plot = False,
) -> None:
    """Put several evaluations into one table in the paper's layout: Markdown to stdout, and to files with --out."""
    from searchr1.evaluation.table.table import table_of_files

    if plot and out is None:
        raise typer.BadParameter("--plot needs --out")
    _check_plot(plot)
    _give(table_of_files(files, paper=paper), out, plot)


def _compare(
    comparison: dict[str, Any],
    given: dict[str, Any],
    options: "RunOptions",
    by_kind: bool,
    paper: Literal["qwen2.5-3b", "qwen2.5-7b"] | None,
    plot: bool,
    bad: "BadLines",
) -> None:
    from searchr1.evaluation.engine.compare import NO_RETRIEVER, Comparison, compare, needs_retriever
    from searchr1.evaluation.report import print_report
    from searchr1.evaluation.table.table import build_table
    from searchr1.settings import Settings

    chosen = Comparison(**comparison)
    if plot and chosen.out is None:
        raise typer.BadParameter("--plot needs --out")
    _check_plot(plot)
    given = {name: value for name, value in {**given, "model": options.get("model")}.items() if value is not None}
    if not needs_retriever(chosen.methods):
        given["retriever"] = NO_RETRIEVER
    for name in ("model", "retriever"):
        if name not in given and f"SEARCHR1_{name.upper()}" not in os.environ:
            raise typer.BadParameter(f"the methods need --{name}: see docs/guides/evaluation.md")
    settings = Settings.load(**given)
    compared = compare(chosen, settings, options)
    for report in compared.reports:
        typer.echo(f"\n{report.searching.name}:")
        print_report(report, by_kind=by_kind)
    _give(build_table(compared.records, paper=paper), _table_path(chosen.out), plot)
    _end(compared.reports, bad)


def _end(reports: "Sequence[Report]", bad: "BadLines") -> None:
    """Say what the scores leave out. Raises ``SystemExit`` where runs failed: these scores are no result yet."""
    if str(bad):
        typer.echo(f"left out: {one_line(str(bad))}", err=True)
    failed = sum(summary.num_failed for report in reports for summary in report.passes)
    if failed:
        raise SystemExit(
            f"searchr1 eval: {failed:,} runs failed, by no fault of the model, and count as wrong above. "
            "Ask them again: the same command with --out FILE asks only what FILE does not hold."
        )


def _table_path(out: Path | None) -> Path | None:
    return out.with_suffix(".table.md") if out is not None else None


def _check_plot(plot: bool) -> None:
    if plot:
        from searchr1.evaluation.table.plot import check_plotting

        check_plotting()


def _give(made: "ComparisonTable", out: Path | None, plot: bool) -> None:
    typer.echo(printable(made.to_markdown()), nl=False)
    if out is None:
        return
    from searchr1.evaluation.table.files import write_table

    write_table(made, out, plot=plot)
