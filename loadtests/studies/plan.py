"""All studies, what matters most first: what each asks, and the arms that answer it, over seeds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Algorithm = Literal["grpo", "ppo", "sft", "rejection"]
"""Ways to train. ``rejection`` samples what GRPO's steps would, and then is a fine-tuning on the right rollouts."""
SEEDS = 3


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train, which a study compares with others."""

    label: str
    slug: str = ""
    """What tells its runs' folders from those of the plain run of its algorithm."""
    algorithm: Algorithm = "grpo"
    overrides: tuple[str, ...] = ()
    """Settings that differ from the configuration's: ``NAME=VALUE``. Those of ``sft`` are of its own file."""
    start: str | None = None
    """The start that it trains, where it is not the study's."""
    group_size: int | None = None
    """Rollouts of one question, with as many rollouts a step as the configuration has."""
    top_k: int = 3
    """Passages per search, also where its checkpoint is scored."""
    max_searches: int | None = None
    """Searches per run, also where its checkpoint is scored; None: the configuration's."""
    num_steps: int | None = None
    """Steps, where they are not the configuration's."""


@dataclass(frozen=True, slots=True)
class Study:
    """One question, and the arms that answer it. The first arm is what the others are compared with."""

    name: str
    asks: str
    world: str
    start: str
    arms: tuple[Arm, ...]
    num_seeds: int = SEEDS


@dataclass(frozen=True, slots=True)
class Run:
    """One training run. Studies share the runs whose name is the same."""

    world: str
    start: str
    seed: int
    arm: Arm

    @property
    def name(self) -> str:
        """Name of its folder."""
        arm = "-".join(filter(None, [self.arm.algorithm, self.arm.slug]))
        return f"{self.world}-{self.start}-{arm}-seed{self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the folder that it writes to."""
        return runs_folder(out) / self.name


def runs_folder(out: Path) -> Path:
    """Return the folder of all runs."""
    return out / "runs"


@dataclass(frozen=True, slots=True)
class World:
    """What runs are trained on. The command line may name other files."""

    name: str
    configs: dict[Algorithm, str]
    """Configuration files; of ``sft`` and ``rejection``, words of ``searchr1 train`` with ``{start}``, ``{out}``,
    ``{seed}``, ``{steps}`` and ``{right}``, a file of right rollouts, in them."""
    starts: dict[str, str]
    """Folders of checkpoints by name; ``{runs}`` is the folder of all runs."""
    clusters: str
    """What questions that are answered alike share."""
    sft_steps: int
    """Steps of a fine-tuning where it has so many of them: as many tokens as reinforcement learning samples, about."""


CLOSED = "closed"
"""The start that was fine-tuned on answers without search, and is scored without."""
WORLDS: tuple[World, ...] = (
    World(
        "atlas",
        configs={
            "grpo": "configs/atlas-grpo.yaml",
            "ppo": "configs/atlas-ppo.yaml",
            "sft": "warmup --start {start} --out {out} --max-steps {steps} --num-demonstrations 6000 "
            "--muon-lr 0.003 --adamw-lr 3e-4 --processes 1 --seed {seed}",
            "rejection": "sft configs/sft/smollm2-form.yaml --no-progress --set model={start} --set data=[{right}] "
            "--set eval_data=null --set out_dir={out} --set max_tokens=4608 --set num_epochs=2 --set seed={seed}",
        },
        starts={"weak": "runs/weak/checkpoint", "stage-one": "runs/weak-stage-one/checkpoint"},
        clusters="country",
        sft_steps=120,
    ),
    World(
        "realqa",
        configs={
            "grpo": "configs/smollm2-135m-grpo.yaml",
            "ppo": "configs/smollm2-135m-ppo.yaml",
            "sft": "sft configs/sft/smollm2-form.yaml --no-progress --set model={start} --set out_dir={out} "
            "--set num_epochs=null --set max_steps={steps} --set seed={seed}",
            "rejection": "sft configs/sft/smollm2-form.yaml --no-progress --set model={start} --set data=[{right}] "
            "--set eval_data=null --set out_dir={out} --set max_tokens=3328 --set num_epochs=2 --set seed={seed}",
        },
        starts={
            "base": "models/smollm2",
            "form": "runs/smollm2-form/checkpoint",
            "form-top1": "runs/smollm2-form-top1/checkpoint",
            "form-top5": "runs/smollm2-form-top5/checkpoint",
            CLOSED: "{runs}/realqa-base-sft-closed-seed0/checkpoint",
        },
        clusters="article",
        sft_steps=200,
    ),
)
"""The worlds. ``docs/guides/starts.md`` has the commands that make the starts. A right rollout is imitated however
often it searched: ``max_tokens`` of ``rejection`` are those of a context, and of what follows it."""

_GRPO, _PPO = Arm("GRPO"), Arm("PPO", algorithm="ppo")
_NO_MASK = ("loss.mask_observations=false",)
_PASSAGE_TOKENS = 170
_OBSERVATION_TOKENS, _CONTEXT_TOKENS, _NUM_SEARCHES = 800, 3072, 3
"""Bounds of the configurations of ``realqa``."""


