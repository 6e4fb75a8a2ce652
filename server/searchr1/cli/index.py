"""``searchr1 index``: search indexes on this machine."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from searchr1.printable import one_line

index_app = typer.Typer(no_args_is_help=True, help="Build search indexes.")


@index_app.command("build")
def index_build(
    corpus: Annotated[
        Path,
        typer.Argument(help='JSON Lines or an array, packed or not, of {"id", "contents"} or {"id", "title", "text"}.'),
    ],
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

    info = build_index(corpus, out, overwrite=overwrite, on_ignored=_tell_ignored)
    typer.echo(f"{out}: {info.passages:,} passages, {info.terms:,} terms. Serve it with --retriever index:{out}")


def _index_build_dense(corpus: Path, out: Path, encoder: Path, *, overwrite: bool) -> None:
    from searchr1.retrieval.index.dense import build_dense
    from searchr1.retrieval.index.encoder import HuggingFaceEncoder

    info = build_dense(corpus, out, HuggingFaceEncoder(encoder), overwrite=overwrite, on_ignored=_tell_ignored)
    typer.echo(f"{out}: {info.passages:,} passages. Serve it with --retriever 'dense:{out}?encoder={encoder}'")


def _tell_ignored(fields: Collection[str]) -> None:
    if fields:
        typer.echo(f"Neither searched nor shown: {', '.join(map(one_line, fields))}", err=True)
