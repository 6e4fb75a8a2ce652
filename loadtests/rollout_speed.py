"""Rollout tokens per second: vLLM, plain transformers ``generate`` and our own transformers engine, side by side.

    python -m loadtests.rollout_speed --out docs/results/rollout-speed.md

asks all three for the first turn of the same questions on the same checkpoint, with the same stop strings and limit,
greedily and at temperature 1. They take turns in every round, each round on new questions, so that a noisy machine hits
all and nobody's prefix cache holds more than the prompts' common beginning. ``generate`` gets its best case: one padded
batch of all prompts, in bfloat16 and in float32, and nothing but ids to return; the engines also return logprobs and
text, as the trainer asks them to. A token counts if it belongs to a completion; ``generate``'s padding does not.
"""

import argparse
import asyncio
import datetime
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Engine, SamplingParams
from searchr1.engines.transformers.engine import TransformersEngine
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import TokenIds
from searchr1.tokenizer import Tokenizer

STOPS: Final = ("</search>", "</answer>")
BASELINE: Final = "transformers generate, float32"


@dataclass(frozen=True, slots=True)
class Round:
    """A pass over some prompts, with the completion of each."""

    wall_s: float
    texts: list[str]
    num_tokens: int

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.wall_s


Side = Callable[[list[TokenIds], float, int], Awaitable[Round]]
"""Completes prompts at a temperature with a seed."""


@dataclass(slots=True)
class Report:
    """Markdown, printed while it grows."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)


def engine_side(engine: Engine, max_tokens: int) -> Side:
    """Return a side that asks an engine for all prompts at once, as the trainer does."""

    async def one(prompt: TokenIds, temperature: float, seed: int) -> tuple[str, int]:
        params = SamplingParams(
            max_tokens, STOPS, temperature=temperature, seed=seed, logprobs=True, stream_interval=16
        )
        text, num_tokens = "", 0
        async with aclosing(engine.generate(prompt, params, session=str(seed))) as chunks:
            async for chunk in chunks:
                text += chunk.text
                num_tokens += len(chunk.token_ids)
        return text, num_tokens

    async def side(prompts: list[TokenIds], temperature: float, seed: int) -> Round:
        started = time.perf_counter()
        done = await asyncio.gather(*(one(p, temperature, seed + number) for number, p in enumerate(prompts)))
        return Round(time.perf_counter() - started, [text for text, _ in done], sum(num for _, num in done))

    return side


def generate_side(checkpoint: Path, dtype: torch.dtype, device: str, max_tokens: int) -> Side:
    """Return a side that completes all prompts in one left-padded batch."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype)
    model = loaded.to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    end = model.generation_config.eos_token_id

    def complete(prompts: list[TokenIds], temperature: float, seed: int) -> Round:
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        started = time.perf_counter()
        batch = tokenizer.pad({"input_ids": [list(p) for p in prompts]}, return_tensors="pt").to(device)
        ids = model.generate(
            **batch,
            **(sampling if temperature > 0 else {"do_sample": False}),
            max_new_tokens=max_tokens,
            stop_strings=list(STOPS),
            tokenizer=tokenizer,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )[:, batch["input_ids"].shape[1] :]
        num_tokens = int((ids != tokenizer.pad_token_id).sum())
        wall_s = time.perf_counter() - started
        return Round(
            wall_s, [_to_stop(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)], num_tokens
        )

    async def side(prompts: list[TokenIds], temperature: float, seed: int) -> Round:
        return complete(prompts, temperature, seed)

    return side


