"""Whole simulations: every policy brings every run to its end, loses no block, and does what it is named for."""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.simulator import __main__ as report
from loadtests.simulator.arrivals import Searches, at_once, bursty, poisson
from loadtests.simulator.fairness import shared_s
from loadtests.simulator.outcome import Outcome, quantile
from loadtests.simulator.policies.guessed import Guessed
from loadtests.simulator.policies.kept import Kept
from loadtests.simulator.policies.ours import Ours
from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import PRESETS, SEVEN_B_H100, SMOLLM2_135M_CPU
from loadtests.simulator.scenarios import PARTS, POLICIES, SCENARIOS, Scenario, simulate
from loadtests.simulator.simulation import SimulatedRun, Simulation
from loadtests.traces import SHAPES, RunTrace, TurnTrace, drawn
from searchr1.scheduling.options import SchedulingOptions

SMALL_RUSH = replace(SCENARIOS[0], num_runs=30, params=replace(SMOLLM2_135M_CPU, num_blocks=120))
[CALM] = [replace(scenario, num_runs=200) for scenario in SCENARIOS if scenario.name == "calm"]
ALL = {**POLICIES, **{f"ours {name}": make for name, make in PARTS.items()}}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("num_replicas", [1, 3])
def test_every_run_takes_its_turns_and_no_block_is_lost(name: str, num_replicas: int) -> None:
    simulation = simulate(replace(SMALL_RUSH, num_replicas=num_replicas), ALL[name], seed=1)
    for run in simulation.runs:
        assert run.turn == len(run.trace.turns)
        assert run.footprint == run.trace.last_footprint
        assert run.came_at <= run.admitted_at < run.first_token_at <= run.ended_at
        assert 0 <= run.cached_tokens <= run.prompt_tokens
    for replica in simulation.replicas:
        assert (replica.num_running, replica.num_waiting) == (0, 0)
        assert replica.cache.num_free == replica.cache.num_blocks


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_gives_the_same_outcome(name: str) -> None:
    first, again = (Outcome.of(simulate(SMALL_RUSH, POLICIES[name], seed=3)) for _ in range(2))
    assert first == again
    assert first != Outcome.of(simulate(SMALL_RUSH, POLICIES[name], seed=4))


def test_with_a_rush_budgets_keep_what_plain_agents_lose() -> None:
    found = {name: Outcome.of(simulate(SMALL_RUSH, make, seed=1)) for name, make in POLICIES.items()}
    plain, ours, best = found["fcfs, no cap"], found["ours"], found["endless KV cache, priority"]
    assert plain.kept < 0.3
    assert ours.kept > best.kept - 0.05
    assert ours.makespan_s < 0.7 * plain.makespan_s
    assert ours.mean_s < 0.6 * plain.mean_s
    assert best.recomputed_tokens <= ours.recomputed_tokens < plain.recomputed_tokens


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_pressure_ours_is_no_worse_than_plain(seed: int) -> None:
    plain, ours = (Outcome.of(simulate(CALM, POLICIES[name], seed=seed)) for name in ("fcfs, no cap", "ours"))
    assert ours.makespan_s < 1.02 * plain.makespan_s
    assert ours.mean_s < 1.02 * plain.mean_s
    assert ours.p95_s < 1.05 * plain.p95_s


def test_a_polite_tenant_is_not_held_up_by_a_greedy_one() -> None:
    (alone, _), (beside, _), (plain, _) = shared_s(Ours, 0), shared_s(Ours, 600), shared_s(Plain, 600)
    assert len(alone) == len(beside) == len(plain)
    assert p95_s(beside) < 2 * p95_s(alone)
    assert p95_s(plain) > 3 * p95_s(beside)


def test_room_that_is_kept_for_others_costs_a_greedy_tenant_little() -> None:
    everything = Ours(options=SchedulingOptions(max_queued=10**6, max_queued_per_tenant=10**6, tenant_room_share=1.0))
    (beside, ended_at), (crowded, sooner) = shared_s(Ours, 600), shared_s(lambda: everything, 600)
    assert p95_s(crowded) > 1.3 * p95_s(beside)
    assert ended_at < 1.15 * sooner


def test_short_runs_pass_long_ones() -> None:
    [mixed] = [scenario for scenario in SCENARIOS if scenario.name == "mixed"]
    mixed = replace(mixed, num_runs=700)
    ours, in_order = (simulate(mixed, PARTS[name], seed=1) for name in ("ours", "in order of coming"))
    assert Outcome.of(ours).mean_s < 0.95 * Outcome.of(in_order).mean_s
    longest, before = (
        max(run.latency_s for run in simulation.runs if run.name.startswith("long-")) for simulation in (ours, in_order)
    )
    assert longest < 1.35 * before


def p95_s(latencies_s: Sequence[float]) -> float:
    return quantile(sorted(latencies_s), 0.95)


def world(policy: Guessed | Kept, footprints: list[int]) -> tuple[Simulation, list[SimulatedRun]]:
    """A policy on one replica of 46,592 tokens, and runs of two turns that have not come yet."""
    simulation = Simulation(SMOLLM2_135M_CPU, policy, 1, Searches(random.Random(1), cached_s=None))
    policy.begin(simulation)
    turns = (TurnTrace(10, 100), TurnTrace(10))
    runs = [SimulatedRun(RunTrace(str(n), f, 0, turns), 0.0, footprint=f) for n, f in enumerate(footprints)]
    return simulation, runs


