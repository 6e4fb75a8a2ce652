"""The retry budget's arithmetic, on a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from searchr1.engines.retry_budget import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spent(budget: RetryBudget, tries: int) -> int:
    return sum(budget.try_spend() for _ in range(tries))


def test_the_floor_alone() -> None:
    clock = Clock()
    budget = RetryBudget(share=0.2, floor_per_s=1.0, window_s=10.0, clock=clock)
    assert spent(budget, 50) == 10
    assert budget.num_refused == 40
    clock.now += 9.0
    assert spent(budget, 50) == 0
    clock.now += 2.0
    assert spent(budget, 50) == 10


def test_a_share_of_what_was_begun() -> None:
    clock = Clock()
    budget = RetryBudget(share=0.2, floor_per_s=0.0, window_s=10.0, clock=clock)
    assert spent(budget, 5) == 0
    for _ in range(100):
        budget.note_completion()
    assert spent(budget, 50) == 20
    clock.now += 11.0
    assert spent(budget, 5) == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_no_retry_is_one_more_than_its_window_may_hold(steps: list[tuple[float, int, int]]) -> None:
    clock = Clock()
    budget = RetryBudget(share=0.2, floor_per_s=1.0, window_s=10.0, clock=clock)
    begun: list[float] = []
    retried: list[float] = []
    for pause_s, num_completions, num_tries in steps:
        clock.now += pause_s
        for _ in range(num_completions):
            budget.note_completion()
            begun.append(clock.now)
        retried += [clock.now for _ in range(num_tries) if budget.try_spend()]
        if retried[-1:] != [clock.now]:
            continue
        in_window = [at for at in retried if at > clock.now - 9.0]
        assert len(in_window) <= 0.2 * sum(at > clock.now - 11.0 for at in begun) + 10
