"""``searchr1 export``: stored runs as training records; ``searchr1 export verl``: a training run for verl."""

from pathlib import Path
from typing import Annotated

import typer

from searchr1.cli.options import DATA, URL, ApiKey, ApiKeyFile, DataDir, Force, Overwrite, SkipBad, Url, chosen_key
from searchr1.printable import one_line

export_app = typer.Typer()


@export_app.callback(invoke_without_command=True)
def export(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option(help="runs.jsonl for whole runs, runs.parquet for upstream's columns.")
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    input: Annotated[Path | None, typer.Option(help="JSON lines of runs, read in place of a gateway.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="A run to export; may be repeated. Default: all.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="completed, exhausted, …; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Runs from this ISO date or time on; UTC without a zone.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest runs only; of --input, the first.")] = None,
    golden: Annotated[
        Path | None, typer.Option(help="File of questions with their answers, for the parquet and for --correct.")
    ] = None,
    correct: Annotated[bool, typer.Option("--correct", help="Only runs whose answer is a golden one.")] = False,
    each: Annotated[int | None, typer.Option(min=1, help="With --correct: most runs of a question.")] = None,
    data_source: Annotated[str, typer.Option(help="Upstream's data_source: it picks the reward.")] = "searchr1",
    split: Annotated[str, typer.Option(help="Upstream's extra_info.split.")] = "train",
    append: Annotated[bool, typer.Option("--append", help="Add to a .jsonl the runs that it lacks.")] = False,
    overwrite: Overwrite = False,
    force: Force = False,
    skip_bad: SkipBad = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a run instead.")] = False,
) -> None:
    """Write stored runs as training records, token ids and loss masks included: see docs/reference/record.md."""
    if ctx.invoked_subcommand is not None:
        return
    from searchr1.export.run import ExportConfig
    from searchr1.export.run import export as run
    from searchr1.export.schema import record_schema_text
    from searchr1.export.selection import Selection

    if schema:
        typer.echo(record_schema_text(), nl=False)
        return
    if output is None:
        raise SystemExit("searchr1 export: --output is missing. See searchr1 export --help.")
    selection = Selection.parse(ids=id or (), statuses=status or (), since=since, limit=limit)
    config = ExportConfig(
        output=output,
        url=url,
        api_key=chosen_key(api_key, api_key_file),
        input=input,
        selection=selection,
        golden=golden,
        correct=correct,
        each=each,
        data_source=data_source,
        split=split,
        append=append,
        skip_bad=skip_bad,
        force=overwrite or force,
    )
    typer.echo(one_line(str(run(config))))


@export_app.command("verl")
def export_verl(
    config: Annotated[Path, typer.Argument(help="A training run, such as configs/qwen2.5-3b-grpo.yaml.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    data: Annotated[str | None, typer.Option(help="Questions to train on, in place of the file's.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Questions to test on, in place of the file's.")] = None,
    retriever: Annotated[
        str | None, typer.Option(help="URL of the retriever, in place of the file's: http://127.0.0.1:8001/retrieve.")
    ] = None,
    data_dir: DataDir = DATA,
    overwrite: Overwrite = False,
    force: Force = False,
) -> None:
    """Write a folder from which verl runs a training run: data, reward, rollout, settings. See docs/guides/verl.md."""
    from searchr1.export.verl.command import VerlExport
    from searchr1.export.verl.command import export_verl as run

    given = {"data": data, "eval_data": eval_data, "retriever": retriever}
    overrides = {name: value for name, value in given.items() if value is not None}
    force = overwrite or force
    typer.echo(run(VerlExport(config=config, out=out, overrides=overrides, data_dir=data_dir, force=force)))
