"""``searchr1 retriever``: a retriever for other programs."""

from typing import Annotated

import typer

retriever_app = typer.Typer(no_args_is_help=True, help="Offer a retriever to other programs.")


@retriever_app.command("serve")
def retriever_serve(
    retriever: Annotated[str, typer.Argument(help="As of `searchr1 serve`; see docs/guides/search.md.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8001,
) -> None:
    """Offer upstream's POST /retrieve over a retriever or a chain of them, cached as `searchr1 serve` would.

    Keys, cache and the rest are set by environment variables: see docs/reference/settings.md.
    """
    from searchr1.retrieval.server import serve as run
    from searchr1.settings import Settings

    run(Settings.load(model="none", retriever=retriever).search(), host, port)
