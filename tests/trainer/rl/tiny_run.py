"""A training run of a few seconds on a random model, with the transformers engine, as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from searchr1.retrieval.index.bm25 import build_index
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[3]
TRAIN = ("-m", "searchr1.cli", "train", "run")
TIMES = ("_s", "_per_s")
"""Endings of metrics that measure time."""
ROLLOUTS_PER_STEP = 4
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""Runs what follows in two processes."""


def vowels(outcome: Any) -> float:
    """A reward that a random model gets some of: the share of vowels in what it wrote."""
    text = "".join(outcome.completions).lower()
    return sum(text.count(vowel) for vowel in "aeiou") / max(1, len(text))


def write_tiny_run(folder: Path) -> Path:
    """Write a model, an index, questions and a configuration; return the configuration's path."""
    passages = [{"id": str(n), "contents": f'"Town {n}"\nTown {n} lies in country {n % 3}.'} for n in range(6)]
    questions = [{"id": f"q{n}", "question": f"Where is town {n}?", "golden_answers": ["Mali"]} for n in range(6)]
    for name, rows in (("corpus", passages), ("questions", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    build_index(folder / "corpus.jsonl", folder / "index", progress=False)
    fields = {
        "algorithm": "ppo",
        "model": str(write_tiny_model(folder / "model")),
        "data": str(folder / "questions.jsonl"),
        "eval_data": str(folder / "questions.jsonl"),
        "num_eval_questions": 1,
        "eval_every_steps": 2,
        "retriever": f"index:{folder / 'index'}",
        "out_dir": str(folder / "run"),
        "reward": "tests.trainer.rl.tiny_run:vowels",
        "num_steps": 5,
        "save_every_steps": 1,
        "rollout": {
            "questions_per_step": 2,
            "group_size": 2,
            "max_turns": 2,
            "max_completion_tokens": 8,
            # One at a time, so that no sample depends on what it was batched with.
            "max_concurrent": 1,
            "engine": "transformers",
        },
        "loss": {"kl_coef": 0.01},
        "optimizer": {"dtype": "float32", "lr": 1e-3, "critic_lr": 1e-3, "warmup": 0.5, "max_tokens_per_pass": 400},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(fields), "utf-8")
    return folder / "run.yaml"


def command(config: Path, out_dir: Path, *more: str) -> list[str]:
    """Return the arguments for Python that run ``config`` with another folder and other fields."""
    settings = [f"out_dir={out_dir}", *more]
    return [*TRAIN, str(config), "--no-progress", *(word for setting in settings for word in ("--set", setting))]


def start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start Python with ``arguments``; what it prints goes to ``log``."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out, env=environment, cwd=ROOT)


def finish(arguments: Sequence[str], log: Path, *, timeout_s: float = 600.0) -> int:
    """Run Python with ``arguments`` to its end; return its exit code."""
    process = start(arguments, log)
    try:
        return process.wait(timeout_s)
    finally:
        # SIGTERM first, for the processes that torchrun has started.
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def records(out_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what measures time; a last one that is being written is left out."""
    path = out_dir / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
    read = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: value for name, value in record.items() if not name.endswith(TIMES)} for record in read]
