"""The ``searchr1`` command. Each subcommand imports what it needs when it runs, so that ``--help`` stays quick."""

import sys
from typing import NoReturn

import typer
from pydantic import ValidationError

from searchr1.cli.ask.command import EPILOG, ask
from searchr1.cli.data import data_app
from searchr1.cli.demo import demo_app
from searchr1.cli.evaluate import eval_app
from searchr1.cli.export import export_app
from searchr1.cli.index import index_app
from searchr1.cli.retriever import retriever_app
from searchr1.cli.serve import serve
from searchr1.cli.train import train_app
from searchr1.errors import ConfigurationError, SearchR1Error

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve, ask, evaluate and train Search-R1 models.")
app.command()(serve)
app.command(epilog=EPILOG)(ask)
app.add_typer(eval_app, name="eval")
app.add_typer(index_app, name="index")
app.add_typer(retriever_app, name="retriever")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(export_app, name="export")
app.add_typer(demo_app, name="demo")


WRONG_USE = 2
"""Exit status where the command line or a setting is wrong, as typer has it."""


def main() -> None:
    """Run the command; errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except ConfigurationError as error:
        _refuse(str(error))
    except SearchR1Error as error:
        sys.exit(f"searchr1: {error}")
    except ValidationError as error:
        from searchr1.settings import explained

        _refuse(f"a setting is wrong: {explained(error)}")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"searchr1: {' '.join(message.split())}", err=True)
    sys.exit(WRONG_USE)


if __name__ == "__main__":
    main()
