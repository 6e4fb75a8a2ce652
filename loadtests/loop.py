"""What the loop itself costs: CPU microseconds per streamed token, without an engine and without HTTP.

``python loadtests/loop.py`` prints, for one search trajectory of a few hundred tokens,

* ``scanner``: the tag scanner alone,
* ``machine``: a rollout, fed token by token: events, segments, ids, retrieval of given passages,
* ``driver``: ``drive`` over an engine that never waits, with and without a deadline: what asyncio adds.

Each figure is the best of several rounds, as CPU time of this process. Exit status 1 if the machine costs more than
``--bar-us`` per token.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from searchr1.driver import DriveOptions, drive
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import TagScanner
from searchr1.loop.types import Generate, Passage, Search, TokenIds
from searchr1.retrieval.base import Found, SearchOutcome

THOUGHT = "I should find out in which country the city is before I can say what its currency is called. " * 12
TURNS = (
    f"<think> {THOUGHT}</think>\n<search> country of Timbuktu </search>",
    f"<think> {THOUGHT}</think>\n<search> currency of Mali </search>",
    f"<think> {THOUGHT}</think>\n<answer> the West African CFA franc </answer>",
)
PASSAGES = (Passage("1", '"Mali"', "Mali is a country in West Africa. " * 8),) * 3
CHARS_PER_TOKEN = 4


def tokens_of(text: str) -> list[str]:
    """Pieces of the length that tokens of English have."""
    return [text[i : i + CHARS_PER_TOKEN] for i in range(0, len(text), CHARS_PER_TOKEN)]


def encode(text: str) -> list[int]:
    """A tokenizer that costs next to nothing, so that the loop's own cost shows."""
    return list(range(len(text) // CHARS_PER_TOKEN))


TOKENS = [tokens_of(text) for text in TURNS]
NUM_TOKENS = sum(map(len, TOKENS))


def new_rollout() -> Rollout:
    return Rollout(prompt="", prompt_ids=range(200), encode=encode)


def scan() -> None:
    """One trajectory through the scanner."""
    for tokens in TOKENS:
        scanner = TagScanner(SEARCH_R1.tags)
        for token in tokens:
            scanner.feed(token)
        assert scanner.settled


def step() -> None:
    """One trajectory through the state machine."""
    rollout, turns = new_rollout(), iter(TOKENS)
    while rollout.status is None:
        if isinstance(rollout.action, Search):
            rollout.receive_passages(PASSAGES)
            continue
        for i, token in enumerate(next(turns)):
            rollout.receive_text(token, (i,))
        rollout.end_completion("stop")
    assert rollout.answer


class ReadyEngine:
    """Has all tokens at hand."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Give the tokens of one turn: the driver was told to let the priority name it."""
        tokens = TOKENS[-priority - 1]
        for i, token in enumerate(tokens, start=1):
            yield Chunk(token, (i,), "stop" if i == len(tokens) else None)


class ReadyRetriever:
    """Has all passages at hand."""

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Give the passages."""
        return Found(PASSAGES)


async def drive_rollouts(count: int, deadline_s: float | None) -> None:
    """``count`` trajectories through the driver, one after the other."""
    options = DriveOptions(session="s", deadline_s=deadline_s, priority_by_turn=True)
    for _ in range(count):
        rollout = new_rollout()
        assert isinstance(rollout.action, Generate)
        async for _event in drive(rollout, ReadyEngine(), ReadyRetriever(), options):
            pass
        assert rollout.answer


def us_per_token(work: Callable[[], None], repeats: int, rounds: int) -> float:
    """The best round's CPU time per token; ``work`` does one trajectory ``repeats`` times a round."""

    def round_s() -> float:
        started = time.process_time()
        for _ in range(repeats):
            work()
        return time.process_time() - started

    return min(round_s() for _ in range(rounds)) * 1e6 / (repeats * NUM_TOKENS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="trajectories a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the best counts (default: %(default)s)")
    parser.add_argument("--bar-us", type=float, default=5.0, help="the machine's bar (default: %(default)s)")
    args = parser.parse_args(arguments)
    repeats, rounds = int(args.repeats), int(args.rounds)

    def driven(deadline_s: float | None) -> float:
        return us_per_token(lambda: asyncio.run(drive_rollouts(repeats, deadline_s)), 1, rounds) / repeats

    machine = us_per_token(step, repeats, rounds)
    print(f"{NUM_TOKENS} tokens a trajectory, {len(TURNS)} turns; CPU µs per streamed token, best of {rounds} rounds")
    print(f"scanner                 {us_per_token(scan, repeats, rounds):6.2f}")
    print(f"machine                 {machine:6.2f}   bar {args.bar_us:g}")
    print(f"driver, no deadline     {driven(None):6.2f}")
    print(f"driver, with deadline   {driven(3600):6.2f}")
    return 0 if machine <= args.bar_us else 1


if __name__ == "__main__":
    sys.exit(main())
