"""``searchr1 model``: folders of models, made out of others."""

import typer

from searchr1.cli.adapters import adapter, merge

model_app = typer.Typer(no_args_is_help=True, help="Make folders of models.")
model_app.command("merge")(merge)
model_app.command("adapter")(adapter)
