"""The training runs of ``docs/results/training.md``, the scores of their checkpoints, and the pictures.

    searchr1 demo build --demonstrations 20000
    searchr1 train warmup --start server/searchr1/demo/checkpoint --out runs/weak … (the page has the whole command)
    python -m loadtests.training run --at-once 2        # hours on two cores; run again, it goes on
    python -m loadtests.training report

Every run is a configuration of ``configs/`` with other values for a few fields; a run that is killed goes on from its
last save. The report answers test questions greedily with each finished checkpoint, all on one engine.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.evaluation.datasets import load_questions
from searchr1.evaluation.metrics import exact_match
from searchr1.loop.types import Limits
from searchr1.retrieval.factory import open_retriever
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.curves import plot_runs
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult, roll_out

START = Path("runs/weak/checkpoint")
RUNS = Path("runs/results")
MAX_COMPLETION_TOKENS = 160


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A training run: its folder's name, its configuration, and the settings that differ from it."""

    name: str
    config: str
    overrides: tuple[str, ...]
    top_k: int = 3

    @property
    def folder(self) -> Path:
        """Folder that the run writes to."""
        return RUNS / self.name

    @property
    def command(self) -> list[str]:
        """Command line of the run."""
        settings = [f"out_dir={self.folder}", *self.overrides]
        flags = [word for setting in settings for word in ("--set", setting)]
        return [sys.executable, "-m", "searchr1.cli", "train", "run", self.config, "--no-progress", *flags]


def planned(seeds: int) -> list[PlannedRun]:
    """All runs, those that matter most first."""
    runs = [
        PlannedRun(f"{algorithm}-seed{seed}", f"configs/atlas-{algorithm}.yaml", (f"seed={seed}",))
        for seed in range(seeds)
        for algorithm in ("grpo", "ppo")
    ]
    short = "num_steps=8"  # The learning rate is constant, so these are the first steps of a longer run.
    runs.append(PlannedRun("grpo-nomask-seed0", "configs/atlas-grpo.yaml", ("loss.mask_observations=false",)))
    for size in (1, 3):
        sizes = (short, f"rollout.group_size={size}", f"rollout.questions_per_step={130 // size}")
        runs.append(PlannedRun(f"grpo-group{size}-seed0", "configs/atlas-grpo.yaml", sizes))
    for top_k in (1, 5):
        overrides = (short, f"rollout.top_k={top_k}")
        runs.append(PlannedRun(f"grpo-top{top_k}-seed0", "configs/atlas-grpo.yaml", overrides, top_k))
    return runs


def run_all(runs: list[PlannedRun], at_once: int) -> None:
    """Run those that are not finished, ``at_once`` at a time, each on one thread."""
    waiting = [run for run in runs if not (run.folder / "done").exists()]
    running: dict[subprocess.Popen[bytes], PlannedRun] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tqdm(total=len(waiting), desc="runs", unit="run") as bar:
        while waiting or running:
            while waiting and len(running) < at_once:
                run = waiting.pop(0)
                run.folder.mkdir(parents=True, exist_ok=True)
                with (run.folder / "log").open("ab") as log:
                    process = subprocess.Popen(run.command, stdout=log, stderr=log, env=environment)
                running[process] = run
                bar.set_postfix_str(", ".join(run.name for run in running.values()))
            finished = _wait_for_one(running)
            run = running.pop(finished)
            if finished.returncode != 0:
                bar.write(f"{run.name} failed with {finished.returncode}: see {run.folder / 'log'}")
            else:
                (run.folder / "done").touch()
            bar.update()


def _wait_for_one(running: dict[subprocess.Popen[bytes], PlannedRun]) -> subprocess.Popen[bytes]:
    pid, status = os.wait()
    while True:
        for process in running:
            if process.pid == pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process
        pid, status = os.wait()


@dataclass(frozen=True, slots=True)
class Score:
    """Greedy answers to test questions."""

    name: str
    questions: int
    em: float
    by_hops: dict[int, float]
    searches: float
    answered: float


