"""A real training run of a few steps, with the transformers engine, on a world that is made on the spot."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from loadtests.gpu.machine import Machine, Peak
from loadtests.gpu.shapes import write_random
from searchr1.retrieval.index.bm25 import build_index
from searchr1.trainer.metrics import read_metrics
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.rewards import Outcome
from searchr1.trainer.rl.train import train

NUM_TOWNS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """How much a run does."""

    num_steps: int
    questions_per_step: int
    group_size: int
    max_completion_tokens: int


LOAD = Load(num_steps=6, questions_per_step=16, group_size=8, max_completion_tokens=128)
REHEARSED = Load(num_steps=2, questions_per_step=2, group_size=2, max_completion_tokens=8)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step's metrics say, for the page."""

    step: int
    reward: float
    grad_norm: float
    rollout_s: float
    rollout_tokens_per_s: float
    update_s: float
    update_tokens_per_s: float
    """Tokens of trajectories, prompts and observations included, by the seconds of the whole update."""
    sync_s: float


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that has ended."""

    model: str
    is_pretrained: bool
    """False where the folder held no weights, and random ones were trained."""
    num_parameters: int
    load: Load
    steps: tuple[Step, ...]
    moved: float
    """Share of the weights that differ from the start's, in the type that checkpoints have."""
    peak_gib: float | None


def brevity(outcome: Outcome) -> float:
    """Return a reward that any model gets some of: the more, the less it writes in a turn."""
    lengths = [len(text) for text in outcome.completions]
    return 1.0 / (1.0 + sum(lengths) / (200.0 * max(1, len(lengths))))


def run_training(model: Path, folder: Path, machine: Machine, load: Load) -> TrainedRun:
    """Train ``model`` in ``folder``; what it learns is to write less, which takes no knowledge and a few steps.

    A folder without weights stands for random ones of its configuration: the weights of a small model can be too large
    to bring to a machine without a network.

    Raises:
        SearchR1Error: the model can't be had, or the run fails.
    """
    start = _start(model, folder, machine)
    config = TrainConfig.model_validate(_fields(start, folder, machine, load))
    with Peak(machine) as peak:
        asyncio.run(train(config, progress=False))
    steps = [_step(record) for record in read_metrics(config.out_dir / "metrics.jsonl") if record["step"]]
    before, after = (_weights(path) for path in (start, config.out_dir / "checkpoint"))
    shared = before.keys() & after.keys()
    num_moved = sum(int((before[name].to(after[name].dtype) != after[name]).sum()) for name in shared)
    num_parameters = sum(after[name].numel() for name in shared)
    moved = num_moved / num_parameters
    return TrainedRun(model.name, start == model, num_parameters, load, tuple(steps), moved, peak.gib)


def _start(model: Path, folder: Path, machine: Machine) -> Path:
    if any(model.glob("*.safetensors")) or not (model / "config.json").is_file():
        return model
    from transformers import AutoConfig

    write_random(AutoConfig.from_pretrained(model), model, folder / "start", torch.device(machine.torch_device))
    return folder / "start"


def _fields(model: Path, folder: Path, machine: Machine, load: Load) -> dict[str, Any]:
    questions = [
        {"id": f"town-{number}", "question": f"In which country is town {number}?", "golden_answers": ["Mali"]}
        for number in range(NUM_TOWNS)
    ]
    passages = [
        {"id": str(number), "contents": f'"Town {number}"\nTown {number} is a town in country {number % 7}.'}
        for number in range(NUM_TOWNS)
    ]
    for name, rows in (("questions", questions), ("corpus", passages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    build_index(folder / "corpus.jsonl", folder / "index", progress=False)
    return {
        "algorithm": "grpo",
        "model": str(model),
        "data": str(folder / "questions.jsonl"),
        "retriever": f"index:{folder / 'index'}",
        "out_dir": str(folder / "run"),
        "reward": f"{__name__}:brevity",
        "num_steps": load.num_steps,
        "device": machine.torch_device,
        "rollout": {
            "questions_per_step": load.questions_per_step,
            "group_size": load.group_size,
            "max_turns": 2,
            "max_completion_tokens": load.max_completion_tokens,
            "max_concurrent": load.questions_per_step * load.group_size,
            "engine": "transformers",
        },
        "optimizer": {"lr": 2e-5, "warmup": 0.0, "num_minibatches": 2, "max_tokens_per_pass": 16_384},
    }


def _step(record: dict[str, float | None]) -> Step:
    def value(name: str) -> float:
        found = record.get(name)
        return float("nan") if found is None else found

    tokens = value("trajectory_tokens") * value("num_rollouts")
    return Step(
        step=int(value("step")),
        reward=value("reward_mean"),
        grad_norm=value("grad_norm"),
        rollout_s=value("rollout_s"),
        rollout_tokens_per_s=value("rollout_tokens_per_s"),
        update_s=value("update_s"),
        update_tokens_per_s=tokens / value("update_s"),
        sync_s=value("sync_s"),
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
