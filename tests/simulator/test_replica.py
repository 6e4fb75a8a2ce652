"""The simulated vLLM: step times, chunks, blocks, queues and preemption in small cases, and merged steps in any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.simulator.decoding import Request
from loadtests.simulator.rates import EnginePolicy
from loadtests.simulator.replica import Replica
from tests.simulator.engine import Unmerged, asked, play, small_params


def test_a_completion_takes_one_step_for_its_prompt_and_one_for_each_further_token() -> None:
    replica, ends = play(small_params(), [(0.0, asked("a", 20, 5))])
    [(_, at)] = ends
    assert at == pytest.approx(0.010 + 0.020 + 4 * 0.012)
    assert replica.num_steps == 5


def test_a_long_prompt_is_computed_in_chunks() -> None:
    replica, ends = play(small_params(batched=32), [(0.0, asked("a", 70, 1))])
    [(_, at)] = ends
    assert at == pytest.approx(3 * 0.010 + 0.070)
    assert replica.num_steps == 3


def test_who_decodes_goes_before_chunks() -> None:
    """A prompt of 64 tokens beside one sequence that decodes: chunks of 31, 31 and 2."""
    first, second = asked("first", 4, 20), asked("second", 64, 1)
    _, ends = play(small_params(batched=32), [(0.0, first), (0.001, second)])
    own, at = ends[0]
    assert own == "second"
    assert at == pytest.approx(0.014 + 3 * 0.012 + 0.064)


def test_sequences_are_bounded() -> None:
    """Of three, the third begins when the first has ended: a step of its prompt beside one that decodes."""
    last = asked("c", 4, 10)
    arrivals = [(0.0, asked("a", 4, 10)), (0.0, asked("b", 4, 10)), (0.0, last)]
    _, ends = play(small_params(seqs=2), arrivals)
    own, at = ends[0]
    assert own == "a"
    assert at == pytest.approx(0.014 + 0.016 + 8 * 0.014)
    assert last.first_token_at == pytest.approx(at + 0.016)


@pytest.mark.parametrize("prompt_tokens", [7, 8, 9])
@pytest.mark.parametrize("num_sampled", [1, 4, 5])
def test_the_next_turn_finds_every_full_block_of_the_last(prompt_tokens: int, num_sampled: int) -> None:
    """The last token that was sampled is not in the cache: vLLM's ⌊(prompt + generated − 1) / block⌋ · block."""
    later = asked("a", prompt_tokens + num_sampled + 6, 2)
    play(small_params(), [(0.0, asked("a", prompt_tokens, num_sampled)), (5.0, later)])
    assert later.cached_tokens == (prompt_tokens + num_sampled - 1) // 4 * 4


def test_a_prefix_is_found_by_the_next_request_of_the_same_step() -> None:
    first, second = asked("a", 11, 2, prefix_tokens=9), asked("b", 11, 2, prefix_tokens=9)
    play(small_params(), [(0.0, asked("before", 4, 2)), (0.001, first), (0.001, second)])
    assert (first.cached_tokens, second.cached_tokens) == (0, 8)


def test_the_head_waits_for_blocks_for_its_whole_prompt_and_nobody_passes_it() -> None:
    """Of 8 blocks ``a`` holds 6: ``big`` needs 5, ``small`` only 1."""
    arrivals = [(0.0, asked("a", 20, 4)), (0.001, asked("big", 20, 1)), (0.002, asked("small", 2, 1))]
    _, ends = play(small_params(blocks=8), arrivals)
    assert [own for own, _ in ends] == ["a", "big", "small"]
    by_priority = [(0.0, asked("a", 20, 4)), (0.001, asked("big", 20, 1, priority=1)), (0.002, asked("small", 2, 1))]
    _, ends = play(small_params(blocks=8), by_priority, policy="priority")
    assert [own for own, _ in ends] == ["small", "a", "big"]


@pytest.mark.parametrize(
    ("policy", "priorities", "victim"),
    [("fcfs", (0, 0, 0), "c"), ("priority", (0, 5, 1), "b"), ("priority", (1, 1, 1), "c"), ("fcfs", (9, 5, 1), "c")],
)
def test_where_blocks_run_out_one_is_preempted_and_computed_again(
    policy: EnginePolicy, priorities: tuple[int, ...], victim: str
) -> None:
    requests = {own: asked(own, 8, 20, priority=p) for own, p in zip("abc", priorities, strict=True)}
    arrivals = [(0.0001 * number, request) for number, request in enumerate(requests.values())]
    replica, ends = play(small_params(blocks=12), arrivals, policy=policy)
    assert requests[victim].num_preemptions >= 1
    assert [own for own, _ in ends][-1] == victim
    assert sorted(own for own, _ in ends) == ["a", "b", "c"]
    assert replica.num_preemptions == sum(request.num_preemptions for request in requests.values())
    assert replica.cache.num_free == 12


def test_a_request_larger_than_the_cache_is_an_error() -> None:
    with pytest.raises(ValueError, match="exceeds the whole KV cache"):
        play(small_params(blocks=4), [(0.0, asked("a", 20, 1))])


def test_pinned_runs_come_back_to_their_blocks_and_give_way_where_nothing_else_can_run() -> None:
    keeps = lambda request: request.num_sampled == 3  # noqa: E731
    filler = asked("filler", 16, 1)
    back = asked("a", 16, 1)
    play(small_params(blocks=8), [(0.0, asked("a", 8, 3)), (1.0, filler), (2.0, back)], keeps=keeps)
    assert back.cached_tokens == 8
    unkept = asked("a", 16, 1)
    play(small_params(blocks=5), [(0.0, asked("a", 8, 3)), (1.0, asked("filler", 20, 1)), (2.0, unkept)], keeps=keeps)
    assert unkept.cached_tokens == 0


REQUESTS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 40), st.integers(1, 30), st.integers(0, 2), st.sampled_from([0, 9])),
    min_size=1,
    max_size=14,
)


@given(drawn=REQUESTS, policy=st.sampled_from(["fcfs", "priority"]), blocks=st.integers(20, 60))
def test_merged_steps_come_to_the_same_as_single_ones(
    drawn: list[tuple[int, int, int, int, int]], policy: EnginePolicy, blocks: int
) -> None:
    def arrivals() -> list[tuple[float, Request]]:
        """Steps take whole milliseconds, so that nobody comes at the very end of one."""
        coming = []
        for number, (at_ms, prompt_tokens, num_sampled, priority, prefix_tokens) in enumerate(drawn):
            prompt_tokens += prefix_tokens
            own = f"run-{number}"
            request = asked(own, prompt_tokens, num_sampled, priority=priority, prefix_tokens=prefix_tokens)
            coming.append((at_ms / 1000 + 0.00001 * (number + 1), request))
        return coming

    told = []
    for kind in (Replica, Unmerged):
        coming = arrivals()
        replica, ends = play(small_params(blocks=blocks), coming, policy=policy, kind=kind)
        assert replica.cache.num_free == blocks
        assert len(ends) == len(drawn)
        requests = [request for _, request in coming]
        told.append(
            (
                sorted((own, round(at, 6)) for own, at in ends),
                [(r.cached_tokens, r.recomputed_tokens, r.num_preemptions) for r in requests],
                replica.num_steps,
            )
        )
    assert told[0] == told[1]
