"""Tokens per second of a training update on a CPU: this checkout beside another one, on the shape of SmolLM2-135M.

    git worktree add /tmp/before COMMIT
    python -m loadtests.update_speed --against /tmp/before --out docs/results/update-speed.md

makes a random model (30 layers of 576, vocabulary 49,152) and rollouts of random tokens with the lengths of real ones,
and lets both checkouts take GRPO updates on them: the same samples, the same configuration, each in processes of its
own that take turns, so that a noisy machine hits all. A token counts once, however often an update passes it through a
model. A first update, of two rollouts, allocates and compiles, and is told apart. Rates are by the wall and by the
process's own CPU seconds, which others on the same cores lengthen less.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "smollm2-135m": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100_000.0,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
INSTRUCTION_TOKENS: Final = 130
"""What all prompts begin with."""
PROMPT_TOKENS: Final = 150
"""That, and a question."""


@dataclass(frozen=True, slots=True)
class Side:
    """A way to take updates: a checkout, and what its configuration has otherwise than the common one."""

    name: str
    checkout: Path
    optimizer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What each side is given to do."""

    model: str
    num_groups: int
    group_size: int
    mean_tokens: int
    max_tokens_per_pass: int
    num_minibatches: int
    kl_coef: float
    vocab_size: int
    optimizer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    """Two updates of one process."""

    num_tokens: int
    """Tokens of all rollouts, prompts and observations included."""
    num_sampled: int
    first_s: float
    second_s: float
    first_cpu_s: float
    second_cpu_s: float
    """CPU seconds of all threads of the process."""
    peak_gb: float
    """Largest resident memory of the process."""
    metrics: dict[str, float]
    """Metrics of the second update."""


def write_model(folder: Path, shape: dict[str, Any]) -> None:
    """Write a Llama of random weights in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config: Any = LlamaConfig
    model: Any = LlamaForCausalLM
    made = model(config(**shape, max_position_embeddings=8192, tie_word_embeddings=True)).to(torch.bfloat16)
    made.save_pretrained(folder)


def rollouts(work: Work) -> list[Any]:
    """Return samples of two turns: a prompt, a query, an observation of half the length, an answer."""
    import numpy as np

    from searchr1.loop.types import Status
    from searchr1.trainer.rl.samples import Sample

    random = np.random.default_rng(0)
    instruction = tuple(random.integers(0, work.vocab_size, INSTRUCTION_TOKENS).tolist())
    made = []
    for number in range(work.num_groups * work.group_size):
        total = int(random.uniform(0.75, 1.25) * work.mean_tokens)
        query, answer = int(random.integers(40, 120)), int(random.integers(30, 100))
        observation = max(1, total - PROMPT_TOKENS - query - answer)
        mask = (False,) * PROMPT_TOKENS + (True,) * query + (False,) * observation + (True,) * answer
        made.append(
            Sample(
                ids=instruction + tuple(random.integers(0, work.vocab_size, len(mask) - len(instruction)).tolist()),
                loss_mask=mask,
                engine_logprobs=(-10.8,) * len(mask),
                has_engine_logprob=mask,
                num_prompt_tokens=PROMPT_TOKENS,
                reward=float(random.random() < 0.5),
                group=number // work.group_size,
                policy_version=0,
                status=Status.COMPLETED,
                num_searches=1,
                num_turns=2,
                num_invalid=0,
            )
        )
    return made


def take(work: Work) -> Taken:
    """Take two updates in this process, with the package that it finds."""
    import resource

    with suppress(ImportError):
        from searchr1.trainer.heap import keep_freed_memory

        keep_freed_memory()
    import torch

    from searchr1.trainer.process_group import ProcessGroup
    from searchr1.trainer.rl.config import TrainConfig
    from searchr1.trainer.rl.learner import Learner

    config = TrainConfig.model_validate(
        {
            "algorithm": "grpo",
            "model": work.model,
            "data": "none",
            "retriever": "none",
            "out_dir": "none",
            "rollout": {"group_size": work.group_size},
            "loss": {"kl_coef": work.kl_coef, "entropy_coef": 0.0},
            "optimizer": {
                "lr": 1e-6,
                "num_minibatches": work.num_minibatches,
                "max_tokens_per_pass": work.max_tokens_per_pass,
                **work.optimizer,
            },
        }
    )
    samples = rollouts(work)
    learner = Learner(config, Path(work.model), ProcessGroup(torch.device("cpu")), pad_id=0)
    walls, cpus, metrics = [], [], []
    for step in range(2):
        started, cpu_started = time.perf_counter(), time.process_time()
        metrics.append(learner.update(samples if step else samples[:2], step))
        walls.append(time.perf_counter() - started)
        cpus.append(time.process_time() - cpu_started)
    return Taken(
        sum(len(sample.ids) for sample in samples),
        sum(sample.num_sampled_tokens for sample in samples),
        walls[0],
        walls[1],
        cpus[0],
        cpus[1],
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        metrics[1],
    )


def run(side: Side, work: dict[str, Any]) -> Taken:
    """Take the updates of ``side`` in a process of its own."""
    paths = os.pathsep.join(str(side.checkout / part) for part in ("server", "client"))
    given = json.dumps(work | {"optimizer": side.optimizer})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--work", given],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def compare(args: argparse.Namespace) -> list[str]:
    """Run all sides in turns; return the report's lines."""
    sides = []
    if args.against is not None:
        before: Path = args.against.resolve()
        sides = [Side(f"before, {dtype}", before, {"dtype": dtype}) for dtype in args.before_dtypes]
    sides += [Side(f"now, {dtype}", ROOT, {"dtype": dtype}) for dtype in args.dtypes]
    if args.compile:
        sides.append(Side("now, bfloat16, compiled", ROOT, {"dtype": "bfloat16", "compile_layers": True}))
    found: dict[str, list[Taken]] = {side.name: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SHAPES[args.shape])
        work = {
            "model": folder,
            "num_groups": args.groups,
            "group_size": args.group_size,
            "mean_tokens": args.tokens,
            "max_tokens_per_pass": args.max_tokens_per_pass,
            "num_minibatches": args.minibatches,
            "kl_coef": args.kl_coef,
            "vocab_size": SHAPES[args.shape]["vocab_size"],
        }
        for number in range(args.rounds):
            for side in sides:
                taken = run(side, work)
                print(f"round {number + 1}, {side.name}: {taken}", file=sys.stderr, flush=True)
                found[side.name].append(taken)
    return report(found, args)


