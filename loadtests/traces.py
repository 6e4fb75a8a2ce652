"""Traces of runs for load tests and the simulator: lengths and queries, from recorded runs or drawn like them.

    python -m loadtests.traces --runs FOLDER --out trace.jsonl     # FOLDER holds *.jsonl or *.jsonl.gz of recorded runs
    python -m loadtests.traces --like hotpot --num 2000 --out trace.jsonl

A recorded run has ``prompt`` and ``response``, whose ``<information>`` blocks are what was retrieved. Texts become
lengths by the tokenizer of ``--tokenizer``, or by 3.6 characters a token without one.
"""

import argparse
import gzip
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from searchr1.tokenizer import Tokenizer

_CHARS_PER_TOKEN = 3.6
_OBSERVATION = re.compile(r"\s*<information>.*?</information>\s*", re.DOTALL)
_QUERY = re.compile(r"<search>(.*?)</search>", re.DOTALL)
Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class TurnTrace:
    """One turn: tokens that the model writes, and tokens and query of the search after it, if there is one."""

    num_sampled: int
    passage_tokens: int = 0
    query: str = ""


@dataclass(frozen=True, slots=True)
class RunTrace:
    """One run. Its prompt begins with ``shared_tokens`` tokens that all runs begin with."""

    run: str
    prompt_tokens: int
    shared_tokens: int
    turns: tuple[TurnTrace, ...]

    @property
    def last_footprint(self) -> int:
        """Tokens of context at its end."""
        return self.prompt_tokens + sum(turn.num_sampled + turn.passage_tokens for turn in self.turns)


def recorded(folder: Path, count: Count) -> list[RunTrace]:
    """Read the recorded runs of a folder."""
    records = [record for path in sorted(folder.glob("*.jsonl*")) for record in _lines(path)]
    shared_tokens = count(_common_beginning(record["prompt"] for record in records))
    return [_of_record(f"run-{n}", record, count, shared_tokens) for n, record in enumerate(records)]


def _lines(path: Path) -> Iterator[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return (json.loads(line) for line in text.splitlines() if line)


def _common_beginning(texts: Iterable[str]) -> str:
    both = [(min(some), max(some)) for some in [list(texts)]]
    first, last = both[0]
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]


def _of_record(run: str, record: dict[str, str], count: Count, shared_tokens: int) -> RunTrace:
    turns = []
    at = 0
    for found in _OBSERVATION.finditer(record["response"]):
        written = record["response"][at : found.start()]
        query = _QUERY.search(written)
        turns.append(TurnTrace(max(1, count(written)), count(found[0]), query[1].strip() if query else ""))
        at = found.end()
    turns.append(TurnTrace(max(1, count(record["response"][at:]))))
    return RunTrace(run, count(record["prompt"]), shared_tokens, tuple(turns))


@dataclass(frozen=True, slots=True)
class Shape:
    """Mean lengths of a kind of runs, in tokens; lengths are lognormal, the number of searches geometric or fixed."""

    prompt: float
    shared: int
    sampled: float
    last_sampled: float
    passages: float
    num_searches: tuple[int, ...]
    """Numbers of searches, drawn from evenly."""


SHAPES = {
    "recorded": Shape(205, 178, 90, 10, 543, (1,)),
    "hotpot": Shape(205, 178, 60, 30, 543, (1, 2, 2, 3, 3, 4)),
    "long": Shape(3500, 178, 60, 30, 543, (1, 2, 2, 3, 3, 4)),
    "growing": Shape(700, 0, 40, 40, 495, (3,)),
}
"""``recorded``: like 2,000 runs of a published Search-R1 checkpoint on single-hop questions; ``hotpot``: several
searches, as multi-hop questions and larger limits make them; ``long``: the same after a long conversation;
``growing``: four turns of 40 tokens that grow to 2,300 in all."""
_SPREAD = {"prompt": 0.08, "sampled": 0.35, "last_sampled": 0.5, "passages": 0.12}


def drawn(shape: Shape, num_runs: int, *, seed: int, num_questions: int = 1000) -> list[RunTrace]:
    """Draw runs of a shape. Runs of the same question search for the same; questions are asked by a Zipf law."""
    rng = random.Random(seed)
    questions = [_question(shape, rng, number) for number in range(num_questions)]
    popularity = [1 / (rank + 1) for rank in range(num_questions)]
    asked = rng.choices(questions, popularity, k=num_runs)
    return [RunTrace(f"run-{n}", q.prompt_tokens, q.shared_tokens, q.turns) for n, q in enumerate(asked)]


def resampled(runs: list[RunTrace], num_runs: int, *, seed: int) -> list[RunTrace]:
    """Draw runs from recorded ones by a Zipf law, so that some are asked often."""
    rng = random.Random(seed)
    order = rng.sample(runs, len(runs))
    asked = rng.choices(order, [1 / (rank + 1) for rank in range(len(order))], k=num_runs)
    return [RunTrace(f"run-{n}", run.prompt_tokens, run.shared_tokens, run.turns) for n, run in enumerate(asked)]


def _question(shape: Shape, rng: random.Random, number: int) -> RunTrace:
    def length(name: str) -> int:
        mean, sigma = getattr(shape, name), _SPREAD[name]
        return max(1, round(rng.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)))

    searches = tuple(
        TurnTrace(length("sampled"), length("passages"), f"query {number} {n}")
        for n in range(rng.choice(shape.num_searches))
    )
    prompt_tokens = max(length("prompt"), shape.shared + 1)
    return RunTrace(f"question-{number}", prompt_tokens, shape.shared, (*searches, TurnTrace(length("last_sampled"))))


def write(path: Path, runs: Iterable[RunTrace]) -> None:
    """Write a trace as JSON Lines."""
    path.write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs), encoding="utf-8")


def read(path: Path) -> list[RunTrace]:
    """Read a trace that ``write`` wrote."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [RunTrace(**{**record, "turns": tuple(TurnTrace(**turn) for turn in record["turns"])}) for record in records]


def counter(tokenizer: str | None) -> Count:
    """Return what counts tokens: a tokenizer, by its folder or name, or characters."""
    if tokenizer is None:
        return lambda text: math.ceil(len(text) / _CHARS_PER_TOKEN)
    loaded = Tokenizer.load(tokenizer)
    return lambda text: len(loaded.encode(text))


def main() -> None:
    """Write a trace, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of recorded runs")
    parser.add_argument("--like", choices=SHAPES, default="recorded", help="the shape to draw, without --runs")
    parser.add_argument("--num", type=int, default=2000, help="runs to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokenizer", help="folder or name; without it, 3.6 characters count as a token")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    runs = (
        recorded(args.runs, counter(args.tokenizer))
        if args.runs
        else drawn(SHAPES[args.like], args.num, seed=args.seed)
    )
    write(args.out, runs)
    turns = [turn for run in runs for turn in run.turns]
    searches = [turn for turn in turns if turn.passage_tokens]
    print(f"{len(runs)} runs of {len(turns) / len(runs):.2f} turns, prompts of which all share {runs[0].shared_tokens}")
    print(f"prompt {sum(run.prompt_tokens for run in runs) / len(runs):.0f} tokens")
    print(f"sampled before a search {sum(turn.num_sampled for turn in searches) / len(searches):.0f} tokens")
    print(f"passages {sum(turn.passage_tokens for turn in searches) / len(searches):.0f} tokens")
    print(f"last turn {sum(run.turns[-1].num_sampled for run in runs) / len(runs):.0f} tokens")


if __name__ == "__main__":
    main()
