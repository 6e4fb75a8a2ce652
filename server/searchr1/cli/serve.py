"""``searchr1 serve``: a model behind the API and the page."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from searchr1.cli.given_settings import load_settings
from searchr1.cli.options import DATA, Config, DataDir


def serve(
    model: Annotated[
        str | None,
        typer.Option(help="A folder, a hub name, or the name that the remote engine serves.", envvar="SEARCHR1_MODEL"),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(
            help="A running vLLM, or several with commas; by default vLLM is started here.",
            envvar="SEARCHR1_ENGINE_URL",
        ),
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An argument of the vLLM that is started here, by vLLM's name; may be given again and again.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A folder or hub name. Default: the model's.", envvar="SEARCHR1_TOKENIZER")
    ] = None,
    retriever: Annotated[
        str | None,
        typer.Option(
            help="http://…/retrieve, index:PATH, tavily:, …, comma-separated; see docs/guides/search.md.",
            envvar="SEARCHR1_RETRIEVER",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1.", envvar="SEARCHR1_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8000.", envvar="SEARCHR1_PORT")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that serve the port; several need --engine-url and SEARCHR1_REDIS_URL. Default: 1.",
            envvar="SEARCHR1_WORKERS",
        ),
    ] = None,
    open_: Annotated[
        bool | None,
        typer.Option("--open", help="Without API keys, serve everyone who reaches the host.", envvar="SEARCHR1_OPEN"),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Serve the bundled model on the Atlas world.", envvar="SEARCHR1_DEMO")
    ] = False,
    demo_wiki: Annotated[
        bool,
        typer.Option(
            "--demo-wiki",
            help="Serve a pretrained model on Wikipedia's leads: make demo-wiki.",
            envvar="SEARCHR1_DEMO_WIKI",
        ),
    ] = False,
    data_dir: DataDir = DATA,
    config: Config = None,
    check: Annotated[bool, typer.Option("--check", help="Check the settings, and start nothing.")] = False,
) -> None:
    """Serve a model: the API, the page and the metrics.

    Everything else is set by environment variables, SEARCHR1_ and the setting's name, or in the file of --config: see
    docs/reference/settings.md. `searchr1 doctor` checks what the settings name as well.
    """
    from searchr1.gateway.access.exposure import check_exposure
    from searchr1.models_file import model_configs

    given: dict[str, Any] = {
        "model": model,
        "engine_url": engine_url,
        "tokenizer": tokenizer,
        "retriever": retriever,
        "host": host,
        "port": port,
        "workers": workers,
        "open": open_,
    }
    given = {name: value for name, value in given.items() if value is not None}
    settings_of_demo, prepare = _demo(data_dir, atlas=demo, wiki=demo_wiki)
    loaded = load_settings(config, given, settings_of_demo)
    more = dict(_engine_arg(written) for written in engine_arg or ())
    settings = loaded.settings.model_copy(update={"engine_args": loaded.settings.engine_args | more})
    if check:
        check_exposure(settings, os.environ)
        model_configs(settings)
        for warning in loaded.warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo("The settings can work.")
        return
    from searchr1.gateway.process import serve_forever  # which takes time that a check should not

    serve_forever(settings, prepare=prepare, warnings=loaded.warnings)


def _demo(data_dir: Path, *, atlas: bool, wiki: bool) -> tuple[dict[str, Any], Callable[[], None] | None]:
    """Return the settings of the demo that is asked for, if any, and what is to be done before it is served."""
    if atlas and wiki:
        raise typer.BadParameter("there is --demo and --demo-wiki. Give one of the two.", param_hint="--demo-wiki")
    if atlas:
        from searchr1.demo.bundle import build_demo, demo_settings

        return demo_settings(data_dir), partial(build_demo, data_dir)
    if wiki:
        from searchr1.demo.wiki.bundle import Place, wiki_settings

        return wiki_settings(Place(data_dir)), None
    return {}, None


def _engine_arg(written: str) -> tuple[str, Any]:
    """Return the name and the value, which is JSON or else text. Raises ``typer.BadParameter``."""
    name, is_there, value = written.partition("=")
    if not is_there or not name.strip(" -"):
        raise typer.BadParameter(f"{written!r} is not NAME=VALUE", param_hint="--engine-arg")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
