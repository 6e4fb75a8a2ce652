"""``searchr1 export verl``: a training run for another trainer. ``searchr1 export`` itself writes stored runs."""

from pathlib import Path
from typing import Annotated

import typer

export_app = typer.Typer()


@export_app.command("verl")
def export_verl(
    config: Annotated[Path, typer.Argument(help="A training run, such as configs/qwen2.5-3b-grpo.yaml.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    data: Annotated[str | None, typer.Option(help="Questions to train on, in place of the file's.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Questions to test on, in place of the file's.")] = None,
    retriever: Annotated[
        str | None, typer.Option(help="URL of the retriever, in place of the file's: http://127.0.0.1:8000/retrieve.")
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where the demo world's data lies.", envvar="SEARCHR1_DATA_DIR")
    ] = Path("data"),
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
) -> None:
    """Write a folder from which verl runs a training run: data, reward, rollout, settings. See docs/verl.md."""
    from searchr1.export.verl.command import VerlExport
    from searchr1.export.verl.command import export_verl as run

    given = {"data": data, "eval_data": eval_data, "retriever": retriever}
    overrides = {name: value for name, value in given.items() if value is not None}
    typer.echo(run(VerlExport(config=config, out=out, overrides=overrides, data_dir=data_dir, force=force)))
