"""``searchr1 model merge`` and ``searchr1 model adapter``: adapters into models, and out of them."""

from pathlib import Path
from typing import Annotated

import typer

from searchr1.cli.options import Overwrite


def merge(
    base: Annotated[Path, typer.Argument(help="The folder of the model that the adapter was trained on.")],
    adapters: Annotated[
        list[Path], typer.Argument(metavar="ADAPTER...", help="Folders as PEFT lays them out, in order.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder of the model to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Add LoRA adapters to a model's weights; searchr1 serve --model takes the result as it is."""
    from searchr1.trainer.adapters import merge, read_adapter

    merge(base, [read_adapter(adapter) for adapter in adapters], out, overwrite=overwrite)
    typer.echo(f"{out}: {base} with {len(adapters)} added. Serve it with --model {out}")


def adapter(
    source: Annotated[Path, typer.Argument(help="The out_dir of a training run with lora; with --base, a model.")],
    out: Annotated[Path, typer.Argument(help="The adapter's folder, as PEFT lays one out.")],
    base: Annotated[
        Path | None,
        typer.Option(help="SOURCE is a model that was trained whole from this one: keep what a low rank holds of it."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="With --base: the adapter's rank.")] = 32,
    overwrite: Overwrite = False,
) -> None:
    """Write what training learned as a LoRA adapter, in bfloat16: megabytes instead of a whole model."""
    from searchr1.trainer.adapters import adapter_of_run, write_adapter

    if base is None:
        num_bytes = write_adapter(adapter_of_run(source), out, overwrite=overwrite)
        typer.echo(f"{out}: {num_bytes:,} bytes")
        return
    from searchr1.trainer.low_rank import low_rank_adapter
    from searchr1.trainer.rl.sections import LoraSection

    found, share = low_rank_adapter(base, source, LoraSection(rank=rank, alpha=float(rank)))
    num_bytes = write_adapter(found, out, overwrite=overwrite)
    typer.echo(f"{out}: {num_bytes:,} bytes, {share:.1%} of the squared difference between {source} and {base}")
