"""The simulated replica beside vLLM's own scheduler, step by step: the same tokens, preemptions and cache hits."""

from collections.abc import Callable

import pytest

from loadtests.simulator.rates import EnginePolicy
from tests.simulator.lockstep import Engine, Played, Script, Simulated, drawn_script, play

pytestmark = pytest.mark.vllm

SEEDS = range(60)


@pytest.fixture(scope="module")
def of_vllm() -> Callable[[Script], Engine]:
    """A maker of vLLM's scheduler for a script."""
    from tests.simulator.vllm_scheduler import OfVllm

    return OfVllm


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_each_step_is_the_one_that_vllm_takes(policy: EnginePolicy, of_vllm: Callable[[Script], Engine]) -> None:
    scripts = [drawn_script(seed, policy) for seed in SEEDS]
    of_ours = [play(script, Simulated(script)) for script in scripts]
    of_theirs = [play(script, of_vllm(script)) for script in scripts]
    assert [seed for seed in SEEDS if of_ours[seed] != of_theirs[seed]] == []
    assert sum(map(num_preempted, of_theirs)) > 5
    assert sum(sum(played.hits.values()) for played in of_theirs) > 1000
    assert max(len(played.steps) for played in of_theirs) > 50


def test_an_engine_that_knows_no_priorities_is_seen(of_vllm: Callable[[Script], Engine]) -> None:
    """What is compared tells apart who goes first: the scripts of priorities, on an engine that has none."""
    scripts = [drawn_script(seed, "priority") for seed in range(5)]
    without = [Script(script.params, "fcfs", script.runs) for script in scripts]
    of_theirs = [play(script, of_vllm(script)) for script in scripts]
    assert [play(script, Simulated(script)) for script in scripts] == of_theirs
    assert [play(script, Simulated(script)) for script in without] != of_theirs


def num_preempted(played: Played) -> int:
    """Return the preemptions in all steps."""
    return sum(len(step.preempted) for step in played.steps)
