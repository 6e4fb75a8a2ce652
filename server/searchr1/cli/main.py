"""The ``searchr1`` command. Each subcommand imports what it needs when it runs, so that ``--help`` stays quick."""

import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from searchr1.cli.ask.command import EPILOG, ask
from searchr1.cli.data import data_app
from searchr1.cli.demo import demo_app
from searchr1.cli.doctor import doctor
from searchr1.cli.evaluate import eval_app
from searchr1.cli.export import export_app
from searchr1.cli.faults import told
from searchr1.cli.index import index_app
from searchr1.cli.keys import keys_app
from searchr1.cli.model import model_app
from searchr1.cli.retriever import retriever_app
from searchr1.cli.serve import serve
from searchr1.cli.train import train_app
from searchr1.errors import ConfigurationError
from searchr1.printable import one_line

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(serve)
app.command()(doctor)
app.command(epilog=EPILOG)(ask)
app.add_typer(eval_app, name="eval")
app.add_typer(index_app, name="index")
app.add_typer(retriever_app, name="retriever")
app.add_typer(keys_app, name="keys")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(train_app, name="train")
app.add_typer(export_app, name="export")
app.add_typer(demo_app, name="demo")


WRONG_USE = 2
"""Exit status where the command line or a setting is wrong, as typer has it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from searchr1_client import __version__  # which takes the time that `--help` should not

        typer.echo(f"searchr1 {__version__}")
        raise typer.Exit


@app.callback()
def searchr1(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Serve, ask, evaluate and train Search-R1 models."""


def main() -> None:
    """Run the command; errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except Exception as error:  # the boundary of the process: what is no user's to mend goes on as it is
        message = told(error)
        if message is None:
            raise
        typer.echo(f"searchr1: {one_line(message)}", err=True)
        sys.exit(WRONG_USE if isinstance(error, ConfigurationError | ValidationError) else 1)


if __name__ == "__main__":
    main()
