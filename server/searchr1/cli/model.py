"""``searchr1 model``: folders of models."""

from pathlib import Path
from typing import Annotated

import typer

from searchr1.cli.adapters import adapter, merge
from searchr1.cli.options import Overwrite
from searchr1.printable import one_line

model_app = typer.Typer(no_args_is_help=True, help="Make folders of models that can be served and trained.")


@model_app.callback()
def model() -> None:
    """Make folders of models that can be served and trained."""


@model_app.command("from-gguf")
def model_from_gguf(
    file: Annotated[Path, typer.Argument(help="A GGUF file of a language model.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: Hugging Face's layout, in bfloat16.")],
    overwrite: Overwrite = False,
    progress: Annotated[bool, typer.Option(help="Say what is being done.")] = True,
) -> None:
    """Unpack a GGUF file into a folder that vLLM serves: see docs/guides/starts.md."""
    from searchr1.trainer.gguf import convert

    converted = convert(
        file, out, overwrite=overwrite, progress=progress, tell=lambda said: typer.echo(one_line(said), err=True)
    )
    typer.echo(one_line(str(converted)))


model_app.command("merge")(merge)
model_app.command("adapter")(adapter)
