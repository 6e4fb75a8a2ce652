"""``searchr1 retriever``: a retriever for other programs."""

from typing import Annotated

import typer

retriever_app = typer.Typer(no_args_is_help=True, help="Offer a retriever to other programs.")


@retriever_app.command("serve")
def retriever_serve(
    retriever: Annotated[str, typer.Argument(help="As of `searchr1 serve`; see docs/guides/search.md.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8001,
    is_open: Annotated[
        bool, typer.Option("--open", help="Without keys, serve others than this machine all the same.")
    ] = False,
) -> None:
    """Offer upstream's POST /retrieve over a retriever or a chain of them, cached as `searchr1 serve` would.

    SEARCHR1_RETRIEVER_API_KEYS closes it to all who do not send one of them. The providers' keys, cache and the rest
    are set by environment variables too: see docs/reference/settings.md.
    """
    from searchr1.http_server.bounds import HttpBounds
    from searchr1.retrieval.server import serve as run
    from searchr1.settings import Settings

    settings = Settings.load(model="none", retriever=retriever)
    keys = [key.get_secret_value() for key in settings.retriever_api_keys]
    bounds = HttpBounds(
        max_connections=settings.max_connections,
        keep_alive_s=settings.keep_alive_s,
        header_timeout_s=settings.header_timeout_s,
        max_header_bytes=settings.max_header_bytes,
    )
    run(settings.search(), host, port, keys=keys, is_open=is_open, bounds=bounds)
