"""The guard before an optimizer step: what is not finite moves nothing, and is counted."""

import math

import pytest
import torch
from torch import nn

from searchr1.errors import TrainingError
from searchr1.trainer.rl.guard import NonFiniteGuard
from searchr1.trainer.rl.sections import OptimizerSection
from searchr1.trainer.rl.trained import Trained
from tests.trainer.rl.test_learner import ALONE

GOOD, BAD, INFINITE = torch.tensor(0.5), torch.tensor(math.nan), torch.tensor(math.inf)


@pytest.fixture
def trained() -> Trained[nn.Linear]:
    torch.manual_seed(0)
    return Trained(nn.Linear(3, 2), OptimizerSection(), lr=0.1, warmup_updates=0)


def learn(trained: Trained[nn.Linear], scale: float = 1.0) -> None:
    """Let gradients add up that are ``scale`` times an input's."""
    (trained.module(torch.ones(1, 3)).sum() * scale).backward()


def weights(trained: Trained[nn.Linear]) -> torch.Tensor:
    return trained.module.weight.detach().clone()


def test_a_sound_step_is_taken(trained: Trained[nn.Linear]) -> None:
    guard, before = NonFiniteGuard(ALONE, limit=1), weights(trained)
    guard.look("", GOOD)
    learn(trained)
    [norm] = guard.step({"": trained}, 0).values()
    assert norm == pytest.approx(math.sqrt(8))
    assert not weights(trained).equal(before)
    assert (guard.num_skipped, guard.in_a_row) == (0, 0)
    guard.check()


@pytest.mark.parametrize(("loss", "scale"), [(GOOD, math.nan), (GOOD, math.inf), (BAD, 1.0), (INFINITE, 1.0)])
def test_what_is_not_finite_moves_neither_weights_nor_moments(
    trained: Trained[nn.Linear], loss: torch.Tensor, scale: float
) -> None:
    guard = NonFiniteGuard(ALONE, limit=3)
    learn(trained)
    guard.step({"": trained}, 0)
    before, moments = weights(trained), trained.optimizer.state[trained.module.weight]["exp_avg"].clone()
    guard.look("", loss)
    learn(trained, scale)
    guard.step({"": trained}, 1)
    assert weights(trained).equal(before)
    assert trained.optimizer.state[trained.module.weight]["exp_avg"].equal(moments)
    assert trained.module.weight.grad is None
    assert (guard.num_skipped, guard.in_a_row) == (1, 1)
    learn(trained)
    guard.step({"": trained}, 2)
    assert not weights(trained).equal(before)
    assert (guard.num_skipped, guard.in_a_row) == (1, 0)


def test_each_model_is_judged_by_itself(trained: Trained[nn.Linear]) -> None:
    other = Trained(nn.Linear(3, 2), OptimizerSection(), lr=0.1, warmup_updates=0)
    guard, before = NonFiniteGuard(ALONE, limit=2), (weights(trained), weights(other))
    guard.look("critic_", BAD)
    learn(trained)
    learn(other)
    assert guard.step({"": trained, "critic_": other}, 0).keys() == {"", "critic_"}
    assert not weights(trained).equal(before[0])
    assert weights(other).equal(before[1])
    assert (guard.num_skipped, guard.in_a_row) == (1, 1)


def test_so_many_in_a_row_end_the_run(trained: Trained[nn.Linear]) -> None:
    guard = NonFiniteGuard(ALONE, limit=2)
    for update, loss in enumerate((BAD, GOOD, BAD)):
        guard.look("", loss)
        learn(trained)
        guard.step({"": trained}, update)
        guard.check()
    guard.look("", BAD)
    learn(trained)
    guard.step({"": trained}, 3)
    guard.look("", GOOD)
    learn(trained)
    guard.step({"": trained}, 4)  # The last of a step's minibatches being sound makes the others no better.
    with pytest.raises(TrainingError, match="2 optimizer steps in a row had a loss or a gradient that is not finite"):
        guard.check()


def test_without_a_model_there_is_no_step() -> None:
    assert NonFiniteGuard(ALONE, limit=1).step({}, 0) == {}
