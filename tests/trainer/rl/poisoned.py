"""A reward for tiny runs that spoils the first process's gradients in some steps, as an overflow would.

Rewards are opened in the first process alone, and importing this module changes its losses: the loss is finite, its
gradient is not, and no other process sees that by itself.
"""

from typing import Any

from searchr1.trainer.rl.algorithms.base import Algorithm
from tests.trainer.rl.tiny_run import ROLLOUTS_PER_STEP, vowels

_policy_loss = Algorithm.policy_loss
_state = {"rollouts": 0, "poisons": False}


def second_step(outcome: Any) -> float:
    """The reward of ``vowels``; the second step's gradients are not finite."""
    return _counted(outcome, range(2, 3))


def from_the_second_step_on(outcome: Any) -> float:
    """The reward of ``vowels``; no step's gradients are finite but the first one's."""
    return _counted(outcome, range(2, 1000))


def _counted(outcome: Any, steps: range) -> float:
    _state["poisons"] = _state["rollouts"] // ROLLOUTS_PER_STEP + 1 in steps
    _state["rollouts"] += 1
    return vowels(outcome)


def _poisoned(self: Algorithm, tokens: Any) -> Any:
    if _state["poisons"]:
        tokens.logprobs.register_hook(lambda gradient: gradient * float("nan"))
    return _policy_loss(self, tokens)


Algorithm.policy_loss = _poisoned  # type: ignore[method-assign]