def report(found: dict[str, list[Taken]], args: argparse.Namespace) -> list[str]:
    """Return a Markdown table; ratios are to the first side, round by round."""
    first, load = next(iter(found.values())), os.getloadavg()[0]
    lines = [
        f"{args.shape}, {args.groups} groups of {args.group_size} rollouts, {first[0].num_tokens:,} tokens, "
        f"{first[0].num_sampled:,} of them sampled; kl_coef {args.kl_coef}, {args.minibatches} minibatch(es), passes "
        f"of at most {args.max_tokens_per_pass:,} tokens; {args.rounds} round(s), medians; load {load:.1f}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        "| | tokens/s | ratio | tokens per CPU second | ratio | first update, CPU s | second | peak memory, GB | "
        "policy loss | KL | gradient norm |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        pairs, last = list(zip(first, rounds, strict=True)), rounds[-1].metrics
        speed = median(taken.num_tokens / taken.second_s for taken in rounds)
        ratio = median(base.second_s / taken.second_s for base, taken in pairs)
        cpu_speed = median(taken.num_tokens / taken.second_cpu_s for taken in rounds)
        cpu_ratio = median(base.second_cpu_s / taken.second_cpu_s for base, taken in pairs)
        lines.append(
            f"| {name} | {speed:,.0f} | {ratio:.2f} | {cpu_speed:,.0f} | {cpu_ratio:.2f} | "
            f"{median(t.first_cpu_s for t in rounds):.1f} | {median(t.second_cpu_s for t in rounds):.1f} | "
            f"{max(t.peak_gb for t in rounds):.1f} | "
            f"{last['policy_loss']:.5f} | {last.get('kl', 0.0):.2e} | {last['grad_norm']:.4f} |"
        )
    return lines


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=550, help="of a rollout, in the mean")
    parser.add_argument("--max-tokens-per-pass", type=int, default=4096)
    parser.add_argument("--minibatches", type=int, default=1)
    parser.add_argument("--kl-coef", type=float, default=0.001)
    parser.add_argument("--before-dtypes", nargs="*", default=["bfloat16"], choices=["bfloat16", "float32"])
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16"], choices=["bfloat16", "float32"])
    parser.add_argument("--compile", action="store_true", help="one more side, with compiled layers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a Markdown file that the table is added to")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        print(json.dumps(asdict(take(Work(**json.loads(args.work))))))
        return
    lines = compare(args)
    print("\n".join(lines))
    if args.out is not None:
        with args.out.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
