"""The fair queue: order, shares by weight, places, and leaving from the middle."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.scheduling.fair_queue import FairQueue, Ticket


def filled(*tickets: Ticket) -> FairQueue:
    queue = FairQueue()
    for ticket in tickets:
        queue.add(ticket)
    return queue


def runs(queue: FairQueue) -> list[str]:
    """Take everything, and return the runs in the order of their start."""
    order = []
    while queue.head() is not None:
        order.append(queue.take().run)
    return order


def test_one_key_is_served_in_order() -> None:
    queue = filled(*(Ticket(f"run-{n}", "t", "k", 1 + n) for n in range(5)))
    assert runs(queue) == [f"run-{n}" for n in range(5)]
    assert len(queue) == queue.num_tenants == queue.num_of("t") == 0
    assert queue.head() is None


def test_tenants_take_turns_and_so_do_keys_inside() -> None:
    many = [Ticket(f"a{n}", "a", "k", 10) for n in range(4)]
    few = [Ticket("b0", "b", "k", 10), Ticket("b1", "b", "other", 10)]
    assert runs(filled(*many, *few)) == ["a0", "b0", "a1", "b1", "a2", "a3"]
    keys = [*(Ticket(f"k{n}", "a", "k", 10) for n in range(3)), *(Ticket(f"l{n}", "a", "l", 10) for n in range(2))]
    assert runs(filled(*keys)) == ["k0", "l0", "k1", "l1", "k2"]


def test_weights_divide_tokens() -> None:
    tickets = [Ticket(f"{t}{n}", t, "k", 10, tenant_weight=w) for t, w in (("a", 3), ("b", 1)) for n in range(30)]
    started = Counter(run[0] for run in runs(filled(*tickets))[:20])
    assert started == {"a": 15, "b": 5}


def test_large_runs_take_as_many_tokens_as_small_ones() -> None:
    large = [Ticket(f"a{n}", "a", "k", 100) for n in range(20)]
    small = [Ticket(f"b{n}", "b", "k", 10) for n in range(200)]
    started = Counter(run[0] for run in runs(filled(*large, *small))[:110])
    assert started == {"a": 10, "b": 100}


def test_nobody_passes_the_head_and_asking_changes_nothing() -> None:
    queue = filled(Ticket("big", "a", "k", 500), Ticket("small", "b", "k", 1))
    assert [queue.head(), queue.head()] == [Ticket("big", "a", "k", 500)] * 2
    queue.add(Ticket("late", "c", "k", 1))
    assert queue.take().run == "big"


@pytest.mark.parametrize("left", ["a0", "a1", "b0"])
def test_a_run_leaves_from_wherever_it_stands(left: str) -> None:
    tickets = {t.run: t for t in (Ticket("a0", "a", "k", 5), Ticket("a1", "a", "k", 5), Ticket("b0", "b", "k", 5))}
    queue = filled(*tickets.values())
    assert queue.head() == tickets["a0"]
    queue.remove(tickets[left])
    assert len(queue) == 2
    assert sorted(runs(queue)) == sorted(tickets.keys() - {left})


def test_a_place_counts_who_is_expected_before() -> None:
    queue = filled(*(Ticket(f"a{n}", "a", "k", 10) for n in range(3)))
    polite = Ticket("b0", "b", "k", 10)
    queue.add(polite)
    assert queue.place(polite) == 1
    assert {ticket.run: place for ticket, place in queue.places()} == {"a0": 1, "a1": 3, "a2": 3, "b0": 1}
    assert FairQueue().place(polite) == 0


WEIGHTS = st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=4)
COSTS = st.lists(st.integers(1, 50), min_size=60, max_size=60)


@given(weights=WEIGHTS, costs=st.data())
def test_shares_of_the_backlogged_differ_by_a_constant(weights: list[float], costs: st.DataObject) -> None:
    lines = [deque(costs.draw(COSTS)) for _ in weights]
    queue = filled(
        *(
            Ticket(f"{t}-{n}", str(t), "k", cost, tenant_weight=weights[t])
            for t, line in enumerate(lines)
            for n, cost in enumerate(line)
        )
    )
    served = [0.0] * len(weights)
    while all(lines):
        tenant = int(queue.take().tenant)
        served[tenant] += lines[tenant].popleft()
        shares = [tokens / weight for tokens, weight in zip(served, weights, strict=True)]
        assert max(shares) - min(shares) <= 2 * 50 + 2 * 50 / min(weights)


def test_of_one_key_the_lowest_rank_goes_first_and_of_equals_the_one_that_came_first() -> None:
    ranks = {"c": 2.0, "b": 1.0, "a": 2.0, "d": 1.0}
    queue = filled(*(Ticket(run, "t", "k", 10, rank=rank) for run, rank in ranks.items()))
    assert {ticket.run: place for ticket, place in queue.places()} == {"b": 0, "d": 1, "c": 2, "a": 3}
    queue.remove(Ticket("d", "t", "k", 10, rank=1.0))
    assert [queue.take().run for _ in range(3)] == ["b", "c", "a"]


def test_a_tenant_that_is_passed_over_saves_nothing_up() -> None:
    queue = filled(*(Ticket(f"a{n}", "a", "k", 10) for n in range(60)))
    for number in range(50):
        queue.add(Ticket(f"b{number}", "b", "k", 10))
        assert queue.head(skipped="a") is not None
        assert queue.take(skipped="a").run == f"b{number}"
    for number in range(6):
        queue.add(Ticket(f"c{number}", "c", "k", 10))
    assert Counter(run[0] for run in runs(queue)[:8]) == {"a": 4, "c": 4}