def test_the_router_that_guesses_pauses_the_smallest_that_is_away() -> None:
    policy = Guessed()
    _, runs = world(policy, [20_000, 10_000, 16_000, 5_000])
    for run in runs:
        policy.came(run, 0.0)
    assert policy.room(0) == 363 * 128 - 46_000 - 3 * 100
    assert list(policy.waiting) == ["3"]
    for run, grown in ((runs[1], 10_400), (runs[2], 16_400)):
        run.footprint = grown
        policy.turn_ended(run, 1.0)
    policy.tick(2.0)
    assert list(policy.waiting) == ["3", "1"]
    policy.ended(runs[0], 3.0)
    policy.tick(4.0)
    assert list(policy.waiting) == []
    assert {"1", "2", "3"} == policy.active[0].keys()


def test_the_router_that_guesses_marks_those_on_the_engine_where_nobody_is_away() -> None:
    policy = Guessed()
    _, runs = world(policy, [20_000, 26_000])
    for run in runs:
        policy.came(run, 0.0)
    runs[1].footprint = 27_000
    policy._tell(runs[1])
    policy.tick(2.0)
    assert policy.marked == {"0"}
    assert policy.room(0) >= 0
    policy.turn_ended(runs[0], 3.0)
    assert list(policy.waiting) == ["0"]


@pytest.mark.parametrize(("latency_s", "num_waiting", "pins"), [(1.0, 0, True), (500.0, 300, False)])
def test_the_time_to_live_follows_what_it_gains(latency_s: float, num_waiting: int, pins: bool) -> None:
    policy = Kept()
    simulation, runs = world(policy, [2000])
    for _ in range(num_waiting):
        runs.append(SimulatedRun(runs[0].trace, 0.0, footprint=40_000))
        policy.came(runs[-1], 0.0)
    policy.came(runs[0], 0.0)
    policy.latencies_s = [latency_s] * 50
    policy._learn(runs[0])
    assert (policy.ttl_s == latency_s) == pins
    assert policy.keeps(runs[0]) == pins
    assert simulation.replicas[0].num_waiting >= num_waiting - 1


@pytest.mark.parametrize("arrivals", [poisson(5.0), bursty(5.0)], ids=["poisson", "bursty"])
def test_arrivals_have_their_rate(arrivals) -> None:  # type: ignore[no-untyped-def]
    times = arrivals(20_000, random.Random(1))
    assert times == sorted(times)
    assert 20_000 / times[-1] == pytest.approx(5.0, rel=0.1)


def test_bursts_are_bursts() -> None:
    def busiest_share(times: list[float]) -> float:
        counts: dict[int, int] = {}
        for at in times:
            counts[int(at / 5)] = counts.get(int(at / 5), 0) + 1
        return max(counts.values()) / 5 / 5.0

    assert (
        busiest_share(bursty(5.0)(5000, random.Random(1))) > 2.5 > busiest_share(poisson(5.0)(5000, random.Random(1)))
    )
    assert at_once()(3, random.Random(1)) == [0.0] * 3


def test_searches_have_a_heavy_tail_and_repeated_ones_are_cached() -> None:
    searches = Searches(random.Random(1), cached_s=None)
    taken = sorted(searches.latency_s("q", 0.0) for _ in range(10_000))
    assert quantile(taken, 0.5) == pytest.approx(0.8, rel=0.05)
    assert 0.2 < quantile(taken, 0.05) < 0.35
    assert quantile(taken, 0.99) > 3.5
    cached = Searches(random.Random(1), cached_s=0.002)
    first = cached.latency_s("q", 0.0)
    assert cached.latency_s("q", 0.05) == pytest.approx(first - 0.05)
    assert cached.latency_s("q", 100.0) == 0.002
    assert cached.num_cached == 2


@pytest.mark.parametrize("params", PRESETS.values(), ids=PRESETS)
def test_sizes_that_cannot_work_are_refused(params) -> None:  # type: ignore[no-untyped-def]
    assert params.capacity_tokens > 40_000
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        replace(params, max_num_batched_tokens=params.max_num_seqs)


@pytest.mark.slow
def test_the_report_has_a_row_a_policy_and_two_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "SCENARIOS", [SMALL_RUSH])
    monkeypatch.setattr(report, "_RATES", (2.0, 3.0))
    monkeypatch.setattr(sys, "argv", ["simulator", "--seeds", "1", "--num", "20", "--pictures", str(tmp_path)])
    report.main()
    printed = capsys.readouterr().out
    for name in ALL:
        assert f"| {name.removeprefix('ours ')} |" in printed or f"| {name} |" in printed
    assert "### cpu-rush: 20 runs on 1 ×" in printed
    assert "A polite tenant" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["simulator-latencies.png", "simulator-loads.png"]


def test_a_scenario_on_the_gpu_takes_the_cap_for_each_replica() -> None:
    scenario = Scenario(
        name="small", params=SEVEN_B_H100, shape="hotpot", num_runs=40, arrivals=at_once(), cap=3, num_replicas=2
    )
    simulation = simulate(scenario, POLICIES["fcfs, fixed cap"], seed=1)
    assert sum(run.admitted_at == 0 for run in simulation.runs) == 6
    assert {run.replica for run in simulation.runs} == {0, 1}
    assert len(drawn(SHAPES["hotpot"], 40, seed=1)) == 40
