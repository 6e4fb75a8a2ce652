"""A small simulated engine, and a loop that plays requests through it."""

from collections.abc import Callable, Sequence

from loadtests.simulator.decoding import Request
from loadtests.simulator.rates import EngineParams, EnginePolicy
from loadtests.simulator.replica import Replica

Ends = list[tuple[str, float]]


def small_params(*, blocks: int = 64, block_size: int = 4, seqs: int = 8, batched: int = 32) -> EngineParams:
    """Rates of whole milliseconds, so that times can be worked out by hand."""
    return EngineParams(
        name="small",
        num_blocks=blocks,
        block_size=block_size,
        max_num_seqs=seqs,
        max_num_batched_tokens=batched,
        step_s=0.010,
        prefill_token_s=0.001,
        decode_s=0.002,
        context_token_s=0.0,
    )


def asked(own: str, prompt_tokens: int, num_sampled: int, *, priority: int = 0, prefix_tokens: int = 0) -> Request:
    """A request of the run ``own``."""
    return Request(
        own=own,
        prefix=f"the first {prefix_tokens}",
        prefix_tokens=prefix_tokens,
        prompt_tokens=prompt_tokens,
        num_sampled=num_sampled,
        priority=priority,
    )


class Unmerged(Replica):
    """A replica that takes every step on its own."""

    def _num_plain_steps(self) -> int:
        return 1


def play(
    params: EngineParams,
    arrivals: Sequence[tuple[float, Request]],
    *,
    policy: EnginePolicy = "fcfs",
    kind: type[Replica] = Replica,
    keeps: Callable[[Request], bool] = lambda request: False,
) -> tuple[Replica, Ends]:
    """Let requests come at their times; return the replica, and who ended when."""
    ends: Ends = []
    replica = kind(params, policy, lambda request, now: ends.append((request.own, now)), keeps)
    coming = sorted(arrivals, key=lambda arrival: arrival[0])
    while coming or replica.ends_at is not None:
        if coming and (replica.ends_at is None or coming[0][0] < replica.ends_at):
            at, request = coming.pop(0)
            replica.submit(request, at)
        else:
            assert replica.ends_at is not None
            replica.end_span(replica.ends_at)
    return replica, ends