async def compare(args: argparse.Namespace, report: Report) -> None:
    """Open the sides, run the rounds, and report both tables."""
    checkpoint: Path = args.checkpoint
    tokenizer = Tokenizer.load(str(checkpoint))
    questions = [json.loads(line)["question"] for line in args.dataset.read_text("utf-8").splitlines()]
    prompts = [tuple(tokenizer.encode_prompt(tokenizer.render(SEARCH_R1.prompt(q)))) for q in dict.fromkeys(questions)]
    async with AsyncExitStack() as stack:
        sides: dict[str, Side] = {}
        if not args.no_vllm:
            config = VllmInProcessConfig(
                str(checkpoint),
                dtype="bfloat16",
                max_model_len=4596,
                max_num_seqs=args.questions,
                kv_cache_gib=1.0 if args.device == "cpu" else None,
            )
            sides["vLLM in process, bfloat16"] = engine_side(
                await stack.enter_async_context(VllmInProcessEngine(config)), args.max_tokens
            )
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            sides[f"transformers generate, {name}"] = generate_side(checkpoint, dtype, args.device, args.max_tokens)
        ours = TransformersEngine.load(
            checkpoint, device=args.device, dtype=torch.bfloat16, max_batch=args.questions, kv_cache_gib=2.0
        )
        stack.push_async_callback(ours.aclose)
        sides["TransformersEngine, bfloat16"] = engine_side(ours, args.max_tokens)
        for side in sides.values():
            await side(prompts[-8:], 0.0, 0)
        per_round = 2 * args.questions
        for number, temperature in enumerate((0.0, 1.0)):
            taken = [
                prompts[start : start + args.questions]
                for start in range(number * args.questions, args.rounds * per_round, per_round)
            ]
            if len(taken[-1]) < args.questions:
                raise SystemExit(f"{args.dataset} has {len(prompts)} questions: too few")
            await _table(sides, taken, temperature, report)


async def _table(sides: dict[str, Side], taken: list[list[TokenIds]], temperature: float, report: Report) -> None:
    rounds: dict[str, list[Round]] = {name: [] for name in sides}
    for number, prompts in enumerate(taken):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            rounds[name].append(await sides[name](prompts, temperature, 1000 * number))
    report.add()
    report.add(f"{'Greedy' if temperature == 0 else f'Temperature {temperature:g}'}:")
    report.add()
    report.add("| | tokens/s, median (rounds) | ratio to generate, float32 | tokens a completion | same text as it |")
    report.add("|---|---|---|---|---|")
    base = rounds[BASELINE]
    for name, done in rounds.items():
        rates = [each.tokens_per_s for each in done]
        ratio = statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in zip(done, base, strict=True))
        pairs = [pair for a, b in zip(done, base, strict=True) for pair in zip(a.texts, b.texts, strict=True)]
        same = f"{sum(a == b for a, b in pairs) / len(pairs):.0%}" if temperature == 0 else ""
        report.add(
            f"| {name} | {statistics.median(rates):,.0f} ({', '.join(f'{rate:,.0f}' for rate in rates)}) | {ratio:.2f} "
            f"| {sum(each.num_tokens for each in done) / len(pairs):.1f} | {same} |"
        )


def _to_stop(text: str) -> str:
    ends = [at + len(stop) for stop in STOPS if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def main() -> None:
    """Parse the arguments, compare, and write the report if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--dataset", type=Path, default=Path("data/atlas/questions-test.jsonl"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=64, help="prompts at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=500)
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1), help="of PyTorch")
    parser.add_argument("--no-vllm", action="store_true")
    parser.add_argument("--note", default="", help="a sentence for the report, such as what else ran")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    # vLLM's processes read it; this process has loaded PyTorch already.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    report = Report()
    report.add("# Rollout speed")
    report.add()
    report.add(
        f"`python -m loadtests.rollout_speed --questions {args.questions} --threads {args.threads}` on {args.device}, "
        f"{datetime.datetime.now(datetime.UTC).date()}: {args.rounds} rounds of {args.questions} first turns, at most "
        f"{args.max_tokens} tokens each, all at once. {args.note}".rstrip()
    )
    asyncio.run(compare(args, report))
    if args.out is not None:
        args.out.write_text("\n".join(report.lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
