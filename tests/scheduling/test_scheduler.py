"""The scheduler, row by row of its table."""

import pytest

from searchr1.errors import ConfigurationError, IllegalInputError
from searchr1.scheduling.decisions import Admit, Decision, Expire, Moved, Pause, Refuse, Resume
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.runs import State
from searchr1.scheduling.scheduler import Scheduler


def new_scheduler(capacity: int | None = 1000, *, growth: int = 100, **options: float) -> Scheduler:
    """A scheduler with one replica, ``one``, that expects every run to grow by ``growth`` tokens."""
    scheduler = Scheduler(SchedulingOptions(first_growth_tokens=growth, **options))  # type: ignore[arg-type]
    assert scheduler.replica_changed("one", capacity, healthy=True, now=0.0) == []
    return scheduler


def submit(
    scheduler: Scheduler, run: str, tokens: int = 300, *, now: float = 0.0, tenant: str = "t", **more: object
) -> list[Decision]:
    return scheduler.submit(run, tenant=tenant, key="k", prompt_tokens=tokens, now=now, **more)  # type: ignore[arg-type]


def test_runs_start_while_their_prompts_and_growth_find_room() -> None:
    scheduler = new_scheduler(1000)
    assert submit(scheduler, "a") == [Admit("a", "one")]
    assert submit(scheduler, "b") == [Admit("b", "one")]
    assert submit(scheduler, "c") == [Moved("c", 0)]
    assert submit(scheduler, "d") == [Moved("d", 1)]
    assert scheduler.ended("a", 1.0) == [Admit("c", "one")]
    assert (scheduler.num_admitted, scheduler.num_queued) == (2, 1)
    assert scheduler.tick(1.0) == [Moved("d", 0)]
    assert scheduler.tick(1.0) == []


def test_a_run_whose_growth_is_known_holds_no_more_than_that() -> None:
    scheduler = new_scheduler(1000, growth=500)
    submit(scheduler, "known", 300, growth_tokens=200)
    [replica] = scheduler._replicas
    assert replica.reserved_tokens == 500
    scheduler.turn_ended("known", 350, 1.0)
    scheduler.turn_wanted("known", 400, 2.0)
    assert (replica.footprint_tokens, replica.reserved_tokens) == (400, 500)
    assert submit(scheduler, "nothing", 0, growth_tokens=0) == [Admit("nothing", "one")]
    assert (replica.footprint_tokens, replica.reserved_tokens) == (400, 500)


def test_runs_hold_whole_blocks() -> None:
    """Of 8 blocks a run of 129 tokens holds two, and not three runs of 3 blocks have room but two."""
    scheduler = Scheduler(SchedulingOptions(first_growth_tokens=100))
    scheduler.replica_changed("one", 8 * 128, healthy=True, block_tokens=128, now=0.0)
    assert submit(scheduler, "a", 129) == [Admit("a", "one")]
    [replica] = scheduler._replicas
    assert (replica.footprint_tokens, replica.reserved_tokens) == (2 * 128, 2 * 128)
    assert submit(scheduler, "b", 3 * 128) == [Admit("b", "one")]
    assert (replica.footprint_tokens, replica.reserved_tokens) == (5 * 128, 6 * 128)
    assert submit(scheduler, "c", 157) == [Moved("c", 0)]
    assert submit(scheduler, "d", 1) == [Moved("d", 1)]


def test_a_prefix_is_shared_as_far_as_it_fills_blocks() -> None:
    scheduler = new_scheduler(1000, growth=0)
    scheduler.replica_changed("one", 10 * 100, healthy=True, block_tokens=100, now=0.0)
    for run in "abc":
        submit(scheduler, run, 350, prefix="p", prefix_tokens=250)
    [replica] = scheduler._replicas
    assert replica.footprint_tokens == 200 + 3 * 200


def test_what_runs_hold_adds_up_when_an_engine_comes_back_with_other_blocks() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "a", 350, prefix="p", prefix_tokens=250)
    scheduler.replica_changed("one", 1000, healthy=True, block_tokens=100, now=0.0)
    submit(scheduler, "b", 350, prefix="p", prefix_tokens=250)
    [replica] = scheduler._replicas
    assert replica.footprint_tokens == 250 + 100 + 200
    scheduler.turn_ended("a", 360, 1.0)
    assert replica.footprint_tokens == 250 + 150 + 200
    for run in "ab":
        scheduler.ended(run, 1.0)
    assert (replica.footprint_tokens, replica.reserved_tokens) == (0, 0)


