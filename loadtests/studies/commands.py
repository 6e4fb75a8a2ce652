"""The commands of each run: its configuration, with what the arm, the scale and the command line have otherwise."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from loadtests.studies.plan import Run, World, runs_folder, world_named
from searchr1.errors import ConfigurationError

_LEAST_STEPS, _LEAST_QUESTIONS = 2, 2
RIGHT = "right.jsonl"
"""Right rollouts of a rejection sampling, in its run's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line says of files and sizes."""

    out: Path
    scale: float = 1.0
    """Share of the steps, of the questions a step and of those of an evaluation, for a slow machine."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """Configurations in place of the plan's, by ``WORLD-ALGORITHM``."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Folders of starts in place of the plan's, by name."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Settings of all rollouts of a world: ``NAME=VALUE``."""

    def start_of(self, world: World, start: str) -> Path:
        """Return the folder of a start."""
        return Path((self.starts.get(start) or world.starts[start]).format(runs=runs_folder(self.out)))

    def config_of(self, run: Run) -> str:
        """Return the configuration of a run, or the words of its fine-tuning."""
        world = world_named(run.world)
        return self.configs.get(f"{run.world}-{run.arm.algorithm}") or world.configs[run.arm.algorithm]


def commands_of(run: Run, choices: Choices) -> list[list[str]]:
    """Return the command lines of a run, one after the other; given again, each goes on.

    Raises:
        ConfigurationError: its configuration can't be read.
    """
    ours = [sys.executable, "-m", "searchr1.cli"]
    if run.arm.algorithm == "sft":
        return [[*ours, "train", *_fine_tuning(run, choices)]]
    if run.arm.algorithm == "rejection":
        return _rejection(run, choices, ours)
    return [[*ours, "train", "run", *_reinforcement(run, choices, run.folder(choices.out))]]


def _rejection(run: Run, choices: Choices, ours: list[str]) -> list[list[str]]:
    """Return the commands that sample what GRPO's steps would, choose the right rollouts, and imitate them."""
    sampled, right = run.folder(choices.out) / "sampled", run.folder(choices.out) / RIGHT
    together = f"cat {shlex.quote(str(sampled / 'rollouts'))}/step-*.jsonl > {shlex.quote(str(sampled / 'all.jsonl'))}"
    chosen = ["--correct", "--each", "1", "--output", str(right), "--overwrite"]
    plain = replace(run, arm=replace(run.arm, algorithm="grpo"))
    return [
        [*ours, "train", "sample", *_reinforcement(plain, choices, sampled)],
        ["sh", "-c", together],
        [*ours, "export", "--input", str(sampled / "all.jsonl"), *chosen],
        [*ours, "train", *_fine_tuning(run, choices)],
    ]


def _fine_tuning(run: Run, choices: Choices) -> list[str]:
    world = world_named(run.world)
    given = {
        "start": choices.start_of(world, run.start),
        "out": run.folder(choices.out),
        "seed": run.seed,
        "steps": scaled(run.arm.num_steps or world.sft_steps, choices.scale, _LEAST_STEPS),
        "right": run.folder(choices.out) / RIGHT,
    }
    words = [word.format(**given) for word in shlex.split(choices.config_of(run))]
    return [*words, *_flags(run.arm.overrides)]


def _reinforcement(run: Run, choices: Choices, out: Path) -> list[str]:
    settings = [
        f"model={choices.start_of(world_named(run.world), run.start)}",
        f"out_dir={out}",
        f"seed={run.seed}",
        *choices.settings.get(run.world, ()),
        *_sizes(run, choices),
        *([] if run.arm.max_searches is None else [f"rollout.max_searches={run.arm.max_searches}"]),
        *run.arm.overrides,
    ]
    return [choices.config_of(run), "--no-progress", *_flags(settings)]


def _flags(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _sizes(run: Run, choices: Choices) -> list[str]:
    """Return the settings of steps, questions and groups that are not the configuration's own."""
    fields, given = read_config(choices.config_of(run)), dict(_assigned(choices.settings.get(run.world, ())))
    rollout = fields.get("rollout") or {}

    def configured(name: str, otherwise: int) -> int:
        of_file = rollout.get(name.removeprefix("rollout.")) if name.startswith("rollout.") else fields.get(name)
        return int(given.get(name) or of_file or otherwise)

    scale, sizes = choices.scale, dict[str, int]()
    questions, group = configured("rollout.questions_per_step", 512), configured("rollout.group_size", 1)
    if run.arm.group_size is not None:
        sizes["rollout.group_size"] = run.arm.group_size
        questions = max(1, questions * group // run.arm.group_size)
        sizes["rollout.questions_per_step"] = questions
    if run.arm.num_steps is not None:
        sizes["num_steps"] = run.arm.num_steps
    if scale != 1:
        num_steps = scaled(run.arm.num_steps or configured("num_steps", 500), scale, _LEAST_STEPS)
        sizes |= {
            "num_steps": num_steps,
            "rollout.questions_per_step": scaled(questions, scale, _LEAST_QUESTIONS),
            "num_eval_questions": scaled(configured("num_eval_questions", 256), scale, _LEAST_QUESTIONS),
            "eval_every_steps": scaled(configured("eval_every_steps", 50), scale, 1),
            "save_every_steps": scaled(configured("save_every_steps", 25), scale, 1),
        }
    return [f"{name}={value}" for name, value in sizes.items()]


def rollout_of(run: Run, choices: Choices) -> dict[str, Any]:
    """Return the fields of a run's rollouts: the configuration's with those of the command line and of the arm.

    Raises:
        ConfigurationError: the configuration can't be read.
    """
    fields = dict(read_config(choices.config_of(run)).get("rollout") or {})
    for name, value in _assigned([*choices.settings.get(run.world, ()), *run.arm.overrides]):
        if name.startswith("rollout."):
            fields[name.removeprefix("rollout.")] = yaml.safe_load(value)
    return fields


def scaled(count: int, scale: float, least: int) -> int:
    """Return a share of ``count``, but no less than ``least`` unless there is less."""
    return max(min(count, least), round(scale * count))


def read_config(file: str) -> dict[str, Any]:
    """Return the fields of a training configuration. Raises ``ConfigurationError``."""
    try:
        fields = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} can't be read as YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{file} holds no training configuration")
    return fields


def _assigned(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]
