"""``searchr1 data``: files of questions."""

from pathlib import Path
from typing import Annotated, Literal

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


@data_app.command("demonstrations")
def data_demonstrations(
    sources: Annotated[list[str], typer.Argument(help="Questions to train on: files, folders, or sets such as nq.")],
    index: Annotated[Path, typer.Option(help="The BM25 index that is searched: searchr1 index build.")],
    held_out: Annotated[
        list[str], typer.Option(help="Questions that will be scored, of which nothing may be shown; may be repeated.")
    ],
    tokenizer: Annotated[str, typer.Option(help="The model that will learn them: a folder or hub name.")],
    output: Annotated[Path, typer.Option(help="The JSON Lines to write; searchr1 train sft reads them.")],
    kind: Annotated[
        Literal["form", "hops"],
        typer.Option(help="form: one search, for the question itself; hops: a search for each hop."),
    ] = "form",
    split: Annotated[str, typer.Option(help="Read of folders and hub datasets.")] = "train",
    decompositions: Annotated[
        Path | None, typer.Option(help="JSON Lines with question_decomposition by id, as MuSiQue has them, for hops.")
    ] = None,
    profile: Annotated[str, typer.Option(help="The format in which the model will search.")] = "search-r1",
    top_k: Annotated[int, typer.Option(min=1, help="Most passages of a search.")] = 3,
    max_observation_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an observation, as served.")] = 500,
    fit: Annotated[
        bool, typer.Option("--fit/--teach-cut", help="Show fewer passages where they do not fit, or teach the cut.")
    ] = True,
    vary: Annotated[
        bool, typer.Option("--vary", help="Show from one to --top-k passages: shorter samples, more of them an hour.")
    ] = False,
    title_share: Annotated[
        float, typer.Option(min=0, max=1, help="Most demonstrations whose answer is a shown passage's title.")
    ] = 0.1,
    limit: Annotated[int | None, typer.Option(min=1, help="Most demonstrations, chosen by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write demonstrations of searching for questions, checked for leaks: see docs/guides/starts.md."""
    from searchr1.starts.demonstrations import StartConfig, build_start

    config = StartConfig(
        sources=tuple(sources),
        index=index,
        held_out=tuple(held_out),
        tokenizer=tokenizer,
        output=output,
        kind=kind,
        split=split,
        decompositions=decompositions,
        profile=profile,
        top_k=top_k,
        max_observation_tokens=max_observation_tokens,
        fit=fit,
        vary=vary,
        title_share=title_share,
        limit=limit,
        seed=seed,
        force=overwrite,
    )
    for line in str(build_start(config)).splitlines():
        typer.echo(one_line(line))