def test_a_run_that_searches_keeps_its_room_and_goes_on_at_once() -> None:
    scheduler = new_scheduler(1000)
    submit(scheduler, "a")
    submit(scheduler, "b")
    submit(scheduler, "c")
    assert scheduler.turn_ended("a", 330, 1.0) == []
    assert scheduler.turn_wanted("a", 380, 2.0) == [Resume("a", "one")]
    assert scheduler.state("c") is State.QUEUED


def test_the_reserve_is_learned_from_runs_that_ended() -> None:
    scheduler = new_scheduler(1000, growth=500)
    for number in range(8):
        assert submit(scheduler, f"early-{number}", 100) == [Admit(f"early-{number}", "one")]
        scheduler.ended(f"early-{number}", 1.0, footprint_tokens=150)
    for number in range(6):
        assert submit(scheduler, f"late-{number}", 100) == [Admit(f"late-{number}", "one")]
    assert submit(scheduler, "one too many", 100) == [Moved("one too many", 0)]


@pytest.mark.parametrize(("num_runs", "reserved"), [(17, 1700), (26, 2540), (101, 8244)])
def test_of_many_runs_not_all_are_expected_to_be_large_at_once(num_runs: int, reserved: int) -> None:
    """All of the growth for the first 17 that start, ½ + 2/√n of it for one that comes to n others: 90 % at 25."""
    scheduler = new_scheduler(10**6, growth=100)
    for number in range(num_runs):
        submit(scheduler, f"run-{number}", 10)
    [replica] = scheduler._replicas
    assert replica.reserved_tokens - 10 * num_runs == reserved


def test_a_run_that_was_cancelled_teaches_nothing() -> None:
    scheduler = new_scheduler(1000, growth=500)
    for number in range(8):
        submit(scheduler, f"early-{number}", 100)
        scheduler.ended(f"early-{number}", 1.0, footprint_tokens=100, was_whole=False)
    assert submit(scheduler, "a", 100) == [Admit("a", "one")]
    assert submit(scheduler, "b", 100) == [Moved("b", 0)]


def test_growth_beyond_the_budget_pauses_the_run_furthest_from_its_end() -> None:
    scheduler = new_scheduler(1000, growth=0)
    for run, tokens in (("old", 300), ("small", 200), ("large", 350)):
        submit(scheduler, run, tokens)
    scheduler.turn_ended("old", 310, 1.0)
    scheduler.turn_wanted("old", 320, 1.0)
    scheduler.turn_ended("old", 330, 2.0)
    scheduler.turn_ended("small", 210, 2.0)
    assert scheduler.turn_ended("large", 500, 2.0) == [Pause("small")]
    assert scheduler.turn_wanted("small", 230, 3.0) == []
    assert scheduler.state("small") is State.WAITING
    assert submit(scheduler, "newcomer", 10) == [Moved("newcomer", 0)]
    assert scheduler.ended("old", 4.0) == [Resume("small", "one"), Admit("newcomer", "one")]


def test_a_run_that_writes_is_paused_at_the_end_of_its_turn() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "a", 400)
    submit(scheduler, "b", 500)
    assert scheduler.turn_ended("b", 720, 2.0) == []
    assert scheduler.state("a") is State.TURN
    assert scheduler.turn_ended("a", 410, 3.0) == [Pause("a")]
    assert scheduler.turn_wanted("a", 420, 4.0) == []
    assert scheduler.ended("b", 5.0) == [Resume("a", "one")]


def test_who_overruns_may_be_the_one_to_wait() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "old", 600)
    submit(scheduler, "new", 300, now=1.0)
    for run, tokens in (("old", 610), ("new", 310)):
        scheduler.turn_ended(run, tokens, 2.0)
    assert scheduler.turn_wanted("new", 500, 3.0) == [Pause("new")]
    assert scheduler.state("new") is State.WAITING
    assert scheduler.ended("old", 4.0) == [Resume("new", "one")]


def test_a_short_run_passes_a_long_one_that_came_a_little_earlier() -> None:
    """3 ms for each of 500 tokens more: the long run is as good as one that came 1.5 s later."""
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "first", 1000)
    submit(scheduler, "kept", 900)
    submit(scheduler, "long", 600, now=1.0)
    assert submit(scheduler, "short", 100, now=2.4) == [Moved("short", 1)]
    assert submit(scheduler, "late", 100, now=2.6) == [Moved("late", 3)]


