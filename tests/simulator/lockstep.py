"""Scripts of runs, played step by step through the simulated replica and through vLLM's own scheduler."""

import heapq
import random
from dataclasses import dataclass, field
from typing import Protocol

from loadtests.simulator.decoding import Request
from loadtests.simulator.rates import EngineParams, EnginePolicy
from loadtests.simulator.replica import Replica

PREFIX_TOKENS = 10
_MAX_STEPS = 3000


@dataclass(frozen=True)
class ScriptedRun:
    """A run: when its first turn comes, what it writes in each turn, and what comes in between."""

    name: str
    at_step: int
    shares_prefix: bool
    prompt_tokens: int
    turns: tuple[int, ...]
    """Tokens written in each turn."""
    gaps: tuple[tuple[int, int], ...]
    """Between two turns: the steps that pass, and the tokens that come in."""
    priority: int

    @property
    def max_tokens(self) -> int:
        """Tokens of its last turn's prompt and completion."""
        return self.prompt_tokens + sum(self.turns) + sum(tokens for _, tokens in self.gaps)

    def tokens(self, stop: int, start: int = 0) -> list[int]:
        """Return some of its tokens, which no other run has but for the prefix."""
        number = 1 + int(self.name.removeprefix("run-"))
        shared = PREFIX_TOKENS if self.shares_prefix else 0
        return [at if at < shared else 1000 * number + at for at in range(start, stop)]


@dataclass(frozen=True)
class Script:
    """Runs, and the engine that they meet."""

    params: EngineParams
    policy: EnginePolicy
    runs: tuple[ScriptedRun, ...]


@dataclass
class Step:
    """What one step computed: tokens by request, and which requests it preempted."""

    scheduled: dict[str, int]
    preempted: frozenset[str]


@dataclass
class Played:
    """What became of a script, step by step; requests are named by run and turn."""

    steps: list[Step] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)
    """Prompt tokens that each request found in the prefix cache when it first started."""
    ended_at: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """What is played through."""

    def submit_turn(self, run: ScriptedRun, turn: int, prompt_tokens: int) -> None:
        """Take a request."""
        ...

    def step(self) -> Step | None:
        """Begin a step; None where there is nothing to do."""
        ...

    def end_step(self) -> list[tuple[str, int]]:
        """End the step, and return the requests that were finished, each with what it found in the cache."""
        ...


def drawn_script(seed: int, policy: EnginePolicy) -> Script:
    """Return a script of few runs on a cache that is too small for them."""
    rng = random.Random(seed)
    block_size = rng.choice([2, 4, 8])
    runs = []
    for number in range(rng.randint(2, 9)):
        num_turns = rng.randint(1, 4)
        shares = rng.random() < 0.6
        runs.append(
            ScriptedRun(
                name=f"run-{number}",
                at_step=rng.randint(0, 12),
                shares_prefix=shares,
                prompt_tokens=rng.randint(PREFIX_TOKENS + 1 if shares else 1, 40),
                turns=tuple(rng.randint(1, 12) for _ in range(num_turns)),
                gaps=tuple((rng.randint(1, 9), rng.randint(1, 25)) for _ in range(num_turns - 1)),
                priority=rng.randint(-2, 2),
            )
        )
    largest = max(run.max_tokens for run in runs)
    least_blocks = -(-largest // block_size) + 1
    max_num_seqs = rng.randint(1, 6)
    params = EngineParams(
        name="small",
        num_blocks=rng.randint(least_blocks, 3 * least_blocks),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + rng.randint(1, 40),
        step_s=1.0,
        prefill_token_s=0.0,
        decode_s=0.0,
        context_token_s=0.0,
    )
    return Script(params, policy, tuple(runs))


def play(script: Script, engine: Engine) -> Played:
    """Play a script to its end."""
    played = Played()
    coming = [(run.at_step, order, run, 0, run.prompt_tokens) for order, run in enumerate(script.runs)]
    heapq.heapify(coming)
    open_turns: dict[str, tuple[ScriptedRun, int, int]] = {}
    orders, now = len(coming), 0
    while (coming or open_turns) and now < _MAX_STEPS:
        while coming and coming[0][0] <= now:
            _, _, run, turn, prompt_tokens = heapq.heappop(coming)
            open_turns[f"{run.name}.{turn}"] = (run, turn, prompt_tokens)
            engine.submit_turn(run, turn, prompt_tokens)
        if (step := engine.step()) is not None:
            played.steps.append(step)
            for name, hit in engine.end_step():
                run, turn, prompt_tokens = open_turns.pop(name)
                played.hits[name], played.ended_at[name] = hit, now
                if turn < len(run.gaps):
                    steps, tokens = run.gaps[turn]
                    more = (now + steps, orders, run, turn + 1, prompt_tokens + run.turns[turn] + tokens)
                    heapq.heappush(coming, more)
                    orders += 1
        now += 1
    assert not open_turns, f"never ended: {sorted(open_turns)}"
    return played


class Simulated(Replica):
    """The simulated replica, one step at a time, as the caller says."""

    def __init__(self, script: Script) -> None:
        self._ended: list[tuple[str, int]] = []
        super().__init__(script.params, script.policy, self._note_end)
        self._now = 0.0
        self._names: dict[int, str] = {}
        self._chunks: dict[int, int] = {}
        self._gone: set[str] = set()

    def submit_turn(self, run: ScriptedRun, turn: int, prompt_tokens: int) -> None:
        """Take a request."""
        prefix_tokens = PREFIX_TOKENS if run.shares_prefix else 0
        request = Request(
            own=run.name,
            prefix=f"the first {prefix_tokens}",
            prefix_tokens=prefix_tokens,
            prompt_tokens=prompt_tokens,
            num_sampled=run.turns[turn],
            priority=run.priority,
        )
        self._names[id(request)] = f"{run.name}.{turn}"
        self.submit(request, self._now)

    def step(self) -> Step | None:
        """Begin a step; None where there is nothing to do."""
        self._chunks.clear()
        self._gone.clear()
        self._begin_span(self._now)
        if self.ends_at is None:
            return None
        running = self._running.values()
        scheduled = {
            self._names[id(request)]: 1 if request.is_decoding else self._chunks[id(request)]
            for request in running
            if (request.is_decoding and request not in self._held_back) or id(request) in self._chunks
        }
        return Step(scheduled, frozenset(self._gone))

    def end_step(self) -> list[tuple[str, int]]:
        """End the step, and return the requests that were finished."""
        self._now += 1.0
        self.end_span(self._now)
        ended, self._ended = self._ended, []
        return ended

    def wake(self, now: float) -> None:
        """Wait for ``step``."""

    def end_span(self, now: float) -> None:
        """End the step, and begin none."""
        begin, self._begin_span = self._begin_span, lambda now: None  # type: ignore[method-assign]
        super().end_span(now)
        self._begin_span = begin  # type: ignore[method-assign]

    def _num_plain_steps(self) -> int:
        return 1

    def _compute(self, request: Request, num_tokens: int, *, must_fit: bool) -> bool:
        done = super()._compute(request, num_tokens, must_fit=must_fit)
        if done:
            self._chunks[id(request)] = num_tokens
        return done

    def _preempt(self, request: Request) -> None:
        self._gone.add(self._names[id(request)])
        super()._preempt(request)

    def _note_end(self, request: Request, now: float) -> None:
        self._ended.append((self._names.pop(id(request)), request.cached_tokens))