async def score_all(runs: list[PlannedRun], num_questions: int) -> list[Score]:
    """Score the start and each finished run's checkpoint on the first ``num_questions`` of Atlas's test split."""
    tokenizer = Tokenizer.load(str(START))
    questions = load_questions("atlas", split="test", limit=num_questions)
    engine_config = VllmInProcessConfig(
        str(START), max_model_len=4196, max_num_seqs=128, kv_cache_gib=1.0, enforce_eager=True, priority_scheduling=True
    )
    scores = []
    async with open_retriever("index:data/atlas/index") as retriever, VllmInProcessEngine(engine_config) as engine:
        start = PlannedRun("start", "", ())
        for run in tqdm([start, *runs], desc="checkpoints"):
            await engine.take_weights(START if run is start else run.folder / "checkpoint", version=run.name)
            options = RolloutOptions(
                temperature=0.0, top_k=run.top_k, limits=Limits(max_completion_tokens=MAX_COMPLETION_TOKENS)
            )
            scores.append(_score(run.name, await roll_out(questions, engine, retriever, tokenizer, options)))
    return scores


def _score(name: str, results: list[RolloutResult]) -> Score:
    by_hops: dict[int, list[bool]] = defaultdict(list)
    for result in results:
        right = exact_match(result.rollout.answer, result.question.golden_answers)
        by_hops[result.question.hops or 0].append(right)
    return Score(
        name,
        len(results),
        fmean(right for found in by_hops.values() for right in found),
        {hops: fmean(found) for hops, found in sorted(by_hops.items())},
        fmean(result.rollout.num_searches for result in results),
        fmean(result.rollout.answer is not None for result in results),
    )


GROUPS = {
    "training-seeds": {"GRPO": ["grpo-seed"], "PPO": ["ppo-seed"]},
    "training-mask": {"with the loss mask": ["grpo-seed0"], "without": ["grpo-nomask-seed0"]},
    "training-top-k": {"top-k 1": ["grpo-top1-"], "top-k 3": ["grpo-seed0"], "top-k 5": ["grpo-top5-"]},
    "training-group-size": {"groups of 1": ["grpo-group1-"], "of 3": ["grpo-group3-"], "of 5": ["grpo-seed0"]},
}
"""Pictures by name, and in each the labels with the names of their runs, or how those begin."""


def report(runs: list[PlannedRun], num_questions: int, out: Path) -> None:
    """Score what is finished, draw it into ``out`` and print the tables."""
    finished = [run for run in runs if (run.folder / "done").exists()]
    for picture, labels in GROUPS.items():
        groups = {
            label: [run.folder for run in finished if run.name.startswith(tuple(names))]
            for label, names in labels.items()
        }
        if all(groups.values()):
            plot_runs(groups, out / f"{picture}.png")
    scores = asyncio.run(score_all(finished, num_questions))
    (out / "training-test.jsonl").write_text("".join(json.dumps(asdict(score)) + "\n" for score in scores), "utf-8")
    print("| run | EM | gain | 1 hop | 2 hops | 3 hops | searches | answered |\n|---|---|---|---|---|---|---|---|")
    for score in scores:
        hops = " | ".join(f"{score.by_hops.get(number, 0.0):.3f}" for number in (1, 2, 3))
        gain = score.em - scores[0].em
        print(f"| {score.name} | {score.em:.3f} | {gain:+.3f} | {hops} | {score.searches:.2f} | {score.answered:.3f} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=500, help="test questions of the report")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the report's pictures go")
    parser.add_argument("--only", default="", help="names that begin like this")
    arguments = parser.parse_args()
    runs = [run for run in planned(arguments.seeds) if run.name.startswith(arguments.only)]
    if arguments.what == "run":
        run_all(runs, arguments.at_once)
    else:
        report(runs, arguments.questions, arguments.out)


if __name__ == "__main__":
    main()