def test_a_tenant_that_is_alone_takes_all_the_room_and_one_that_is_not_leaves_some() -> None:
    scheduler = new_scheduler(1000, growth=0)
    for number in range(13):
        submit(scheduler, f"greedy-{number}", 100, tenant="greedy")
    assert scheduler.num_admitted == 10
    submit(scheduler, "polite", 100, tenant="polite", now=1.0)
    # A run for which a replica is kept already starts all the same.
    assert scheduler.ended("greedy-0", 2.0) == [Admit("greedy-10", "one")]
    assert scheduler.ended("greedy-1", 3.0) == [Admit("polite", "one")]
    assert [scheduler.ended(f"greedy-{number}", 3.0) for number in (2, 3)] == [[], []]
    assert scheduler.ended("greedy-4", 3.0) == [Admit("greedy-11", "one")]
    assert scheduler.ended("polite", 4.0) == []
    assert not any(isinstance(decision, Admit) for decision in scheduler.tick(64.0))
    assert scheduler.tick(64.1) == [Admit("greedy-12", "one")]


def test_more_room_is_more_of_a_share() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "polite", 10, tenant="polite")
    for number in range(9):
        submit(scheduler, f"greedy-{number}", 100, tenant="greedy")
    assert scheduler.num_admitted == 8
    assert scheduler.replica_changed("two", 1000, healthy=True, now=1.0) == [
        Admit("greedy-7", "two"),
        Admit("greedy-8", "two"),
    ]


def test_a_run_that_waited_long_enough_goes_on_regardless_and_is_never_paused_again() -> None:
    scheduler = new_scheduler(1000, growth=0, max_pause_s=10.0)
    submit(scheduler, "a", 400)
    submit(scheduler, "b", 500)
    scheduler.turn_ended("a", 400, 1.0)
    assert scheduler.turn_ended("b", 900, 1.0) == [Pause("a")]
    scheduler.turn_wanted("a", 450, 2.0)
    assert scheduler.tick(11.9) == []
    assert scheduler.tick(12.0) == [Resume("a", "one"), Pause("b")]
    assert scheduler.turn_ended("a", 460, 13.0) == []
    assert scheduler.turn_wanted("a", 470, 14.0) == [Resume("a", "one")]


def test_waiting_times_add_up() -> None:
    scheduler = new_scheduler(1000, growth=0, max_pause_s=10.0)
    submit(scheduler, "a", 400)
    submit(scheduler, "b", 500)
    scheduler.turn_ended("a", 400, 0.0)
    scheduler.turn_ended("b", 900, 0.0)
    scheduler.turn_wanted("a", 400, 0.0)
    assert scheduler.ended("b", 6.0) == [Resume("a", "one")]
    submit(scheduler, "c", 500, now=6.0)
    scheduler.turn_ended("a", 410, 7.0)
    for turn in range(3):
        scheduler.turn_ended("c", 510 + turn, 7.0)
        scheduler.turn_wanted("c", 510 + turn, 7.0)
    assert scheduler.turn_ended("c", 900, 7.0) == [Pause("a")]
    scheduler.turn_wanted("a", 420, 8.0)
    assert scheduler.tick(11.9) == []
    assert scheduler.tick(12.0) == [Resume("a", "one"), Pause("c")]


def test_new_runs_go_where_most_room_is() -> None:
    scheduler = new_scheduler(1000)
    scheduler.replica_changed("two", 2000, healthy=True, now=0.0)
    places = [submit(scheduler, f"run-{number}", 300) for number in range(8)]
    assert [decision.replica for [decision] in places[:7] if isinstance(decision, Admit)] == [
        "two", "two", "two", "one", "two", "one", "two",
    ]  # fmt: skip
    assert places[7] == [Moved("run-7", 0)]


def test_a_large_run_keeps_one_replica_and_the_others_go_on() -> None:
    scheduler = new_scheduler(1000, growth=0)
    scheduler.replica_changed("two", 1000, healthy=True, now=0.0)
    for run, tokens in (("a", 500), ("b", 600), ("c", 300)):
        submit(scheduler, run, tokens)
    assert submit(scheduler, "large", 900) == [Moved("large", 0)]
    assert submit(scheduler, "small", 100) == [Moved("small", 1), Admit("small", "one")]
    assert submit(scheduler, "other", 500) == [Moved("other", 1)]
    assert scheduler.ended("c", 1.0) == []
    assert scheduler.ended("b", 2.0) == [Admit("large", "two")]
    assert scheduler.ended("a", 3.0) == [Admit("other", "one")]


