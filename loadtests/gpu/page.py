"""The figures as a page, and as JSON beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.gpu.machine import Machine
from loadtests.gpu.timing import Timing, Work
from loadtests.gpu.training import TrainedRun
from searchr1.files import whole_file


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one run."""

    date: str
    command: str
    machine: Machine
    wall_s: float
    training: TrainedRun
    work: Work
    timings: tuple[Timing, ...]


def write_result(result: Result, folder: Path) -> tuple[Path, Path]:
    """Write ``gpu.json`` and ``gpu.md`` into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"gpu.json": json.dumps(asdict(result), indent=2) + "\n", "gpu.md": page(result)}
    for name, text in texts.items():
        with whole_file(folder / name) as file:
            file.write(text.encode())
    return folder / "gpu.json", folder / "gpu.md"


def page(result: Result) -> str:
    """Return the page in Markdown."""
    return "\n".join([*_head(result), "", *_training(result.training), "", *_timings(result.timings, result.work), ""])


def _head(result: Result) -> list[str]:
    machine = result.machine
    if machine.memory_gib is None:
        kind = "a rehearsal in small on a CPU: the figures mean nothing but that everything ran"
    else:
        kind = f"{machine.memory_gib:.0f} GiB, CUDA {machine.cuda}"
    return [
        f"# The trainer on {machine.device}",
        "",
        f"This page has what one run of `{result.command}` measured on {machine.host}, {result.date}: {machine.device} "
        f"({kind}), torch {machine.torch}. It took {result.wall_s:.0f} s.",
    ]


def _training(run: TrainedRun) -> list[str]:
    load = run.load
    rows = [
        [
            str(step.step),
            f"{step.reward:.3f}",
            f"{step.grad_norm:.3g}",
            _seconds(step.rollout_s),
            f"{step.rollout_tokens_per_s:,.0f}",
            _seconds(step.update_s),
            f"{step.update_tokens_per_s:,.0f}",
            _seconds(step.sync_s),
        ]
        for step in run.steps
    ]
    head = ["step", "reward", "gradient norm", "rollouts", "tokens/s", "update", "tokens/s", "weights to the engine"]
    return [
        f"## A run of {run.model}",
        "",
        f"{run.num_parameters:,} {'pretrained' if run.is_pretrained else 'random'} parameters, GRPO, transformers "
        "engine: "
        f"a step has {load.questions_per_step} questions of {load.group_size} rollouts, a turn at most "
        f"{load.max_completion_tokens} tokens. The reward is the higher the less is written. "
        f"{run.moved:.1%} of the weights moved{_peak(run.peak_gib)}.",
        "",
        *_table(head, rows),
    ]


def _timings(timings: Sequence[Timing], work: Work) -> list[str]:
    rows = [
        [
            timing.shape,
            f"{timing.num_parameters:,}" if timing.num_parameters else "–",
            _count(timing.rollout_tokens_per_s),
            _gib(timing.rollout_peak_gib),
            _count(timing.update_tokens_per_s),
            "–" if timing.update_s is None else _seconds(timing.update_s),
            _gib(timing.kept_gib),
            _gib(timing.added_gib),
            _gib(timing.update_peak_gib),
            timing.left_out or "",
        ]
        for timing in timings
    ]
    head = [
        *("shape", "parameters", "rollout, tokens/s", "peak", "update, tokens/s", "update"),
        *("kept, estimated", "added, estimated", "peak", "left out"),
    ]
    return [
        "## Rollout and update by size",
        "",
        "Qwen2.5's shapes with random weights. "
        f"Rollouts: {work.num_completions} completions of {work.completion_tokens} tokens at once after prompts of "
        f"{work.prompt_tokens}, transformers engine, bfloat16, alone on the device. "
        f"Update: GRPO with its reference, {work.num_groups} groups of {work.group_size} trajectories with "
        f"{work.completion_tokens} sampled tokens and {work.observation_tokens} put in, "
        f"{work.max_tokens_per_pass:,} tokens a pass, activation checkpointing. "
        "Estimates are those of docs/guides/distributed-training.md (`searchr1.trainer.rl.memory_estimate`), without "
        "engine and CUDA's context, as is the peak.",
        "",
        *_table(head, rows),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _peak(gib: float | None) -> str:
    return "" if gib is None else f"; the peak of what torch had allocated, engine included, was {gib:.1f} GiB"


def _gib(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} GiB"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"
