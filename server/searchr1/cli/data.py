"""``searchr1 data``: files of questions."""

from pathlib import Path
from typing import Annotated

import typer

from searchr1.cli.options import DATA, Data, DataDir, Force, Overwrite, SkipBad
from searchr1.printable import one_line

data_app = typer.Typer(no_args_is_help=True, help="Make files of questions.")


@data_app.command("prepare")
def data_prepare(
    sources: Annotated[
        list[str], typer.Argument(help="atlas, sets such as nq, seven for all, files, folders or hub datasets.")
    ],
    output: Annotated[Path, typer.Option(help="train.parquet for upstream's columns, or questions.jsonl.")],
    split: Annotated[str, typer.Option(help="Read of atlas, folders and hub datasets; written as it is.")] = "train",
    data: Data = None,
    data_dir: DataDir = DATA,
    only: Annotated[list[str] | None, typer.Option(help="Keep this data_source; may be repeated.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out the questions of this source's test split; may be repeated.")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="File of questions with their answers, for exported runs.")
    ] = None,
    data_source: Annotated[str, typer.Option(help="Of questions that name none: it picks the reward.")] = "searchr1",
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Write each question once.")] = False,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Shuffle with this seed.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions, after the shuffle.")] = None,
    limit_each: Annotated[int | None, typer.Option(min=1, help="Most questions of each data_source.")] = None,
    verl: Annotated[bool, typer.Option("--verl", help="Write data_source as verl knows it: searchR1_nq.")] = False,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    force: Force = False,
) -> None:
    """Write questions of one source or many into one file, for training or evaluation: see docs/guides/data.md."""
    from searchr1.data.prepare import PrepareConfig, prepare

    config = PrepareConfig(
        sources=tuple(sources),
        output=output,
        split=split,
        data_dir=data_dir,
        data=data,
        data_sources=frozenset(only or ()),
        exclude=tuple(exclude or ()),
        golden=golden,
        data_source=data_source,
        dedupe=dedupe,
        seed=shuffle,
        limit=limit,
        limit_each=limit_each,
        verl=verl,
        skip_bad=skip_bad,
        force=overwrite or force,
    )
    typer.echo(one_line(str(prepare(config))))