def test_a_replica_that_was_kept_is_open_again_when_nobody_needs_it() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "a", 500)
    submit(scheduler, "large", 900, deadline_at=5.0)
    assert submit(scheduler, "small", 100) == [Moved("small", 1)]
    assert scheduler.tick(5.0) == [Expire("large"), Admit("small", "one")]
    submit(scheduler, "large again", 900)
    submit(scheduler, "small again", 100)
    assert scheduler.ended("large again", 6.0) == [Admit("small again", "one")]


def test_a_run_that_waits_closes_its_own_replica_alone() -> None:
    scheduler = new_scheduler(1000, growth=0)
    submit(scheduler, "a", 450)
    submit(scheduler, "b", 500)
    scheduler.turn_ended("a", 450, 1.0)
    assert scheduler.turn_ended("b", 800, 1.0) == [Pause("a")]
    scheduler.turn_wanted("a", 460, 2.0)
    assert submit(scheduler, "new", 100, now=3.0) == [Moved("new", 0)]
    assert scheduler.replica_changed("two", 400, healthy=True, now=4.0) == [Admit("new", "two")]
    assert scheduler.replica_changed("three", 500, healthy=True, now=5.0) == [Resume("a", "three")]


def test_new_runs_go_where_their_prefix_is_as_far_as_it_is_worth_it() -> None:
    scheduler = new_scheduler(10_000, prefix_worth=4.0)
    scheduler.replica_changed("two", 10_000, healthy=True, now=0.0)
    [first] = submit(scheduler, "a", 600, prefix="p", prefix_tokens=500)
    assert isinstance(first, Admit)
    [other] = submit(scheduler, "alone", 100)
    assert isinstance(other, Admit)
    assert other.replica != first.replica
    assert submit(scheduler, "b", 600, prefix="p", prefix_tokens=500) == [Admit("b", first.replica)]
    unlike = [submit(scheduler, f"c-{n}", 700, prefix="p", prefix_tokens=100) for n in range(20)]
    assert {d.replica for [d] in unlike if isinstance(d, Admit)} == {"one", "two"}


def test_a_shared_prefix_counts_once() -> None:
    scheduler = new_scheduler(1000, growth=0)
    started = [submit(scheduler, f"run-{n}", 300, prefix="p", prefix_tokens=200) for n in range(9)]
    assert [type(decisions[0]) for decisions in started] == [Admit] * 8 + [Moved]
    for number in range(8):
        scheduler.ended(f"run-{number}", 1.0)
    assert scheduler.ended("run-8", 1.0) == []
    assert [submit(scheduler, f"again-{n}", 500) for n in range(2)] == [[Admit(f"again-{n}", "one")] for n in range(2)]


def test_a_replica_that_goes_sends_its_runs_to_the_others() -> None:
    scheduler = new_scheduler(1000)
    submit(scheduler, "searching")
    submit(scheduler, "writing")
    scheduler.turn_ended("searching", 320, 1.0)
    scheduler.replica_changed("two", 500, healthy=True, now=1.0)
    assert scheduler.replica_changed("one", 1000, healthy=False, now=2.0) == [Pause("searching")]
    assert scheduler.turn_ended("writing", 310, 2.0) == [Pause("writing")]
    assert scheduler.turn_wanted("writing", 310, 2.0) == [Resume("writing", "two")]
    assert scheduler.turn_wanted("searching", 330, 2.0) == []
    assert scheduler.replica_changed("one", 1000, healthy=True, now=3.0) == [Resume("searching", "one")]


def test_a_turn_whose_replica_failed_goes_on_at_once() -> None:
    scheduler = new_scheduler(1000, growth=0)
    scheduler.replica_changed("two", 900, healthy=True, now=0.0)
    for run in ("a", "b"):
        submit(scheduler, run, 600)
    assert scheduler.turn_lost("a", 620, 1.0) == [Resume("a", "one")]
    scheduler.replica_changed("one", 1000, healthy=False, now=2.0)
    assert scheduler.turn_lost("a", 640, 2.0) == [Resume("a", "two")]
    assert scheduler.turn_ended("b", 610, 3.0) == [Pause("b")]
    assert scheduler.priority("a") < 0
    scheduler.replica_changed("two", 900, healthy=False, now=4.0)
    assert scheduler.turn_lost("a", 650, 4.0) == [Pause("a")]
    assert scheduler.replica_changed("one", 1000, healthy=True, now=5.0) == [Resume("a", "one")]
    assert [run.turn for run in scheduler._runs.values()] == [1, 1]


