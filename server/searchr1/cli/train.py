"""``searchr1 train``: the trainer's commands."""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from searchr1.trainer.rl.config import TrainConfig

T = TypeVar("T")


class _FileFirst(TyperGroup):
    """Lets ``searchr1 train FILE`` stand for ``searchr1 train run FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


train_app = typer.Typer(
    cls=_FileFirst, no_args_is_help=True, help="Train checkpoints: searchr1 train configs/atlas-grpo.yaml"
)


@train_app.command("run")
def train_run(
    # Looked for before torch is imported, as its fields are.
    file: Annotated[
        Path, typer.Argument(help="A YAML file, such as configs/atlas-grpo.yaml.", exists=True, dir_okay=False)
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another value for a field: optimizer.lr=1e-5. Repeatable.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train by reinforcement learning what FILE describes; a run that is in its out_dir goes on."""
    config = _configured(file, set_)
    # What is wrong with the file is told by now: this imports torch and transformers, which takes seconds.
    from searchr1.trainer.rl.train import train

    _run(train(config, progress=progress))
    if os.environ.get("RANK", "0") == "0":
        typer.echo(closing_line(config.out_dir, f"--retriever {config.retriever}"))


@train_app.command("sample")
def train_sample(
    file: Annotated[Path, typer.Argument(help="A YAML file, as of searchr1 train run.", exists=True, dir_okay=False)],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another value for a field: out_dir=runs/sampled. Repeatable.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Roll out what FILE's steps would, by its model as it is, and keep it all: for rejection sampling."""
    config = _configured(file, set_)
    from searchr1.trainer.rl.sampling import sample

    typer.echo(_run(sample(config, progress=progress)))


def _configured(file: Path, set_: list[str] | None) -> "TrainConfig":
    """Read a training file, and have every logger write to stderr from now on."""
    from searchr1.trainer.rl.config import load_config, parse_overrides

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return load_config(file, parse_overrides(set_ or []))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; a SIGTERM cancels it, so that no engine is left behind."""

    async def stoppable() -> T:
        task = asyncio.current_task()
        assert task is not None
        # Python's own answer to SIGTERM is to vanish, and the engine would stay.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def closing_line(out_dir: Path, options: str) -> str:
    """Return what a run ended with: its steps, its first and last exact match, and how to serve its checkpoint.

    ``options`` are those of ``searchr1 serve`` beside ``--model``.
    """
    from searchr1.trainer.metrics import FILE, read_metrics

    records = read_metrics(out_dir / FILE)
    scores = [score for record in records if (score := record.get("eval_em")) is not None]
    scored = f", EM {scores[0]:.3f} before and {scores[-1]:.3f} after" if len(scores) > 1 else ""
    serve = f"searchr1 serve --model {out_dir / 'checkpoint'} {options}"
    best = out_dir / "checkpoint-best"
    kept = f"\nThe one that scored best is {best}" if best.is_dir() else ""
    return f"{records[-1]['step']:.0f} steps done{scored}. Serve the checkpoint with: {serve}{kept}"


@train_app.command("memory")
def train_memory(
    files: Annotated[
        list[Path], typer.Argument(help="YAML files, such as configs/qwen2.5-7b-ppo.yaml.", exists=True, dir_okay=False)
    ],
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="GPUs of the machine. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another value for a field, in all files. Repeatable.")
    ] = None,
) -> None:
    """Estimate the memory that runs take on each GPU, in GiB, and the size of GPU that is enough for them."""
    from searchr1.trainer.rl.config import load_config, parse_overrides
    from searchr1.trainer.rl.memory_estimate import memory_table

    overrides = parse_overrides(set_ or [])
    typer.echo(memory_table(files, [load_config(file, overrides) for file in files], gpus or [1, 4, 8]))


@train_app.command("plot")
def train_plot(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of runs, or LABEL=FOLDER; runs with the same label are its seeds.")
    ],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("curves.png"),
) -> None:
    """Draw runs against each other, with the spread over seeds, and print a table of what they gained."""
    from searchr1.trainer.curves import plot_runs, summarize_runs

    groups: dict[str, list[Path]] = {}
    for run in runs:
        label, _, folder = run.rpartition("=")
        groups.setdefault(label or Path(folder).name, []).append(Path(folder))
    plot_runs(groups, out)
    typer.echo(summarize_runs(groups))


@train_app.command("sft")
def train_sft(
    file: Annotated[
        Path, typer.Argument(help="A YAML file, such as configs/sft/smollm2-form.yaml.", exists=True, dir_okay=False)
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another value for a field: max_minutes=20. Repeatable.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Fine-tune a pretrained model as FILE describes, on what it shall imitate; a run in its out_dir goes on."""
    from searchr1.trainer.rl.config import load_section, parse_overrides
    from searchr1.trainer.sft.config import SftConfig

    config = load_section(SftConfig, file, parse_overrides(set_ or []))
    # What is wrong with the file is told by now: this imports torch and transformers, which takes seconds.
    from searchr1.trainer.sft.train import fine_tune

    fine_tune(config, progress=progress)
    typer.echo(f"Serve the checkpoint with: searchr1 serve --model {config.out_dir / 'checkpoint'} --retriever …")


@train_app.command("warmup")
def train_warmup(
    out: Annotated[Path, typer.Option(help="The run's folder; a run that is there goes on.")] = Path("runs/warmup"),
    data: Annotated[
        Path, typer.Option(help="Folder with the demonstrations: searchr1 demo build --demonstrations N.")
    ] = Path("data/atlas"),
    start: Annotated[Path | None, typer.Option(help="A checkpoint of an earlier warm-up to go on from.")] = None,
    hidden_size: Annotated[
        int | None, typer.Option(min=64, help="Width, a multiple of 64; that of --start, which can grow, or 256.")
    ] = None,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="Layers; as many as --start has, which can grow, or 5.")
    ] = None,
    guess: Annotated[float, typer.Option(min=0, max=1, help="Share of demonstrations that answer unsearched.")] = 0.0,
    stop_early: Annotated[
        float, typer.Option(min=0, max=1, help="Share of hops, but the last, at which a demonstration stops.")
    ] = 0.0,
    num_demonstrations: Annotated[int | None, typer.Option(min=1, help="Demonstrations to train on; all.")] = None,
    first_turns: Annotated[
        float, typer.Option(min=0, max=1, help="Share of demonstrations cut after their first turn.")
    ] = 0.0,
    drill: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the run, from its start, with a copying drill beside it.")
    ] = 1.0,
    drill_size: Annotated[int, typer.Option(min=1, help="Rows of the drill per step, about 200 tokens each.")] = 8,
    readings: Annotated[
        int, typer.Option(min=0, help="Readings per step: searchr1 demo build --readings N writes them.")
    ] = 0,
    muon_lr: Annotated[
        float, typer.Option(min=0, help="Peak learning rate of the weight matrices, Muon's; 0: AdamW's.")
    ] = 0.01,
    adamw_lr: Annotated[float, typer.Option(min=0, help="Peak learning rate of everything else.")] = 1e-3,
    decay: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the run over which rates fall.")] = 0.6,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps of the whole run.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.1, help="Minutes of training in all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Demonstrations per step.")] = 16,
    processes: Annotated[int, typer.Option(min=1, help="Data-parallel processes; on a CPU one per core.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the model: faster after some minutes; needs a C++ compiler.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the data.")] = 0,
) -> None:
    """Train a small model to search and read, on demonstrations: from scratch, or from --start."""
    from searchr1.atlas.habits import Habits
    from searchr1.trainer.warmup.config import WarmupConfig
    from searchr1.trainer.warmup.growth import choose_shape
    from searchr1.trainer.warmup.train import warmup

    warmup(
        WarmupConfig(
            data_dir=data,
            out_dir=out,
            shape=choose_shape(start, hidden_size=hidden_size, num_layers=num_layers),
            start=start,
            habits=Habits(guess=guess, stop_early=stop_early),
            num_demonstrations=num_demonstrations,
            first_turns=first_turns,
            drill=drill,
            drill_size=drill_size,
            readings_size=readings,
            compile=compile_model,
            muon_lr=muon_lr,
            adamw_lr=adamw_lr,
            decay=decay,
            max_steps=max_steps,
            max_minutes=max_minutes,
            batch_size=batch_size,
            num_processes=processes,
            device=device,
            seed=seed,
        )
    )
    world = f" --data-dir {data.parent}" if data.name == "atlas" else ""
    typer.echo(closing_line(out, f"--demo{world}"))