def _mask(world: str, start: str, plain: Arm) -> Study:
    """Return the paper's ablation of the loss mask for one algorithm."""
    without = replace(plain, label="without", slug="nomask", overrides=_NO_MASK)
    return Study(
        f"mask-{plain.algorithm}-{world}-{start}",
        f"Does the mask over retrieved tokens matter to {plain.label}, from the start `{start}` of {world}?",
        world,
        start,
        (replace(plain, label="with the loss mask"), without),
    )


def _group(size: int) -> Arm:
    return replace(_GRPO, label=f"groups of {size}", slug=f"group{size}", group_size=size)


def _top(k: int) -> Arm:
    """Return an arm with ``k`` passages per search, and with bounds in which they fit whole."""
    observation = max(_OBSERVATION_TOKENS, _PASSAGE_TOKENS * k)
    context = _CONTEXT_TOKENS + _NUM_SEARCHES * (observation - _OBSERVATION_TOKENS)
    bounds = {"observation": observation, "context": context, "trajectory": context}
    overrides = (f"rollout.top_k={k}", *(f"rollout.max_{name}_tokens={value}" for name, value in bounds.items()))
    return Arm(f"top-k {k}", f"top{k}", overrides=overrides, start=f"form-top{k}", top_k=k)


def _long(arm: Arm, num_steps: int) -> Arm:
    return replace(arm, slug="long", num_steps=num_steps)


def _controls(world: str, start: str) -> Study:
    return Study(
        f"controls-{world}-{start}",
        f"Does the reward teach, or would any update of the same size do, from the start `{start}` of {world}?",
        world,
        start,
        (
            _GRPO,
            Arm("random reward", "random", overrides=("reward=random",)),
            Arm("clean fine-tuning", "clean", algorithm="sft"),
            Arm("rejection sampling", algorithm="rejection"),
            Arm("RL without search", "nosearch", max_searches=0),
        ),
    )


STUDIES: tuple[Study, ...] = (
    Study(
        "table-realqa",
        "The checkpoints of the table: what does reinforcement learning add to the same budget of imitation?",
        "realqa",
        "form",
        (
            _GRPO,
            _PPO,
            Arm("rejection sampling", algorithm="rejection"),
            Arm(
                "SFT",
                "closed",
                algorithm="sft",
                overrides=("data=[data/starts/closed-book.jsonl]",),
                start="base",
                max_searches=0,
            ),
            Arm("R1", "r1", start=CLOSED, max_searches=0),
        ),
    ),
    _mask("realqa", "form", _GRPO),
    _mask("realqa", "form", _PPO),
    _controls("realqa", "form"),
    _mask("atlas", "weak", _GRPO),
    _mask("atlas", "weak", _PPO),
    _controls("atlas", "weak"),
    _mask("atlas", "stage-one", _GRPO),
    _mask("atlas", "stage-one", _PPO),
    Study(
        "long-realqa",
        "Which of the algorithms learns faster, and which of them collapses in a long run?",
        "realqa",
        "form",
        (_long(_GRPO, 300), _long(_PPO, 300)),
    ),
    Study(
        "long-atlas",
        "The same on Atlas, far beyond its ceiling: does what was learned stay?",
        "atlas",
        "weak",
        (_long(_GRPO, 60), _long(_PPO, 60)),
    ),
    Study(
        "top-k-realqa",
        "Are more passages per search better, each from a start that has read as many?",
        "realqa",
        "form",
        # Three is what the configurations have, and what the plain start has read.
        (replace(_GRPO, label="top-k 3"), _top(1), _top(5)),
    ),
    Study(
        "group-size-realqa",
        "With as many rollouts a step, are a few large groups better than many small ones?",
        "realqa",
        "form",
        # Groups of five are what the configurations have.
        (replace(_GRPO, label="groups of 5"), *(_group(size) for size in (1, 3, 10))),
    ),
    Study(
        "format-reward-realqa",
        "Does a reward for form beside the answer's help (v0.3, arXiv 2505.15117)?",
        "realqa",
        "form",
        (replace(_GRPO, label="exact match"), Arm("format_v0_3", "format-reward", overrides=("reward=format_v0_3",))),
    ),
)


def runs_of(study: Study, num_seeds: int | None = None) -> Iterator[Run]:
    """Yield a study's runs, seed by seed, so that every arm has a run before any has a second one."""
    for seed in range(min(study.num_seeds, num_seeds or study.num_seeds)):
        for arm in study.arms:
            yield Run(study.world, arm.start or study.start, seed, arm)


def all_runs(studies: Iterable[Study], num_seeds: int | None = None) -> list[Run]:
    """Return the runs of ``studies`` in their order, each once."""
    return list({run.name: run for study in studies for run in runs_of(study, num_seeds)}.values())


def world_named(name: str) -> World:
    """Return a world. Raises ``ValueError`` where there is none."""
    found = next((world for world in WORLDS if world.name == name), None)
    if found is None:
        raise ValueError(f"there is no world {name!r}; there are {', '.join(world.name for world in WORLDS)}")
    return found