def test_without_a_replica_runs_wait() -> None:
    scheduler = Scheduler()
    assert submit(scheduler, "a") == [Moved("a", 0)]
    assert scheduler.replica_changed("one", None, healthy=True, now=1.0) == [Admit("a", "one")]


def test_unknown_capacities_leave_the_number_of_runs_to_bound() -> None:
    scheduler = new_scheduler(None, max_runs=3)
    scheduler.replica_changed("two", None, healthy=True, now=0.0)
    started = [submit(scheduler, f"run-{number}", 10**6) for number in range(4)]
    assert [d.replica for [d] in started[:3] if isinstance(d, Admit)] == ["one", "two", "one"]
    assert started[3] == [Moved("run-3", 0)]
    scheduler.turn_ended("run-0", 10**9, 1.0)
    assert scheduler.turn_wanted("run-0", 10**9, 2.0) == [Resume("run-0", "one")]
    # Both have as much room, and nothing has changed on the other for longer.
    assert scheduler.ended("run-0", 3.0) == [Admit("run-3", "two")]


def test_a_run_larger_than_every_replica() -> None:
    scheduler = new_scheduler(1000)
    assert submit(scheduler, "a", 1001) == [Refuse("a", "too_large", None)]
    assert submit(scheduler, "b", 1000) == [Admit("b", "one")]


def test_the_queue_is_bounded_in_all_and_for_each_tenant() -> None:
    scheduler = new_scheduler(400, max_queued=3, max_queued_per_tenant=2)
    submit(scheduler, "running")
    kinds = [submit(scheduler, f"{tenant}{n}", tenant=tenant)[0] for tenant in "ab" for n in range(3)]
    assert [kind.reason if isinstance(kind, Refuse) else kind.run for kind in kinds] == [
        "a0", "a1", "tenant_queue_full", "b0", "queue_full", "queue_full",
    ]  # fmt: skip
    assert scheduler.num_queued == 3
    told = [refused.retry_after_s for refused in kinds if isinstance(refused, Refuse)]
    assert told == sorted(told, key=lambda retry_after_s: retry_after_s or 0)
    assert told[0] is not None
    assert told[0] >= 1


def test_a_queued_run_expires_at_its_deadline_and_a_started_one_does_not() -> None:
    scheduler = new_scheduler(400)
    submit(scheduler, "running", deadline_at=5.0)
    submit(scheduler, "late", deadline_at=5.0)
    submit(scheduler, "patient", deadline_at=50.0)
    assert scheduler.tick(4.9) == []
    assert scheduler.tick(5.0) == [Expire("late"), Moved("patient", 0)]
    assert scheduler.ended("running", 6.0) == [Admit("patient", "one")]
    submit(scheduler, "late", deadline_at=70.0, now=60.0)
    assert scheduler.tick(61.0) == []


def test_later_turns_go_first_then_older_runs() -> None:
    scheduler = new_scheduler(None, max_runs=10)
    for number, run in enumerate(["first", "second", "third"]):
        submit(scheduler, run, now=1e9 + number)
    scheduler.turn_ended("third", 300, 1e9 + 5)
    scheduler.turn_wanted("third", 300, 1e9 + 6)
    assert sorted(["first", "second", "third"], key=scheduler.priority) == ["third", "first", "second"]
    assert all(abs(scheduler.priority(run)) < 2**53 for run in ("first", "second", "third"))


@pytest.mark.parametrize(
    "misuse",
    [
        lambda scheduler: submit(scheduler, "a"),
        lambda scheduler: scheduler.turn_ended("nobody", 1, 0.0),
        lambda scheduler: scheduler.turn_wanted("a", 1, 0.0),
        lambda scheduler: scheduler.turn_ended("queued", 1, 0.0),
        lambda scheduler: scheduler.turn_lost("queued", 1, 0.0),
        lambda scheduler: scheduler.ended("nobody", 0.0),
    ],
)
def test_what_the_table_does_not_have_raises(misuse) -> None:  # type: ignore[no-untyped-def]
    scheduler = new_scheduler(400)
    submit(scheduler, "a")
    submit(scheduler, "queued")
    with pytest.raises(IllegalInputError):
        misuse(scheduler)
    assert (scheduler.state("a"), scheduler.state("queued")) == (State.TURN, State.QUEUED)
    assert scheduler.state("nobody") is None


@pytest.mark.parametrize(
    "options", [{"max_runs": 0}, {"max_queued": -1}, {"growth_quantile": 1.5}, {"max_pause_s": -1.0}]
)
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        SchedulingOptions(**options)  # type: ignore[arg-type]
