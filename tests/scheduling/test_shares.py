"""Shares of a capacity: what always holds of them, and what a scheduler does with its part."""

from hypothesis import given
from hypothesis import strategies as st

from searchr1.scheduling.decisions import Admit, Decision, Moved, Refuse
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.scheduler import Scheduler
from searchr1.scheduling.shares import Part, divide, steady

WHOLES = st.integers(0, 10**7)
FLOORS = st.integers(0, 10**5)
DEMANDS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 10**7), min_size=1, max_size=12)


@given(WHOLES, FLOORS, DEMANDS)
def test_shares_are_no_more_than_the_whole_and_no_less_than_the_floor(
    whole: int, floor: int, demands: dict[str, int]
) -> None:
    shares = divide(whole, floor, demands)
    assert shares.keys() == demands.keys()
    assert sum(shares.values()) <= whole
    assert whole - sum(shares.values()) < max(1, len(shares)), "only what rounding leaves is nobody's"
    least = min(floor, whole // (2 * len(demands))) if whole >= 2 * len(demands) else 0
    assert min(shares.values()) >= least
    if floor and whole >= len(demands):
        assert min(shares.values()) >= 1


@given(WHOLES, FLOORS, DEMANDS, st.integers(0, 10**6))
def test_who_wants_more_gets_no_less_and_the_others_no_more(
    whole: int, floor: int, demands: dict[str, int], more: int
) -> None:
    name = min(demands)
    before, after = divide(whole, floor, demands), divide(whole, floor, {**demands, name: demands[name] + more})
    assert after[name] >= before[name]
    assert all(after[other] <= before[other] for other in demands if other != name)


@given(WHOLES, FLOORS, DEMANDS)
def test_demands_that_fit_together_are_met(whole: int, floor: int, demands: dict[str, int]) -> None:
    if sum(max(demand, floor) for demand in demands.values()) <= whole:
        shares = divide(whole, floor, demands)
        assert all(shares[name] >= demand for name, demand in demands.items())


@given(WHOLES, FLOORS, st.integers(0, 10**7), st.integers(1, 12))
def test_equal_demands_get_equal_shares(whole: int, floor: int, demand: int, number: int) -> None:
    shares = divide(whole, floor, {str(name): demand for name in range(number)})
    assert set(shares.values()) == {whole // number}


@given(st.integers(0, 10**7), st.lists(st.integers(0, 10**7), max_size=20))
def test_an_announced_demand_is_never_far_from_the_present_one(announced: int, demands: list[int]) -> None:
    for demand in demands:
        before, announced = announced, steady(announced, demand)
        assert announced in (before, demand)
        assert abs(announced - demand) * 8 <= announced


def test_small_changes_of_demand_change_no_share() -> None:
    announced = steady(0, 8000)
    assert [steady(announced, demand) for demand in (7000, 8999, 9000, 8000)] == [8000] * 4
    assert steady(announced, 6999) == 6999


# A scheduler with a part of a replica


def scheduler(part: Part | None, *, max_runs: int | None = None) -> Scheduler:
    made = Scheduler(SchedulingOptions(max_runs=max_runs, first_growth_tokens=0))
    made.replica_changed("r", 1000, healthy=True, now=0.0, part=part)
    return made


def submit(one: Scheduler, run: str, tokens: int = 100) -> list[Decision]:
    return one.submit(run, tenant="t", key="k", prompt_tokens=tokens, now=0.0)


def test_runs_start_within_the_part_that_is_meant_for_them() -> None:
    one = scheduler(Part(300, 300))
    decisions = [submit(one, f"run-{number}")[0] for number in range(4)]
    assert [type(decision) for decision in decisions] == [Admit, Admit, Admit, Moved]
    assert one.demand.charged_tokens == {"r": 300}
    assert one.demand.unplaced_tokens == 100
    assert one.replica_changed("r", 1000, healthy=True, now=1.0, part=Part(400, 400)) == [Admit("run-3", "r")]


def test_a_part_that_shrinks_pauses_nobody_and_lets_nobody_in() -> None:
    one = scheduler(Part(300, 300))
    for number in range(4):
        submit(one, f"run-{number}")
    assert one.replica_changed("r", 1000, healthy=True, now=1.0, part=Part(100, 300)) == []
    assert one.turn_ended("run-0", 100, 1.0) == []
    assert one.ended("run-0", 1.0) == []
    assert one.ended("run-1", 1.0) == []
    assert one.ended("run-2", 1.0) == [Admit("run-3", "r")]


def test_a_run_that_is_larger_than_the_part_starts_alone_and_one_larger_than_the_replica_never() -> None:
    one = scheduler(Part(0, 0))
    assert submit(one, "large", 900) == [Admit("large", "r")]
    assert isinstance(submit(one, "second", 10)[0], Moved)
    assert submit(one, "too large", 1001) == [Refuse("too large", "too_large", None)]


def test_another_bound_of_runs_holds_from_then_on() -> None:
    one = scheduler(None, max_runs=8)
    assert one.runs_limited(1, 0.0) == []
    assert isinstance(submit(one, "first")[0], Admit)
    assert isinstance(submit(one, "second")[0], Moved)
    assert one.demand.num_runs == 2
    assert one.demand.num_admitted == 1
    assert one.runs_limited(2, 1.0) == [Admit("second", "r")]
