"""The ``searchr1`` command. Each subcommand imports what it needs when it runs, so that ``--help`` stays quick."""

import sys
from collections.abc import Mapping
from typing import Any

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
from searchr1.errors import SearchR1Error

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


def main() -> None:
    """Run the command; errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except SearchR1Error as error:
        sys.exit(f"searchr1: {error}")
    except ValidationError as error:
        sys.exit(f"searchr1: a setting is wrong: {'; '.join(map(_problem, error.errors()))}")


def _problem(fault: Mapping[str, Any]) -> str:
    """Word one fault that pydantic found; one that lies between settings names them itself."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, [".".join(map(str, fault["loc"])), message]))


if __name__ == "__main__":
    main()
