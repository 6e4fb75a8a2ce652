"""The ``searchr1`` command. Each subcommand imports what it needs when it runs, so that ``--help`` stays quick."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from searchr1.cli.evaluate import eval_app
from searchr1.cli.export import export_app
from searchr1.cli.options import with_run_options
from searchr1.cli.train import train_app
from searchr1.errors import SearchR1Error

if TYPE_CHECKING:
    from searchr1_client import RunOptions

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve, ask, evaluate and train Search-R1 models.")
index_app = typer.Typer(no_args_is_help=True, help="Build search indexes.")
retriever_app = typer.Typer(no_args_is_help=True, help="Offer a retriever to other programs.")
data_app = typer.Typer(no_args_is_help=True, help="Make files of questions.")
demo_app = typer.Typer(no_args_is_help=True, help="The bundled demo world, Atlas.")
app.add_typer(eval_app, name="eval")
app.add_typer(index_app, name="index")
app.add_typer(retriever_app, name="retriever")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(export_app, name="export")
app.add_typer(demo_app, name="demo")

DATA = Path("data")
URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(help="The gateway's address.", envvar="SEARCHR1_URL")]
ApiKey = Annotated[str | None, typer.Option(help="Its API key, if it asks for one.", envvar="SEARCHR1_API_KEY")]
DataDir = Annotated[Path, typer.Option(help="Where the demo world's data lies.", envvar="SEARCHR1_DATA_DIR")]
Data = Annotated[
    str | None,
    typer.Option(help="File, folder or hub dataset with the seven sets.", show_default="PeterJinGo/nq_hotpotqa_train"),
]

ASK_EPILOG = (
    "Exit codes: 0 answered; 1 the run ended without an answer; 2 usage; 3 the server can't be reached; 4 it refuses "
    "the request; 5 the run or the server failed; 130 Ctrl-C; 141 standard output can't be written."
)


@app.command()
def serve(
    model: Annotated[
        str | None,
        typer.Option(help="A folder, a hub name, or the name that the remote engine serves.", envvar="SEARCHR1_MODEL"),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(help="A running vLLM; without it, vLLM is started here.", envvar="SEARCHR1_ENGINE_URL"),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A folder or hub name. Default: the model's.", envvar="SEARCHR1_TOKENIZER")
    ] = None,
    retriever: Annotated[
        str | None,
        typer.Option(
            help="http://…/retrieve, index:PATH, tavily:, …, comma-separated; see docs/search.md.",
            envvar="SEARCHR1_RETRIEVER",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1.", envvar="SEARCHR1_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8000.", envvar="SEARCHR1_PORT")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Serve the bundled model on the Atlas world.", envvar="SEARCHR1_DEMO")
    ] = False,
    data_dir: DataDir = DATA,
) -> None:
    """Serve a model: the API, the page and the metrics.

    Everything else is set by environment variables, SEARCHR1_ and the setting's name: see docs/settings.md.
    """
    from searchr1.cli.serve import serve_forever
    from searchr1.demo.bundle import demo_settings
    from searchr1.settings import Settings

    given: dict[str, Any] = {
        "model": model,
        "engine_url": engine_url,
        "tokenizer": tokenizer,
        "retriever": retriever,
        "host": host,
        "port": port,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if demo:
        given = demo_settings(data_dir) | given
    for name in ("model", "retriever"):
        if name not in given:
            raise SystemExit(f"searchr1 serve: --{name} is missing. Give it, or use --demo. See searchr1 serve --help.")
    serve_forever(Settings.load(**given))


@app.command(epilog=ASK_EPILOG)
@with_run_options
def ask(
    question: Annotated[
        str | None, typer.Argument(help="What to find out. '-', or nothing before a pipe, reads standard input.")
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run as one JSON object.")] = False,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="Print every event as it comes, one JSON a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone, and errors.")] = False,
    show_thinking: Annotated[
        bool, typer.Option("--show-thinking", help="Show the reasoning as it is written.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option("--after", "--follow-up", metavar="RUN_ID", help="Ask it after this run's question and answer."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Show this run again, or take it up where it is.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Run this run again with the searches of its record.")
    ] = None,
    *,
    options: "RunOptions",
) -> None:
    """Ask one question: the answer goes to stdout, the steps to stderr. Ctrl-C cancels the run on the server.

    More in docs/cli.md.
    """
    from searchr1.cli.ask import Ask, UsageError, chosen_format, chosen_subject
    from searchr1.cli.ask import ask as run

    try:
        call = Ask(
            chosen_subject(question, sys.stdin, resume=resume, replay=replay),
            url=url,
            api_key=api_key,
            options=options if after is None else {**options, "previous_run_id": after},
            format=chosen_format(json=json, ndjson=ndjson, quiet=quiet),
            show_thinking=show_thinking,
        )
        raise SystemExit(run(call))
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error


@export_app.callback(invoke_without_command=True)
def export(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option(help="runs.jsonl for whole runs, runs.parquet for upstream's columns.")
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
    input: Annotated[Path | None, typer.Option(help="JSON lines of runs, read in place of a gateway.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="A run to export; may be repeated. Default: all.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="completed, exhausted, …; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Runs from this ISO date or time on; UTC without a zone.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest runs only; of --input, the first.")] = None,
    golden: Annotated[
        Path | None, typer.Option(help='JSON lines of {"question", "golden_answers"} for the parquet.')
    ] = None,
    data_source: Annotated[str, typer.Option(help="Upstream's data_source: it picks the reward.")] = "searchr1",
    split: Annotated[str, typer.Option(help="Upstream's extra_info.split.")] = "train",
    append: Annotated[bool, typer.Option("--append", help="Add to a .jsonl the runs that it lacks.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an output that is there.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a run instead.")] = False,
) -> None:
    """Write stored runs as training records, token ids and loss masks included: see docs/record.md."""
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
        api_key=api_key,
        input=input,
        selection=selection,
        golden=golden,
        data_source=data_source,
        split=split,
        append=append,
        force=force,
    )
    typer.echo(str(run(config)))


@index_app.command("build")
def index_build(
    corpus: Annotated[Path, typer.Argument(help='JSON lines of {"id", "contents"}; contents: title line, then text.')],
    out: Annotated[Path, typer.Argument(help="The index's folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    dense: Annotated[
        Path | None, typer.Option(help="Index vectors instead: the folder of an ONNX encoder with its tokenizer.")
    ] = None,
) -> None:
    """Index a corpus for BM25 search, or with --dense for search by vectors."""
    if dense is not None:
        _index_build_dense(corpus, out, dense, overwrite=overwrite)
        return
    from searchr1.retrieval.index.bm25 import build_index

    info = build_index(corpus, out, overwrite=overwrite)
    typer.echo(f"{out}: {info.passages:,} passages, {info.terms:,} terms. Serve it with --retriever index:{out}")


def _index_build_dense(corpus: Path, out: Path, encoder: Path, *, overwrite: bool) -> None:
    from searchr1.retrieval.index.dense import build_dense
    from searchr1.retrieval.index.encoder import HuggingFaceEncoder

    info = build_dense(corpus, out, HuggingFaceEncoder(encoder), overwrite=overwrite)
    typer.echo(f"{out}: {info.passages:,} passages. Serve it with --retriever 'dense:{out}?encoder={encoder}'")


@retriever_app.command("serve")
def retriever_serve(
    retriever: Annotated[str, typer.Argument(help="As of `searchr1 serve`; see docs/search.md.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8001,
) -> None:
    """Offer upstream's POST /retrieve over a retriever or a chain of them, cached as `searchr1 serve` would.

    Keys, cache and the rest are set by environment variables: see docs/settings.md.
    """
    from searchr1.retrieval.server import serve as run
    from searchr1.settings import Settings

    run(Settings.load(model="none", retriever=retriever).search(), host, port)


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
        Path | None, typer.Option(help='JSON lines of {"question", "golden_answers"} for exported runs.')
    ] = None,
    data_source: Annotated[str, typer.Option(help="Of questions that name none: it picks the reward.")] = "searchr1",
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Write each question once.")] = False,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Shuffle with this seed.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions, after the shuffle.")] = None,
    limit_each: Annotated[int | None, typer.Option(min=1, help="Most questions of each data_source.")] = None,
    verl: Annotated[bool, typer.Option("--verl", help="Write data_source as verl knows it: searchR1_nq.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an output that is there.")] = False,
) -> None:
    """Write questions of one source or many into one file, for training or evaluation: see docs/data.md."""
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
        force=force,
    )
    typer.echo(str(prepare(config)))


@demo_app.command("build")
def demo_build(
    data_dir: DataDir = DATA,
    demonstrations: Annotated[int, typer.Option(help="Demonstrations for the warm-up; 0 writes the world alone.")] = 0,
    renamed_worlds: Annotated[
        int, typer.Option(min=0, help="Worlds with new names that half of the demonstrations come from.")
    ] = 0,
    renamed_share: Annotated[
        float,
        typer.Option(min=0.1, max=1, help="Share of a renamed world's countries that are renamed and asked about."),
    ] = 1.0,
    readings: Annotated[
        int, typer.Option(min=0, help="Readings for the warm-up: passages and what they say, of still other worlds.")
    ] = 0,
    renamed: Annotated[
        bool, typer.Option("--renamed", help="Write the train split alone, all names new: what rewards are drawn from.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the questions, demonstrations and new names.")] = 0,
) -> None:
    """Write the Atlas world: corpus, questions, and demonstrations if asked for."""
    from searchr1.atlas.build import build, build_renamed, build_world

    if renamed and demonstrations:
        raise SystemExit("searchr1 demo build: --renamed writes no demonstrations. Give one of the two.")
    if (renamed_worlds or readings) and not demonstrations:
        raise SystemExit(
            "searchr1 demo build: --renamed-worlds and --readings add to demonstrations. Give --demonstrations too."
        )
    if renamed_share < 1 and not renamed_worlds:
        raise SystemExit("searchr1 demo build: --renamed-share is of renamed worlds. Give --renamed-worlds too.")
    atlas = data_dir / (f"atlas-renamed-{seed}" if renamed else "atlas")
    if renamed:
        written = build_renamed(atlas, seed=seed)
    elif demonstrations:
        report = build(
            atlas,
            num_demonstrations=demonstrations,
            num_renamed_worlds=renamed_worlds,
            renamed_share=renamed_share,
            num_readings=readings,
            seed=seed,
        )
        written = report.written
    else:
        written = build_world(atlas, seed=seed)
    for name, lines in written.items():
        typer.echo(f"{atlas / name}: {lines:,} lines")


def main() -> None:
    """The entry point: errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except SearchR1Error as error:
        sys.exit(f"searchr1: {error}")
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        sys.exit(f"searchr1: a setting is wrong: {problems}")


if __name__ == "__main__":
    main()
